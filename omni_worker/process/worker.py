"""Worker: an App in a process. Signals, supervision, and the exit code."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from ..app import App
from ..bus import EventBus
from ..bus.patience import waits_for_streams
from ..errors import OmniWorkerError
from ..failures import error_line
from ..listeners.logs import OURS
from ..settings import Settings
from ..transports.base import Transport
from .channel import ParentChannel
from .exit_codes import DONE, FAILED, INTERRUPTED
from .health import Health
from .last_resort import LastResort
from .notify import Notify, pm2_kill_timeout
from .router import Router, serve_channel

log = logging.getLogger("omni_worker.worker")

SAME_SIGNAL = 1.0  # seconds; process managers signal the whole tree, so one request comes twice
FORCED_END = 3.0  # seconds a forced stop may take to hand back what is held

Ready = Callable[[EventBus], None]


def stop_signals() -> tuple[signal.Signals, ...]:
    """List the signals that ask for the end; SIGHUP only if ``nohup`` does not ignore it."""
    found = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


def ignore_late_signals() -> None:
    """Ignore repeats from now on: without their handlers one would end us with its own code."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())


def _take_defaults() -> None:
    """Take a program's usual signal handlers: a fork has no loop to hear of ours."""
    signal.set_wakeup_fd(-1)  # the parent's loop reads it
    ours = stop_signals()
    for one in ours:
        signal.signal(one, signal.default_int_handler if one is signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)


@functools.cache
def _reset_in_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_take_defaults)


