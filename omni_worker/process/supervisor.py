"""Supervisor: several workers under one parent, which never imports the code they run.

It starts the dead again, hands signals down, and gives up when they keep dying at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..nats_server import die_with_parent
from ..settings import COUNT, NUMBER, PARENT_FD
from .channel import ANSWER_WITHIN, CommandError, NoAnswer, WorkerChannel
from .exit_codes import CALLED_WRONGLY, DONE, FAILED, INTERRUPTED
from .health import Report, report_of_fact
from .last_resort import LATE, PROBE
from .worker import FORCED_END, SAME_SIGNAL, Stop

log = logging.getLogger("omni_worker.supervisor")

AT_ONCE = 2.0  # seconds after being ready in which an end counts as one at once
NEVER_READY = 30.0  # and after its start, if it never was: it may have tried to connect that long
GIVE_UP_AFTER = 5  # ends at once in a row
FIRST_PAUSE = 0.5  # seconds before a dead worker is started again, doubled each time
LONGEST_PAUSE = 30.0
SILENT = 4.0  # seconds without a report; each worker sends one a second


def is_early(lived: float, ready_for: float | None) -> bool:
    """Tell an end at the very start; ``ready_for`` is None if it was never ready."""
    return lived < NEVER_READY if ready_for is None else ready_for < AT_ONCE


def pause_before(early_deaths: int) -> float:
    """Seconds until a worker is started again that died so often at once, in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** max(0, early_deaths - 1))


class WorkerProcess:
    """Worker of one number, over all its lives."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.channel: WorkerChannel | None = None
        self.report: Report | None = None  # its last word in this life
        self.started_at = 0.0
        self.heard_at = 0.0
        self.ready_at: float | None = None
        self.grace: float | None = None  # seconds, by its own word
        self.loaded = asyncio.Event()  # its code could be imported, once: only then it reports
        self.early_deaths = 0
        self.death = "not started yet"
        self.code: int | None = None  # of its last life

    def begin(self) -> None:
        """Begin a new life; nothing of the last one counts."""
        self.report = None
        self.ready_at = None
        self.started_at = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Running, and by its own last word ready."""
        return self.process is not None and self.report is not None and not self.report.not_ready


