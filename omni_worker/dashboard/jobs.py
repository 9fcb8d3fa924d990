"""Jobs: retries and discards of many dead letters, which go on while one may look elsewhere."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ..errors import OmniWorkerError
from ..letters.read import DeadLetter
from ..operations.dead_letters import CannotRetry
from ..tasks import own

log = logging.getLogger("omni_worker.dashboard")

KEPT = 20  # jobs that ended and can still be looked at
REASONS = 10  # reasons that are counted; further ones are one

Act = Callable[[DeadLetter], Awaitable[object]]


@dataclass(slots=True)
class Job:
    """Action on many dead letters, and how far it is."""

    id: str
    verb: str  # retry, discard
    user: str
    total: int
    done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # why some could not be
    is_over: bool = False
    trouble: str = ""  # why it ended before its end

    @property
    def refused(self) -> int:
        """Return how many could not be retried or discarded."""
        return self.reasons.total()


class Jobs:
    """Jobs of this process. One that is cut off may be begun again: what is done stays done."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, id: str) -> Job | None:
        """Return a job, None if there is no such one (any more)."""
        return self._jobs.get(id)

    def begin(
        self, verb: str, user: str, total: int, letters: AsyncIterator[DeadLetter], act: Act
    ) -> Job:
        """Begin to act on letters, one after the other."""
        job = Job(secrets.token_hex(8), verb, user, total)
        over = [id for id, one in self._jobs.items() if one.is_over]
        for id in over[: max(0, len(over) - KEPT)]:
            del self._jobs[id]
        self._jobs[job.id] = job
        task = asyncio.create_task(_run(job, letters, act), name=own("dashboard job"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def close(self) -> None:
        """Cut off what runs."""
        for task in self._tasks:
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task


async def _run(job: Job, letters: AsyncIterator[DeadLetter], act: Act) -> None:
    try:
        async for letter in letters:
            if job.done + job.refused >= job.total:
                break  # those that came since were not confirmed
            try:
                await act(letter)
                job.done += 1
            except CannotRetry as error:
                known = error.reason in job.reasons or len(job.reasons) < REASONS
                job.reasons[error.reason if known else "other reasons"] += 1
    except OmniWorkerError as error:
        job.trouble = str(error)
    except Exception:
        log.exception("the job %s failed", job.id)
        job.trouble = "it failed; the dashboard's log has the traceback"
    finally:
        job.is_over = True
        log.info("%s: %s of %d dead letters: %d done, %d not", job.user, job.verb, job.total,
                 job.done, job.refused)  # fmt: skip
