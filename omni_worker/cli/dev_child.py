"""The children of `omni-worker dev`: they import the project and run it, until ordered to end.

`python -m omni_worker.cli.dev_child FD TARGET payloads|plain LEVEL SERVER APP_DIR CHOICE`; FD is a
socket to the parent; SERVER and APP_DIR may be empty; CHOICE is JSON, the names of --only and
--except.
This process imports the framework only, and forks a child whenever it is asked to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ..app import App
from ..bus import EventBus
from ..errors import ConfigError, OmniWorkerError
from ..listeners.configuration import set_up_logging
from ..listeners.logs import write
from ..listeners.pretty import INDENT, terminal_width
from ..listeners.text import human_time
from ..nats_server import die_with_parent
from ..outcomes import Failed
from ..parts import chosen
from ..process.channel import ParentChannel
from ..process.exit_codes import CALLED_WRONGLY
from ..process.health import Health
from ..process.main import leave, run_with_ports
from ..process.ports import Ports
from ..process.router import Router
from ..process.worker import Stop, run_worker
from ..settings import Settings
from ..signals import Listener, Ready, RunFinished, RunStarted
from ..tasks import own
from ..transports.base import Delivery
from ..wire import plain_payload
from . import complain
from .app_loader import CannotLoad, load_app
from .common_options import Given
from .dev_events import DevEvents
from .dev_handlers import Memory, say_changes, say_left
from .handler_list import handler_list
from .named_target import in_dev
from .session import settings_of

log = logging.getLogger("omni_worker.worker")

SLOW = 1.0  # seconds until a running handler is mentioned before its end


def main() -> int:
    """The template's life: fork a child for every order. Returns the exit code."""
    # A Ctrl-C in the terminal reaches us too; the parent says what it means. Not SIG_IGN, which
    # programs that a handler starts would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    control = socket.socket(fileno=int(sys.argv[1]))
    target, payloads, level, server, app_dir, choice = sys.argv[2:8]
    _warm_up()
    die = die_with_parent()
    signal.signal(signal.SIGCHLD, lambda *_: _tell_ended(control))
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            return 0
        if os.fork():
            os.close(descriptors[0])
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if die is not None:
            die()
        control.close()
        return work(
            ParentChannel(socket.socket(fileno=descriptors[0])),
            json.loads(data),
            target,
            payloads=payloads == "payloads",
            level=level,
            given=Given(server or None, Path(app_dir) if app_dir else None),
            choice=json.loads(choice),
        )


