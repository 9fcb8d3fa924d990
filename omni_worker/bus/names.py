"""Names: of an app, which is part of a consumer's name and of subjects of ours."""

from __future__ import annotations

import re

from ..errors import ConfigError
from ..schemas import check_name
from ..subjects import check_token

LONGEST_PROPOSED = 60  # characters


def check_app_name(name: str) -> None:
    """Refuse an app name that cannot be part of a consumer's name or of a subject of ours."""
    try:
        check_token(name, f"app name {name!r}")
        check_name(name, f"app name {name!r}")
    except (ValueError, ConfigError) as error:
        near = re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")[:LONGEST_PROPOSED]
        instead = f"; for example {near!r}" if near else ""
        raise ConfigError(f"{error}. Take letters, digits, - and _{instead}") from None
