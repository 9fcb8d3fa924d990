"""Replays: past events through one handler once more, dry, in a process of their own.

The dashboard never imports an app: `omni-worker replay --dry-run` does, with the code as it is now.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sys
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..tasks import own
from ..transports.timestamps import iso

log = logging.getLogger("omni_worker.dashboard")

KEPT = 20  # replays that ended and can still be looked at
SUBJECTS = 50  # that are counted; events on further ones are one line
SAID = 40  # last lines of what the process wrote that is no answer
LONGEST = 600.0  # seconds
LINE = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Result of a dry run."""

    handled: int
    failed: int
    rejected: int
    skipped: int
    failures: tuple[str, ...]  # the first few


@dataclass(slots=True)
class Replay:
    """A dry run, and what came of it so far."""

    id: str
    handler: str
    since: datetime
    until: datetime
    user: str
    would: Counter[str] = field(default_factory=Counter)  # events it would publish, by subject
    cancels: int = 0  # schedules that it would cancel
    summary: Summary | None = None  # until it is over
    said: deque[str] = field(default_factory=lambda: deque(maxlen=SAID))
    is_over: bool = False
    code: int | None = None


class Replays:
    """Dry runs of one app, one at a time. ``target`` is its MODULE:APP; empty: there is none."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._replays: dict[str, Replay] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, id: str) -> Replay | None:
        """Return a replay, None if there is no such one."""
        return self._replays.get(id)

    @property
    def is_running(self) -> bool:
        """True while one runs."""
        return any(not one.is_over for one in self._replays.values())

    def begin(self, handler: str, since: datetime, until: datetime, user: str) -> Replay:
        """Begin a dry run of the events stored between two times."""
        replay = Replay(secrets.token_hex(8), handler, since, until, user)
        while len(self._replays) >= KEPT:
            del self._replays[next(iter(self._replays))]
        self._replays[replay.id] = replay
        task = asyncio.create_task(_run(self.target, replay), name=own("dashboard replay"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("%s: dry run of %s since %s", user, handler, iso(since))
        return replay

    async def close(self) -> None:
        """End what runs."""
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _run(target: str, replay: Replay) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "omni_worker", "replay", target, f"--handler={replay.handler}",
        f"--since={iso(replay.since)}", f"--until={iso(replay.until)}", "--dry-run", "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, limit=LINE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(LONGEST):
            await asyncio.gather(
                _read(process.stdout, replay, is_answer=True),
                _read(process.stderr, replay, is_answer=False),
            )
            replay.code = await process.wait()
    except TimeoutError:
        replay.said.append(f"it took longer than {LONGEST:.0f} s and was ended")
    except ValueError:
        replay.said.append("it wrote a line that is too long, and was ended")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        replay.is_over = True


async def _read(stream: asyncio.StreamReader, replay: Replay, *, is_answer: bool) -> None:
    async for raw in stream:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if not (is_answer and _take(line, replay)):
            replay.said.append(line)


def _take(line: str, replay: Replay) -> bool:
    """Take a line of the answer; False for what the handler printed."""
    try:
        found = json.loads(line)
    except ValueError:
        return False
    if not isinstance(found, dict):
        return False
    if "wouldPublish" in found:
        subject = str(found["wouldPublish"]) + (" (later)" if "at" in found else "")
        known = subject in replay.would or len(replay.would) < SUBJECTS
        replay.would[subject if known else "other subjects"] += 1
        return True
    if "wouldCancel" in found:
        replay.cancels += 1
        return True
    if found.get("dryRun") is True:
        replay.summary = _summary(found)
        return True
    return False


def _summary(found: dict[str, Any]) -> Summary:
    failures = found.get("failures")
    return Summary(
        handled=_number(found, "handled"),
        failed=_number(found, "failed"),
        rejected=_number(found, "rejected"),
        skipped=_number(found, "skipped"),
        failures=tuple(map(str, failures)) if isinstance(failures, list) else (),
    )


def _number(found: dict[str, Any], key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) else 0
