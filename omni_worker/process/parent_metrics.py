"""Metrics of a parent: its workers are asked for theirs, and the sum is the answer to a scrape."""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
from typing import TYPE_CHECKING

from ..metrics import PATH
from ..routes import Answer, Request, Routes
from .channel import CommandError
from .router import BadRoute, answer_of, refusal, request_as_json
from .supervisor import Supervisor

if TYPE_CHECKING:
    from ..metrics.summed import Summed

log = logging.getLogger("omni_worker.http")

ASKED = Request(method="GET", path=PATH, headers={"accept-encoding": "gzip"})
WITHIN = 2.0  # seconds; what a worker said last stands for one that is blocked


class ParentMetrics:
    """Answers `/metrics` for several workers."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._summed: Summed | None = None
        self._lock = threading.Lock()

    def routes(self) -> Routes:
        """Return the route of the sum."""
        return {PATH: self.answer}

    async def answer(self, request: Request) -> Answer:
        """Ask every worker, and add up what they say."""
        said = await self._supervisor.ask_all("route", timeout=WITHIN, **request_as_json(ASKED))
        answers: dict[int, Answer] = {}
        for number, one in said.items():
            if isinstance(one, CommandError):
                log.debug("worker %d has no metrics: %s", number, one)
                continue
            try:
                answers[number] = answer_of(one)
            except BadRoute as error:
                log.debug("worker %d has no metrics: %s", number, error)
        refused = [one for one in answers.values() if one.status != 200]
        if refused:  # its app does without, or its own route failed
            return refused[0]
        if not answers and self._summed is None:
            return refusal(503, "no worker answers")
        return await asyncio.to_thread(self._sum, answers, request)

    def _sum(self, answers: dict[int, Answer], request: Request) -> Answer:
        from ..metrics.exposition import written
        from ..metrics.summed import Summed

        with self._lock:  # two scrapes at once
            if self._summed is None:
                self._summed = Summed()
            texts = {number: _text(answer) for number, answer in answers.items()}
            return written(self._summed.add(texts), request)


def _text(answer: Answer) -> str:
    is_packed = answer.headers.get("Content-Encoding") == "gzip"
    return (gzip.decompress(answer.body) if is_packed else answer.body).decode()
