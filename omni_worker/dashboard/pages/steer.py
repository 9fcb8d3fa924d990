"""Steer: pause, resume or scale a handler in every process, after a question."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import urlencode

from ...errors import OmniWorkerError
from ...steering.controls import MOST, Controls
from ..access import ANYBODY
from ..page import Ask, Facts, Page
from ..wording import seconds
from .action import Form, Problem, Redirect
from .handler import is_steerable, processes_of

log = logging.getLogger("omni_worker.dashboard")

VERBS = {"pause": "Pause", "resume": "Resume", "scale": "Scale", "reset": "Reset"}
NAMES = ("verb", "app", "name", "for", "concurrency", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as a person typed it; ``trouble`` says what cannot be read."""

    verb: str
    app: str
    name: str
    seconds: float | None = None  # of a pause
    concurrency: int | None = None
    reason: str = ""
    trouble: str = ""


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Say what an order would mean, and ask."""
    values = {name: ask.text(name) for name in NAMES}
    order, snapshot = _order(values), ask.services.watch.snapshot
    status = next(
        (
            one
            for one in snapshot.handlers
            if (one.app, one.name) == (order.app, order.name) and is_steerable(one)
        ),
        None,
    )
    if status is None:
        yield {
            "order": order, "handler": None, "values": values, "word": "", "status": 404,
            "json": {"error": "no such handler"},
        }  # fmt: skip
        return
    running = processes_of(snapshot.processes or (), status)
    yield {
        "order": order,
        "handler": status,
        "values": values,
        "word": VERBS.get(order.verb, ""),
        "processes": len(running),
        "json": {
            "verb": order.verb, "app": order.app, "handler": order.name,
            "consumers": len(status.consumers), "processes": len(running),
            "waiting": status.waiting, "trouble": order.trouble or None,
        },
    }  # fmt: skip


async def give(ask: Ask, form: Form) -> Redirect | Problem:
    """Give an order that was confirmed."""
    order = _order({name: form.text(name) for name in NAMES})
    here = {"app": order.app, "name": order.name}
    back = f"/handler?{urlencode(here)}"
    if order.trouble:
        return Problem("Nothing was changed", order.trouble, back, 400)
    controls = Controls(ask.services.transport, order.app, lambda: person(ask))
    try:
        match order.verb:
            case "pause":
                await controls.pause(order.name, order.seconds, order.reason)
            case "resume":
                await controls.resume(order.name)
            case _:
                await controls.scale(order.name, order.concurrency, order.reason)
    except OmniWorkerError as error:
        return Problem("Nothing was changed", f"{error}.", back)
    log.info("%s: %s of %s of %s", ask.user, order.verb, order.name, order.app)
    return Redirect("/handler", {**here, "done": order.verb})


def person(ask: Ask) -> str:
    """Name who gives an order, as it is shown afterwards."""
    if ask.user == ANYBODY:
        return f"dashboard@{socket.gethostname()}"
    return f"{ask.user} (dashboard)"


def _order(values: dict[str, str]) -> Order:
    verb, number, time = values["verb"], values["concurrency"], values["for"]
    trouble, concurrency, lasts = "", None, None
    if verb not in VERBS or not values["app"] or not values["name"]:
        trouble = "The form names no handler, or nothing that can be done."
    if verb == "scale":
        is_number = number.isascii() and number.isdigit() and len(number) < 9
        concurrency = int(number) if is_number else 0
        if not 0 < concurrency <= MOST:
            trouble = trouble or f"At once: expected a number from 1 to {MOST}."
    if verb == "pause" and time:
        lasts = seconds(time)
        if lasts is None:
            trouble = trouble or "For: expected 30s, 10m, 2h, 7d, or nothing."
    return Order(
        verb=verb,
        app=values["app"],
        name=values["name"],
        seconds=lasts,
        concurrency=concurrency,
        reason=values["reason"] if verb in ("pause", "scale") else "",
        trouble=trouble,
    )


PAGE = Page(path="/handler/steer", name="steer", title="Steer", facts=facts, parent="overview")
