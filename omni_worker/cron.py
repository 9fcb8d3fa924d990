"""Cron: expressions of five fields, checked as the server reads them, and the times they mean.

Pure. Six fields, seconds first, are the server's own form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .errors import ConfigError

CatchUp = Literal["one", "none"]

EXAMPLE = "minute, hour, day of the month, month and day of the week, such as '0 8 * * mon-fri'"
_FIELD = re.compile(r"(?:[0-9*,/-]|[a-z]{3})+", re.IGNORECASE)
_SUNDAY = re.compile(r"(?:^|[,-])7(?:$|[,/-])")
_OPEN_STEPS = re.compile(r"(?:^|,)[^*,/-]+/")
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Cron:
    """When a handler runs by the clock, and what becomes of the times that were missed."""

    expression: str
    tz: str = "UTC"
    catch_up: CatchUp = "one"

    @property
    def shown(self) -> str:
        """Expression and zone, for people."""
        return f"{self.expression} {self.tz}"


def check_cron(expression: str, tz: str, catch_up: str) -> Cron:
    """Return a declared cron. Raises ConfigError for what the server would refuse."""
    if catch_up not in ("one", "none"):
        raise ConfigError(f"catch_up={catch_up!r}: expected 'one' or 'none'")
    fields = expression.split() if isinstance(expression, str) else []
    if len(fields) != 5:
        raise ConfigError(f"expected five fields: {EXAMPLE}")
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise ConfigError(f"{field!r}: expected {EXAMPLE}")
    _, _, day, _, weekday = fields
    if _SUNDAY.search(weekday):
        raise ConfigError(f"{weekday!r}: write Sunday as 0 or sun")
    if _OPEN_STEPS.search(weekday):
        # Servers end such a range on Saturday, cron on the Sunday after.
        raise ConfigError(f"{weekday!r}: write the range of the steps, such as mon-sat/2")
    if "*" not in (day, weekday) and "*/" in day + weekday:
        # Servers and cron differ in whether both or one of them must fit.
        raise ConfigError(f"{day!r} and {weekday!r}: give days without steps, or only one of them")
    try:
        zone = ZoneInfo(tz)
        next(CronSim(" ".join(fields), datetime.now(zone)))
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError):
        raise ConfigError(f"tz={tz!r}: expected a time zone such as 'America/Sao_Paulo'") from None
    except (CronSimError, StopIteration) as error:
        raise ConfigError(f"{error or 'it has no time at all'}; expected {EXAMPLE}") from None
    return Cron(" ".join(fields), tz, "one" if catch_up == "one" else "none")


def time_before(expression: str, tz: str, at: int) -> int:
    """Return the last time up to ``at``; both in epoch nanoseconds. Raises ValueError."""
    second = datetime.fromtimestamp(at // _SECOND, UTC) + timedelta(seconds=1)
    return _found(expression, tz, second, reverse=True)


def time_after(expression: str, tz: str, at: int) -> int:
    """Return the first time after ``at``; both in epoch nanoseconds. Raises ValueError."""
    return _found(expression, tz, datetime.fromtimestamp(at // _SECOND, UTC), reverse=False)


def _found(expression: str, tz: str, at: datetime, *, reverse: bool) -> int:
    try:
        found = next(CronSim(expression, at.astimezone(ZoneInfo(tz)), reverse=reverse))
    except (CronSimError, StopIteration, ZoneInfoNotFoundError) as error:
        raise ValueError(f"{expression} {tz}: {error}") from None
    return round(found.timestamp()) * _SECOND