class Stop:
    """The request to stop: once in good order, a second time at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._first_at: float | None = None
        self.started = False  # once every handler runs, stopping means draining
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self.about: dict[str, str] = {}  # app and server, for the log lines
        self._why: str | None = None

    def ask(self, why: str) -> None:
        """Ask for it; what comes within a second of the first is the same request."""
        now = self._loop.time()
        if self._first_at is None:
            self._first_at = now
            self._why = why
            fields = self._fields("Stopping")
            log.info("stopping: %s; running handlers may finish", why, extra=fields)
            self.asked.set()
        elif now - self._first_at > SAME_SIGNAL and not self.forced.is_set():
            log.warning("stopping at once: %s again", why, extra=self._fields("Stopping"))
            self.forced.set()

    def ended(self, log: logging.Logger) -> None:
        """Log that everything ended in good order, and what asked for it."""
        log.info("stopped", extra=self._fields("Stopped"))

    def _fields(self, signal: str) -> dict[str, str]:
        fields = {**self.about, "signal": signal}
        if self._why is not None:
            fields["reason"] = self._why
        return {OURS + name: value for name, value in fields.items()}

    def listen(self) -> None:
        """Take SIGTERM, SIGINT and SIGHUP as the request, wherever they come from."""
        _reset_in_forks()
        for one in stop_signals():
            try:
                self._loop.add_signal_handler(one, self.ask, one.name)
            except NotImplementedError:  # Windows
                signal.signal(
                    one,
                    lambda number, _: self._loop.call_soon_threadsafe(
                        self.ask, signal.Signals(number).name
                    ),
                )


async def run_worker(
    app: App,
    *,
    settings: Settings | None = None,
    transport: Transport | None = None,
    on_ready: Ready | None = None,
    stop: Stop | None = None,
    health: Health | None = None,
    notify: Notify | None = None,
    router: Router | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    explain: Callable[[OmniWorkerError], str] = str,
) -> int:
    """Run an app until it is asked to stop or cannot go on; return the exit code.

    0 after SIGTERM, SIGINT or SIGHUP, 1 after a failure (said in one line), 130 when a second
    signal ended it at once, or the grace was over and something blocked the event loop.
    ``notify`` tells whatever runs us, ``health`` knows how we are, and ``router`` answers requests
    from now to the end. ``only`` and ``without`` are those of ``App.running``; ``explain`` words
    the failure.
    """
    health, last_resort = health or Health(), None
    given = settings or app.settings or Settings()
    if stop is None:
        stop = Stop()
        stop.listen()
        last_resort = LastResort(
            stop_signals(), grace=given.grace, same_signal=SAME_SIGNAL,
            blocked=lambda: health.blocked,
        )  # fmt: skip
        last_resort.open()
    stop.about = {"app": app.name, "server": given.shown_urls}
    notify, router = notify or Notify({}), router or Router()
    if notify.parent is not None:
        _answer(notify.parent, given.grace, health, router)
    notify.listen(stop.ask)
    router.open()
    health.start()

    def ready(bus: EventBus) -> None:
        health.running(bus)
        notify.ready()
        if on_ready is not None:
            on_ready(bus)

    def stopping() -> None:
        health.stopping()
        notify.stopping()

    try:
        waits_for_streams.set(True)
        bus = app.running(transport=transport, settings=settings, only=only, without=without)
        return await _run(_live(bus, ready, stopping, stop), stop, explain)
    finally:
        router.close()
        notify.close()
        health.stop()
        if last_resort is not None:
            last_resort.close()


def _answer(parent: ParentChannel, grace: float, health: Health, router: Router) -> None:
    parent.fact("grace", grace)
    parent.on("facts", health.facts)
    serve_channel(parent, router)


async def _run(
    living: Coroutine[Any, Any, int], stop: Stop, explain: Callable[[OmniWorkerError], str]
) -> int:
    """Live, until it is over or a second request ends it; returns the exit code."""
    life = asyncio.create_task(living)
    forced = asyncio.create_task(stop.forced.wait())
    asked = asyncio.create_task(_cancel_start(life, stop))
    try:
        await asyncio.wait([life, forced], return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            return _exit_code(life, explain)
        life.cancel()
        await asyncio.wait([life], timeout=FORCED_END)
        return INTERRUPTED
    finally:
        for task in (forced, asked):
            task.cancel()


async def _live(
    running: AbstractAsyncContextManager[EventBus],
    ready: Ready,
    stopping: Callable[[], None],
    stop: Stop,
) -> int:
    failure: Exception | None = None
    try:
        async with running as bus:
            stop.started = True
            ready(bus)
            failed = asyncio.create_task(bus.failed())
            asked = asyncio.create_task(stop.asked.wait())
            try:
                await asyncio.wait([failed, asked], return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failure = failed.result()
                    raise failure
            finally:
                stopping()
                failed.cancel()
                asked.cancel()
    except SystemExit as left:  # of a lifespan; past here it would tear down the loop
        return _code_of(left)
    if failure is not None:  # a lifespan may swallow what passes through it
        raise failure
    stop.ended(log)
    return DONE


async def _cancel_start(life: asyncio.Task[int], stop: Stop) -> None:
    """A request to stop while still connecting ends the waiting."""
    await stop.asked.wait()
    if not stop.started:
        life.cancel()


def _exit_code(life: asyncio.Task[int], explain: Callable[[OmniWorkerError], str]) -> int:
    if life.cancelled():
        return DONE  # asked to stop before it had started
    error = life.exception()
    if error is None:
        return life.result()
    if isinstance(error, OmniWorkerError):
        log.error("%s", explain(error))
    else:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        log.error("the app failed: %s%s", error_line(error), notes, exc_info=error)
    return FAILED


def _code_of(left: SystemExit) -> int:
    """Return the code as Python does: a number is the code, words are logged."""
    if left.code is None or isinstance(left.code, int):
        return left.code or DONE
    log.error("%s", left.code)
    return FAILED


def warn_of_short_kill(environment: Mapping[str, str], grace: float) -> None:
    """Say it when PM2 would kill us before our handlers had their grace."""
    kill = pm2_kill_timeout(environment)
    if kill is not None and kill < grace:
        log.warning(
            "PM2 kills this worker %.1f s after asking it to stop, handlers have a grace of %.0f s:"
            " set kill_timeout: %d in its ecosystem file",
            kill, grace, (grace + 5) * 1000,
        )  # fmt: skip
