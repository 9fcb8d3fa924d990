"""Readers: the consumers of our own stream that an app has for itself, not a handler. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..transports.infos import ConsumerInfo
from .streams import OWN_STREAM
from .tags import app_of


@dataclass(frozen=True, slots=True)
class AppReader:
    """Consumer that all processes of an app read; what it does is said for people."""

    app: str
    name: str
    does: str
    stops: str  # what no longer happens where nothing is delivered, or where it is missing
    others: str  # what to do in place of pausing it

    @property
    def paused(self) -> str:
        """Say that others paused it, what stands still, and how it goes on."""
        again = f"to resume: omni-worker resume {self.name}"
        return f"{self.name} is paused by others, so {self.stops}; {again}"

    @property
    def sentence(self) -> str:
        """Say that it belongs to no handler, and what it does."""
        return f"{self.name} belongs to no handler: it {self.does}"


def app_readers(app: str) -> tuple[AppReader, ...]:
    """Return all that an app may have; each is made by what first needs it."""
    handler = "to stop a handler, and these with it: omni-worker pause HANDLER"
    return (
        AppReader(
            app,
            f"{app}-due",
            f"publishes the events of {app} that are due (after=, at=, crons), and atomic() blocks",
            f"nothing of {app} that is due is published, and no atomic() block",
            "to hold back one event or cron: omni-worker schedules pause KEY; to stop a handler:"
            " omni-worker pause HANDLER",
        ),
        AppReader(
            app,
            f"{app}-again",
            f"brings the long retries of {app} that are due",
            f"no long retry of {app} that is due runs",
            handler,
        ),
        AppReader(
            app,
            f"{app}-retry",
            f"brings the events of {app} that were sent back from dead letters",
            f"no event of {app} that is sent back from a dead letter runs",
            handler,
        ),
    )


def app_reader(info: ConsumerInfo) -> AppReader | None:
    """Return which of its app's own readers a consumer is; None if it is none of them."""
    return reader_named(info.stream, app_of(info.config), info.name)


def reader_named(stream: str, app: str | None, name: str) -> AppReader | None:
    """Return an app's own reader by its place; None if there is none of this name."""
    if app is None or stream != OWN_STREAM.name:
        return None
    return next((one for one in app_readers(app) if one.name == name), None)


def pause_of_reader(info: ConsumerInfo) -> str | None:
    """Say that an app's own reader is paused; None if it is not."""
    reader = app_reader(info)
    return reader.paused if reader is not None and info.is_paused else None
