"""Named target: an error's advice with the app of this command in place of MODULE:APP."""

from __future__ import annotations

import shlex

from ..errors import OmniWorkerError
from ..stream_consumers import TakeoverNeeded


def named(text: object, target: str) -> str:
    """Return the text with the target in the commands that it advises."""
    return str(text).replace("MODULE:APP", shlex.quote(target))


def in_dev(error: OmniWorkerError, target: str, server: str) -> str:
    """Return an error's text, and what to do where the server may end with `dev`."""
    text = named(error, target)
    if not isinstance(error, TakeoverNeeded):
        return text
    return (
        f"{text}. Leave dev running, since its server ends with it: do this in another terminal,"
        f" with NATS_URL={server}, then save again"
    )