class Supervisor:
    """Runs ``command`` ``count`` times until ``stop`` asks for the end."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        *,
        environment: Mapping[str, str],
        grace: float,
        stop: Stop,
        on_ready: Callable[[], None],
        on_report: Callable[[Report], None],
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._grace = grace  # seconds, of a worker that has not told its own
        self._stop = stop
        self._on_ready = on_ready
        self._on_report = on_report
        self._children = [WorkerProcess(number) for number in range(1, count + 1)]
        self._was_ready = False
        self._verdict: int | None = None
        self._over = asyncio.Event()  # asked to stop, or given up
        self._born = time.monotonic()

    async def run(self) -> int:
        """Returns the exit code: 0 stopped, 1 given up, 2 nothing to load, 130 stopped at once."""
        # The first alone, until its code is loaded: an error there is logged once, not N times.
        first, *others = self._children
        lives = [asyncio.create_task(self._keep(first))]
        aside = [asyncio.create_task(self._report_often()), asyncio.create_task(self._asked())]
        try:
            await self._until(first.loaded)
            lives += [asyncio.create_task(self._keep(child)) for child in others]
            await self._over.wait()
            return await self._end(lives)
        finally:
            for task in (*aside, *lives):
                task.cancel()
            for child in self._children:
                self._send(child, signal.SIGKILL)  # only after an error of ours

    def report(self) -> Report:
        """Report all workers as one; called from any thread."""
        not_alive: list[str] = []
        not_ready: list[str] = ["stopping"] if self._stop.asked.is_set() else []
        warnings: list[str] = []
        now = time.monotonic()
        for child in self._children:
            name = f"worker {child.number}"
            if child.process is None:
                not_ready.append(f"{name} is not running: {child.death}")
            elif child.report is None:
                not_ready.append(f"{name}: starting")
            else:
                if now - child.heard_at > SILENT:
                    not_alive.append(f"{name}: no word for {now - child.heard_at:.0f} s")
                not_alive += [f"{name}: {reason}" for reason in child.report.not_alive]
                not_ready += [f"{name}: {reason}" for reason in child.report.not_ready]
                warnings += [f"{name}: {warning}" for warning in child.report.warnings]
        return Report(
            not_alive=tuple(not_alive),
            not_ready=tuple(not_ready),
            warnings=tuple(warnings),
            facts={
                "pid": os.getpid(),
                "uptime": round(now - self._born, 1),
                "workers": {
                    str(child.number): process.pid
                    for child in self._children
                    if (process := child.process) is not None
                },
            },
        )

    async def ask(
        self, number: int, command: str, /, *, timeout: float = ANSWER_WITHIN, **arguments: Any
    ) -> Any:
        """Ask one worker for something. Raises CommandError, NoAnswer when it does not run."""
        child = next((one for one in self._children if one.number == number), None)
        if child is None:
            raise CommandError(f"no worker {number}: there are 1 to {len(self._children)}")
        if child.channel is None:
            raise NoAnswer(f"worker {number} is not running: {child.death}")
        return await child.channel.ask(command, timeout=timeout, **arguments)

    async def ask_all(
        self, command: str, /, *, timeout: float = ANSWER_WITHIN, **arguments: Any
    ) -> dict[int, Any | CommandError]:
        """Ask every worker at once; returns each one's answer, or why there is none."""

        async def answer(number: int) -> Any | CommandError:
            try:
                return await self.ask(number, command, timeout=timeout, **arguments)
            except CommandError as error:
                return error

        numbers = [child.number for child in self._children]
        return dict(zip(numbers, await asyncio.gather(*map(answer, numbers)), strict=True))

    @property
    def ready_workers(self) -> tuple[int, ...]:
        """Numbers of the workers that are ready and well, the lowest first."""
        now = time.monotonic()
        return tuple(
            child.number
            for child in self._children
            if child.is_ready
            and child.report is not None
            and not child.report.not_alive
            and now - child.heard_at <= SILENT
        )

    @property
    def count(self) -> int:
        """Number of workers; they are numbered from 1."""
        return len(self._children)

    # --- one worker --------------------------------------------------------------------------

    async def _keep(self, child: WorkerProcess) -> None:
        """Start it, and again when it dies."""
        while not self._over.is_set():
            code = await self._live(child)
            if self._over.is_set():
                return
            if code == CALLED_WRONGLY and not child.loaded.is_set():
                self._conclude(code)  # it has said why
                return
            if child.early_deaths >= GIVE_UP_AFTER:
                log.error(
                    "worker %d died %d times in a row as soon as it was started (%s); giving up",
                    child.number, child.early_deaths, child.death,
                )  # fmt: skip
                self._conclude(FAILED)
                return
            pause = pause_before(child.early_deaths)
            log.warning(
                "worker %d died (%s); it is started again in %.1f s",
                child.number, child.death, pause,
            )  # fmt: skip
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), pause)

    async def _live(self, child: WorkerProcess) -> int:
        """Run one life of a worker, from start to end; returns its exit code."""
        child.begin()
        ours, theirs = socket.socketpair()
        with theirs:
            child.process = await asyncio.create_subprocess_exec(
                *self._command,
                env={
                    **self._environment,
                    PARENT_FD: str(theirs.fileno()),
                    NUMBER: str(child.number),
                    COUNT: str(len(self._children)),
                },
                stdin=DEVNULL,
                pass_fds=(theirs.fileno(),),
                preexec_fn=die_with_parent(),
            )
        channel = child.channel = WorkerChannel(
            ours, f"worker {child.number}", lambda name, value: self._take_in(child, name, value)
        )
        channel.open()
        if self._over.is_set():  # asked for while it was being started
            self._send(child, signal.SIGTERM)
        try:
            code = await child.process.wait()
        finally:
            channel.drain()
            child.channel = None
        child.process = None
        child.code, child.death = code, _how_it_ended(code)
        self._count(child, time.monotonic())
        return code

    def _count(self, child: WorkerProcess, now: float) -> None:
        ready_for = None if child.ready_at is None else now - child.ready_at
        early = is_early(now - child.started_at, ready_for)
        child.early_deaths = child.early_deaths + 1 if early else 0

    def _take_in(self, child: WorkerProcess, name: str, value: object) -> None:
        """Take a fact of a worker; an unknown one is ignored."""
        if name == "grace" and isinstance(value, int | float):
            child.grace = float(value)
        report = report_of_fact(value) if name == "health" else None
        if report is None:
            return
        child.report = report
        child.heard_at = time.monotonic()
        child.loaded.set()
        if child.ready_at is None and child.is_ready:
            child.ready_at = child.heard_at
        if not self._was_ready and all(one.is_ready for one in self._children):
            self._was_ready = True
            self._on_ready()

    # --- all of them -------------------------------------------------------------------------

    async def _end(self, lives: list[asyncio.Task[None]]) -> int:
        """Let every worker end; a second request ends them at once, and the grace does."""
        self._send_all(signal.SIGTERM)
        graces = [self._grace if one.grace is None else one.grace for one in self._children]
        # A worker whose loop is blocked ends itself before that, unless C code blocks even that.
        limit = max(graces) + LATE + 2 * PROBE
        ending = asyncio.create_task(asyncio.wait(lives))
        forced = asyncio.create_task(self._stop.forced.wait())
        try:
            await asyncio.wait([ending, forced], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                await self._force(ending)
                return INTERRUPTED
            if self._ended_late():
                return INTERRUPTED
        finally:
            forced.cancel()
            ending.cancel()
        return DONE if self._verdict is None else self._verdict

    def _ended_late(self) -> bool:
        """Return True if a worker had to end itself: something blocked its loop."""
        return any(one.code == INTERRUPTED for one in self._children)

    async def _force(self, ending: asyncio.Task[object]) -> None:
        if not self._stop.forced.is_set():
            for child in self._children:
                if child.process is not None:
                    log.error("worker %d does not end: killed", child.number)
            self._send_all(signal.SIGKILL)
        self._send_all(signal.SIGTERM)
        # Again: a worker counts from when it took the first one, a little later than we did.
        await asyncio.wait([ending], timeout=SAME_SIGNAL + 0.1)
        self._send_all(signal.SIGTERM)
        await asyncio.wait([ending], timeout=FORCED_END + 1.0)
        self._send_all(signal.SIGKILL)
        await asyncio.wait([ending], timeout=1.0)

    async def _report_often(self) -> None:
        while True:
            self._on_report(self.report())
            await asyncio.sleep(0.2)

    async def _until(self, event: asyncio.Event) -> None:
        """Wait for an event, or for the end of everything."""
        waiting = [asyncio.create_task(one.wait()) for one in (event, self._over)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _asked(self) -> None:
        await self._stop.asked.wait()
        self._over.set()

    def _conclude(self, code: int) -> None:
        if self._verdict is None:
            self._verdict = code
        self._over.set()

    def _send_all(self, one: signal.Signals) -> None:
        for child in self._children:
            self._send(child, one)

    def _send(self, child: WorkerProcess, one: signal.Signals) -> None:
        if child.process is not None and child.process.returncode is None:
            with suppress(ProcessLookupError):
                child.process.send_signal(one)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
