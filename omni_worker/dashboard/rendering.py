"""Rendering: facts become HTML. Everything is escaped, and nothing foreign is markup."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..transports.timestamps import iso
from . import wording
from .page import Ask, Facts, Page

STATIC = Path(__file__).parent / "static"

PASSING = ("live", "format", "done")  # of one answer only

NAVIGATION = (
    ("overview", "/", "Overview"),
    ("letters", "/letters", "Dead letters"),
    ("events", "/events", "Events"),
    ("workers", "/workers", "Workers"),
    ("streams", "/streams", "Streams"),
    ("schedules", "/schedules", "Schedules"),
)


class Renderer:
    """Writes pages. The templates are read once."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=wording.shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "grouped": wording.grouped,
            "short": wording.short,
            "rate": wording.rate,
            "lasting": wording.lasting,
            "precise": wording.precise,
            "size": wording.size,
            "share": wording.share,
            "iso": iso,
            "key": _key,
        }
        self._environment.globals["version"] = _version()

    def whole(self, page: Page, ask: Ask, facts: Facts) -> str:
        """Write a page with its head and navigation."""
        return self._write("base.html", page, ask, facts)

    def part(self, page: Page, ask: Ask, facts: Facts) -> str:
        """Write what changes of a page."""
        return self._write(f"{page.name}.html", page, ask, facts)

    def _write(self, template: str, page: Page, ask: Ask, facts: Facts) -> str:
        now = ask.now

        def ago(when: datetime | None) -> str:
            return wording.ago(when, now)

        return self._environment.get_template(template).render(
            facts, page=page, ask=ask, access=ask.services.access, navigation=NAVIGATION,
            inner=f"{page.name}.html", ago=ago, link=ask.link, server=ask.services.server,
            snapshot=ask.services.watch.snapshot, live=_live_address(ask),
        )  # fmt: skip


def _live_address(ask: Ask) -> str:
    """Return the address of the same page's changes."""
    values = {name: ask.query.getlist(name) for name in ask.query if name not in PASSING}
    return ask.link(ask.path, **values, live=1)


def _key(parts: object) -> str:
    """Return an id for an element, whatever the names hold."""
    return "k" + hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:12]


def _version() -> str:
    """Return a text that changes with the static files, so that browsers may keep them."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
