"""Page: what a page is, and what a request asks of it. Data, and reading of the URL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request

from ..operations.dead_letters import DeadLetters
from ..transports.base import Transport
from .access import Access
from .jobs import Jobs
from .replays import Replays
from .watch import Snapshot, Watch
from .wording import moment

LONGEST = 500  # characters of a value in the URL

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Objects that pages work with."""

    transport: Transport
    watch: Watch
    jobs: Jobs
    replays: Replays
    letters: DeadLetters
    access: Access
    server: str  # address of the NATS server, without secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Request for a page: its filters, who asks, and the services that answer."""

    services: Services
    query: QueryParams
    base: str  # path the dashboard is mounted at
    path: str  # below it
    user: str
    token: str
    now: datetime

    def text(self, name: str) -> str:
        """Return a value of the URL, empty if it is not given."""
        return (self.query.get(name) or "").strip()[:LONGEST]

    def number(self, name: str) -> int | None:
        """Return a whole number of the URL, None if it is not one."""
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def moment(self, name: str) -> datetime | None:
        """Return a moment of the URL, `2h` ago or a time."""
        return moment(self.text(name), self.now) if self.text(name) else None

    def link(self, path: str, **values: object) -> str:
        """Return the address of a page of ours; values that are None or empty are left out."""
        query = urlencode(
            {name: value for name, value in values.items() if value not in (None, "", False)},
            doseq=True, errors="replace",
        )  # fmt: skip
        return f"{self.base}{path}" + (f"?{query}" if query else "")


FactsOf = Callable[[Ask], AsyncGenerator[Facts, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: its facts come in steps, each more complete than the one before.

    The first answer shows what was found within a moment; an open browser gets the rest, and all
    again when ``version`` of the snapshot is another (None: never again).
    """

    path: str
    name: str  # of its template, and of its entry in the navigation
    title: str
    facts: FactsOf
    version: Callable[[Snapshot], int] | None = None
    is_shared: bool = False  # the same for everybody, so that it is written once for all
    parent: str = ""  # the entry of the navigation it belongs to


def ask_of(request: Request, services: Services) -> Ask:
    """Read a request that the guard let pass."""
    scope = request.scope
    return Ask(
        services=services,
        query=request.query_params,
        base=scope["omni_base"],
        path=scope["path"].removeprefix(scope["omni_base"]) or "/",
        user=scope["omni_user"],
        token=scope["omni_token"],
        now=datetime.now(UTC),
    )


def of_all(snapshot: Snapshot) -> int:
    """Return the version of everything."""
    return snapshot.version


def of_letters(snapshot: Snapshot) -> int:
    """Return the version of the dead letters."""
    return snapshot.letters_version
