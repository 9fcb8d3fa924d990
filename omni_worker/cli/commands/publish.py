"""`omni-worker publish`: one event from the terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bus import EventBus
from ...errors import ConfigError, InvalidEvent, OmniWorkerError
from ...events import Published
from ...listeners.logs import set_up_logging
from ...listeners.pretty import visible_json
from ...schemas import SchemaRegistry
from ...settings import Settings
from ...subjects import build_subject
from .. import CALLED_WRONGLY, FAILED, INTERRUPTED, complain, say
from ..connection import connect, for_a_person, with_advice
from ..environment import warn_of_unknown_variables

NAME = "omni-worker-cli"
PATIENCE = 10.0  # seconds for the server's confirmation; somebody waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be published, as it was typed."""

    type: str
    channel: str | None
    instance: str | None
    data: str
    id: str | None


def publish_command(wanted: Wanted, as_json: bool) -> int:
    """Returns the exit code: 1 when it could not be stored, 2 when it was called wrongly."""
    set_up_logging("pretty", "warning")
    # Here nobody could register the schema it misses.
    logging.getLogger("omni_worker.schemas").setLevel(logging.ERROR)
    warn_of_unknown_variables()
    try:
        payload = _read(wanted.data)
        subject = build_subject(wanted.type, wanted.channel, wanted.instance)
        SchemaRegistry().check_known(wanted.type, warn=lambda _: None)
        settings = Settings()
        published = asyncio.run(_publish(settings, wanted, payload))
    except (InvalidEvent, ConfigError, OSError, ValueError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    except OmniWorkerError as error:
        complain(with_advice(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    if as_json:
        say(visible_json(_json(published, subject)))
        return 0
    again = "was stored before" if published.duplicate else "stored"
    say([f"{subject} {again}: {published.stream} #{published.sequence}", f"id {published.id}"])
    return 0


async def _publish(settings: Settings, wanted: Wanted, payload: Any) -> Published:
    bus = EventBus(name=NAME, settings=for_a_person(settings))
    await connect(bus.transport, NAME)
    try:
        await bus.connect()
        return await bus.publish(
            wanted.type, payload, channel=wanted.channel, instance=wanted.instance, id=wanted.id,
            timeout=PATIENCE,
        )  # fmt: skip
    finally:
        await bus.close()


def _json(published: Published, subject: str) -> dict[str, Any]:
    return {
        "id": published.id,
        "subject": subject,
        "stream": published.stream,
        "sequence": published.sequence,
        "duplicate": published.duplicate,
    }


def _read(data: str) -> Any:
    """JSON as it stands, from @file or from standard input. Raises ValueError saying where."""
    where = {"-": "standard input"}.get(data, data[1:] if data.startswith("@") else "--data")
    try:
        if data == "-":
            text = sys.stdin.read()
        else:
            text = Path(where).read_text(encoding="utf-8") if data.startswith("@") else data
        return json.loads(text)
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
