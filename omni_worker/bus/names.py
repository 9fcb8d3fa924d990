"""Names: of an app, which is part of a consumer's name and of subjects of ours."""

from __future__ import annotations

from ..errors import ConfigError
from ..schemas import check_name
from ..subjects import check_token


def check_app_name(name: str) -> None:
    """Refuse an app name that cannot be part of a consumer's name or of a subject of ours."""
    try:
        check_token(name, f"app name {name!r}")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    check_name(name, f"app name {name!r}")