def work(
    parent: ParentChannel,
    order: dict[str, Any],
    target: str,
    *,
    payloads: bool,
    level: str,
    given: Given,
    choice: tuple[list[str], list[str]],
) -> int:
    """The child's life. Returns the exit code."""
    parent.fact("pid", os.getpid())
    sys.breakpointhook = _breakpoint
    set_up_logging("pretty", level)
    logging.getLogger("omni_worker.events").setLevel(logging.DEBUG)
    try:
        app = load_app(target, given.app_dir)
        settings = settings_of(app, given.server)
        if not app.handlers:
            raise CannotLoad(f"{target} has no handlers: declare one with @app.on(...)")
        chosen(app.declarations, *choice)
    except (CannotLoad, ConfigError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    parent.fact("loaded", True)
    shown = Shown(payloads)
    app.listeners.append(Listener(shown.hear, (RunStarted, RunFinished)))
    report = Report(parent, order, app.use(DevEvents(settings)))
    try:
        code = run_with_ports(
            app,
            settings,
            Ports.of(settings),
            lambda health, router: _work(
                app, settings, parent, report, health, router, choice, target
            ),
        )
    except ConfigError as error:  # a port is taken, or a route
        complain(str(error))
        return CALLED_WRONGLY
    if shown.cut_off:
        events = (
            "1 unfinished event" if shown.cut_off == 1 else f"{shown.cut_off} unfinished events"
        )
        logging.getLogger("omni_worker.dev").info("%s handed back", events)
    leave(code)
    return code


def _breakpoint(*arguments: Any, **options: Any) -> Any:
    """Debug as `breakpoint()` does, but leave Ctrl-C to dev: pdb takes it for itself at `continue`.

    The terminal sends it to this process as well, which would stop in the middle of the event loop.
    """
    if "PYTHONBREAKPOINT" in os.environ or arguments or options:
        return sys.__breakpointhook__(*arguments, **options)
    from pdb import Pdb  # as breakpoint() does: it takes a while

    Pdb(nosigint=True).set_trace(sys._getframe(1))
    return None


def _tell_ended(control: socket.socket) -> None:
    """Report how our children ended: only their parent process can know."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            control.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


class HowItEnded:
    """Ending of this process: in good order, or handing back its events at once."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop

    async def obey(self, in_order: bool) -> None:
        """Obey the parent's command `stop`."""
        self.end(in_order)

    def end(self, in_order: bool = False) -> None:
        """End this process; also when the parent is gone."""
        # The parent says what happens; our own lines about it would only repeat that.
        log.setLevel(logging.ERROR)
        if in_order:
            self._stop.ask("the parent")
        elif self._stop.asked.is_set():
            self._stop.forced.set()
        else:
            self._settings.grace = 0.0
            self._stop.ask("the parent")


class Shown:
    """Print each event when its handler ends, and before that when it takes long."""

    def __init__(self, payloads: bool) -> None:
        self._payloads = payloads
        self.cut_off = 0
        self._running: dict[Delivery, asyncio.TimerHandle] = {}

    def hear(self, signal: RunStarted | RunFinished) -> None:
        """Log a run when it has ended, and before if it has not ended in a second."""
        if isinstance(signal, RunStarted):
            loop = asyncio.get_running_loop()
            self._running[signal.delivery] = loop.call_later(SLOW, write, signal)
            return
        self._running.pop(signal.delivery).cancel()
        outcome = signal.outcome
        if isinstance(outcome, Failed) and isinstance(outcome.error, asyncio.CancelledError):
            self.cut_off += 1
            return
        write(signal)
        if self._payloads:
            self._show_payload(signal.event.payload)

    def _show_payload(self, payload: object) -> None:
        text = json.dumps(plain_payload(payload), ensure_ascii=False, default=str)
        room = terminal_width() - INDENT
        for start in range(0, len(text), room):
            click.echo(" " * INDENT + text[start : start + room], err=True)


class Report:
    """Prints what there is once every handler runs, and what a reload has changed."""

    def __init__(self, parent: ParentChannel, order: dict[str, Any], events: DevEvents) -> None:
        self._parent = parent
        self._order = order
        self._events = events
        self._before = asyncio.Event()
        self._memory = Memory()
        self._task: asyncio.Task[None] | None = None

    async def remember(self, memory: Any) -> None:
        """Obey the parent's command `remember`."""
        self._memory = Memory.of(memory)
        self._before.set()

    def ready(self, bus: EventBus) -> None:
        """Print the handlers, or how long the reload took."""
        took = human_time(time.monotonic() - self._order["since"])
        if self._order["first"]:
            click.echo(handler_list(bus), err=True)
            if bus.set_aside:
                log.info("not run here: %s", ", ".join(one.shown for one in bus.set_aside))
            handlers, server = len(bus.subscriptions), bus.settings.shown_urls
            bus.signals.emit(Ready(handlers=handlers, pid=os.getpid(), app=bus.name, server=server))
        else:
            count = len(bus.subscriptions)
            log.info("reloaded in %s: %s", took, f"{count} handler{'s' if count != 1 else ''}")
        self._events.begin()
        self._task = asyncio.create_task(self._say_more(bus), name=own("dev report"))

    async def _say_more(self, bus: EventBus) -> None:
        await self._before.wait()
        now = say_changes(bus, self._memory)
        self._parent.fact("memory", now.as_json())
        with suppress(OmniWorkerError):  # an outage, or a right that is missing
            await say_left(bus, self._memory, now)
            self._parent.fact("memory", now.as_json())


async def _work(
    app: App, settings: Settings, parent: ParentChannel, report: Report, health: Health,
    router: Router, choice: tuple[list[str], list[str]], target: str,
) -> int:  # fmt: skip
    stop = Stop()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.ask, "SIGTERM")
    ending = HowItEnded(settings, stop)
    parent.on("stop", ending.obey)
    parent.on("remember", report.remember)
    parent.open(ending.end)
    return await run_worker(
        app, settings=settings, on_ready=report.ready, stop=stop, health=health, router=router,
        only=choice[0], without=choice[1],
        explain=lambda error: in_dev(error, target, settings.shown_urls),
    )  # fmt: skip


def _warm_up() -> None:
    """Import what every worker needs before the first save."""
    import uvloop  # noqa: F401

    from ..transports import jetstream  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
