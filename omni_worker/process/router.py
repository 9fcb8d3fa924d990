"""Router: one request → one answer, even if the route fails or hangs.

Plain routes run in the thread that asks, async ones on the event loop, with a time limit. The HTTP
server and the channel between parent and worker both ask here.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import threading
from collections.abc import Awaitable, Coroutine
from concurrent.futures import CancelledError as Cancelled
from typing import Any

from ..errors import OmniWorkerError
from ..routes import JSON, Answer, Request, Route, Routes, RouteTable
from ..tasks import own
from ..threads import DaemonThreads
from .channel import ParentChannel

log = logging.getLogger("omni_worker.http")

ON_LOOP_WITHIN = 5.0  # seconds for an async route
THREADS = 64  # for what a parent asks
AT_ONCE = (
    16  # requests of one path; further ones are refused, so that a hanging route costs only these
)


class Router:
    """Answers requests from any thread; a route that raises or hangs hurts its own path only.

    Async routes are answered between ``open`` and ``close``. Raises ConfigError for a route that
    is wrong or taken.
    """

    def __init__(self, *routes: Routes, on_loop_within: float = ON_LOOP_WITHIN) -> None:
        self._table = RouteTable()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_loop_within = on_loop_within
        self._free: dict[Route, threading.BoundedSemaphore] = {}
        self._failing: set[Route] = set()
        self._missing: dict[str, str] = {}  # paths that could have a route, and why they have none
        self._threads = DaemonThreads(THREADS, own("route"))
        for some in routes:
            self.add(some)

    def add(self, routes: Routes) -> None:
        """Add routes; before the first request."""
        self._table.add(routes)
        for route in routes.values():
            self._free.setdefault(route, threading.BoundedSemaphore(AT_ONCE))

    def explain(self, path: str, why: str) -> None:
        """Answer a path with ``why``, as long as no route is added for it."""
        self._missing[path] = why

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path with a route."""
        return self._table.paths

    def open(self) -> None:
        """Run async routes on the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Answer async routes with 503 from now on."""
        self._loop = None
        self._threads.close()

    async def answer_in_thread(self, request: Request) -> Answer:
        """Answer a request of the loop's own; async routes come back to it."""
        answer: Answer = await self._threads.run(lambda: self.answer(request))
        return answer

    def answer(self, request: Request) -> Answer:
        """Answer a request; called in a thread that is not the loop's. Never raises."""
        methods = self._table.methods(request.path)
        if not methods:
            why = self._missing.get(request.path, f"no route {request.path[:200]}")
            return refusal(404, why, paths=list(self.paths))
        route = methods.get(request.method)
        if route is None:
            allowed = ", ".join(methods)
            return refusal(405, f"this path answers {allowed}", headers={"Allow": allowed})
        free = self._free[route]
        if not free.acquire(blocking=False):
            return refusal(503, f"{AT_ONCE} requests of this path run already")
        try:
            return self._answer(route, request)
        finally:
            free.release()

    def _answer(self, route: Route, request: Request) -> Answer:
        try:
            answer = route(request)
            if inspect.isawaitable(answer):
                answer = self._on_loop(answer)
            if not isinstance(answer, Answer):
                raise TypeError(f"expected an Answer, got {type(answer).__name__}")
        except Exception as error:
            if route not in self._failing:
                self._failing.add(route)
                log.error(
                    "route %s failed: %s: %s; not logged again until it works",
                    request.path, type(error).__name__, error, exc_info=error,
                )  # fmt: skip
            return refusal(500, "this route failed; the log says why")
        self._failing.discard(route)
        return answer

    def _on_loop(self, answer: Awaitable[Answer]) -> Answer:
        running = _as_coroutine(answer)
        loop = self._loop
        if loop is None:
            running.close()
            return refusal(503, "the app is not running")
        try:
            future = asyncio.run_coroutine_threadsafe(running, loop)
        except RuntimeError:  # the loop has just been closed
            running.close()
            return refusal(503, "the app is not running")
        try:
            return future.result(self._on_loop_within)
        except TimeoutError:
            if future.done():
                raise  # the route's own
            future.cancel()
            return refusal(503, f"the event loop did not answer in {self._on_loop_within:g} s")
        except Cancelled:
            return refusal(503, "the app is stopping")


def refusal(
    status: int, reason: str, *, paths: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:  # fmt: skip
    """Answer with a reason in JSON, and the known paths where they help."""
    body: dict[str, Any] = {"status": "refused", "reasons": [reason]}
    if paths is not None:
        body["paths"] = paths
    return Answer(
        status=status,
        content_type=JSON,
        body=json.dumps(body).encode() + b"\n",
        headers=headers or {},
    )


async def _as_coroutine_of(answer: Awaitable[Answer]) -> Answer:
    return await answer


def _as_coroutine(answer: Awaitable[Answer]) -> Coroutine[Any, Any, Answer]:
    return answer if inspect.iscoroutine(answer) else _as_coroutine_of(answer)


# --- over the channel -----------------------------------------------------------------------------


class BadRoute(OmniWorkerError):
    """A request or answer that came over the channel cannot be read."""


def serve_channel(parent: ParentChannel, router: Router) -> None:
    """Command `route`: the parent asks for the answer to a request."""

    async def route(**request: Any) -> dict[str, Any]:
        return answer_as_json(await router.answer_in_thread(request_of(request)))

    parent.on("route", route)


def request_as_json(request: Request) -> dict[str, Any]:
    """Make a request the arguments of the command `route`."""
    return {
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "headers": dict(request.headers),
        "body": base64.b64encode(request.body).decode(),
    }


def request_of(said: dict[str, Any]) -> Request:
    """Read what `request_as_json` wrote."""
    return Request(**{**said, "body": base64.b64decode(said["body"])})


def answer_as_json(answer: Answer) -> dict[str, Any]:
    """Make an answer one of the command `route`."""
    return {
        "status": answer.status,
        "content_type": answer.content_type,
        "headers": dict(answer.headers),
        "body": base64.b64encode(answer.body).decode(),
    }


def answer_of(said: Any) -> Answer:
    """Read what `answer_as_json` wrote. Raises BadRoute: a worker may send anything."""
    try:
        return Answer(**{**said, "body": base64.b64decode(said["body"])})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise BadRoute(f"an answer that cannot be read: {error}") from None
