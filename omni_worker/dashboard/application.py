"""Application: routes of the dashboard, one for each page, one for each action that is allowed."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ..errors import OmniWorkerError
from .access import Refused, token_refused
from .guard import MAX_FORM, Guard
from .page import Ask, Facts, Page, Services, ask_of
from .pages import ACTIONS, PAGES
from .pages.action import Form, Problem, Redirect
from .rendering import STATIC, Renderer

log = logging.getLogger("omni_worker.dashboard")

SOON = 0.4  # seconds a first answer may take to be more complete
REST = 0.25  # seconds in which several changes are one
DEAR = 5  # times as long as the facts took, nothing is asked again
BEAT = 4.0  # seconds without news until a browser is told that all is as it was
MOST_STREAMS = 200  # browsers that are told of changes
YEAR = "public, max-age=31536000, immutable"

Endpoint = Callable[[Request], Awaitable[Response]]


class Application:
    """Serves the pages. Made by `dashboard`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._renderer = Renderer()
        self._secret = secrets.token_bytes(32)
        self._streams = 0
        self._shared: dict[str, tuple[int, str]] = {}  # address → version, its text

    def starlette(self) -> Starlette:
        """Return the ASGI app. Actions that are not allowed have no route."""
        routes: list[Route | Mount] = [
            Route(page.path, self._page(page), methods=["GET"]) for page in PAGES
        ]
        if self._services.access.allow_actions:
            routes += [
                Route(path, self._action(work), methods=["POST"]) for path, work in ACTIONS.items()
            ]
        routes.append(Mount("/static", _Static(directory=STATIC)))
        site = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, access=self._services.access, secret=self._secret)],
            exception_handlers={OmniWorkerError: self._failed},
            lifespan=self._lifespan,
        )
        site.state.watch = self._services.watch
        return site

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._services.jobs.close()
            await self._services.replays.close()
            await self._services.watch.close()

    def _page(self, page: Page) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            ask = ask_of(request, self._services)
            await self._services.watch.ready()
            if "live" in request.query_params:
                return self._live(page, ask)
            facts = await _first(page.facts(ask))
            status = facts.get("status", 200)
            if request.query_params.get("format") == "json":
                return _json(facts["json"], status)
            return HTMLResponse(self._renderer.whole(page, ask, facts), status)

        return endpoint

    def _live(self, page: Page, ask: Ask) -> Response:
        if self._streams >= MOST_STREAMS:
            return PlainTextResponse("Too many open pages.\n", 503, headers={"retry-after": "10"})
        stream = self._frames(page, ask)
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def _frames(self, page: Page, ask: Ask) -> AsyncGenerator[str, None]:
        watch = self._services.watch
        self._streams += 1
        sent = ""
        try:
            with watch.looking():
                while watch.is_open:
                    seen = page.version(watch.snapshot) if page.version else 0
                    began = time.monotonic()
                    async for text in self._texts(page, replace(ask, now=datetime.now(UTC))):
                        yield _event("frame", text) if text != sent else _event("beat", "")
                        sent = text
                    if page.version is None:
                        yield _event("done", "")
                        return
                    # What takes long to find is not looked for all the time.
                    await asyncio.sleep(max(REST, DEAR * (time.monotonic() - began)))
                    while not await watch.changed(page.version, seen, BEAT) and watch.is_open:
                        yield _event("beat", "")
        except OmniWorkerError as error:
            yield _event("trouble", str(error))
        finally:
            self._streams -= 1

    async def _texts(self, page: Page, ask: Ask) -> AsyncGenerator[str, None]:
        version = self._services.watch.snapshot.version
        key = f"{ask.base} {page.path} {ask.query}"
        if page.is_shared and (known := self._shared.get(key)) and known[0] == version:
            yield known[1]
            return
        async with aclosing(page.facts(ask)) as steps:
            async for facts in steps:
                text = self._renderer.part(page, ask, facts)
                yield text
        if page.is_shared:
            if len(self._shared) > MOST_STREAMS:
                self._shared.clear()
            self._shared[key] = (version, text)

    def _action(self, work: Callable[[Ask, Form], Awaitable[Redirect | Problem]]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            form = await _form(request)
            if isinstance(form, Refused):
                return PlainTextResponse(form.text + "\n", form.status)
            session = request.scope["omni_session"]
            if refused := token_refused(self._secret, session, form.text("token")):
                return PlainTextResponse(refused.text + "\n", refused.status)
            ask = ask_of(request, self._services)
            await self._services.watch.ready()
            done = await work(ask, form)
            self._services.watch.look_again()
            if isinstance(done, Redirect):
                return RedirectResponse(ask.link(done.path, **done.values), 303)
            return self._problem(ask, done)

        return endpoint

    async def _failed(self, request: Request, error: Exception) -> Response:
        """Show an outage as a page; the next look may find the server again."""
        ask = ask_of(request, self._services)
        return self._problem(ask, Problem("The server did not answer", str(error), status=503))

    def _problem(self, ask: Ask, problem: Problem) -> Response:
        page = Page(path=ask.path, name="problem", title=problem.title, facts=_nothing)
        facts: Facts = {"problem": problem}
        return HTMLResponse(self._renderer.whole(page, ask, facts), problem.status)


async def _nothing(ask: Ask) -> AsyncGenerator[Facts, None]:
    yield {}


def _json(facts: Any, status: int) -> Response:
    """Write JSON in ASCII: half a character in a text cannot be encoded otherwise."""
    return Response(json.dumps(facts, default=str), status, media_type="application/json")


async def _first(steps: AsyncGenerator[Facts, None]) -> Facts:
    """Return the most complete facts that are there within a moment."""
    facts: Facts = {}
    began = time.monotonic()
    async with aclosing(steps):
        async for step in steps:
            facts = step
            if time.monotonic() - began > SOON:
                break
    return facts


async def _form(request: Request) -> Form | Refused:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return Refused(415, "Only a form is taken.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            return Refused(413, "The form is too large.")
    try:
        read = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=2_000)
    except (UnicodeDecodeError, ValueError):
        return Refused(400, "The form cannot be read.")
    return Form(read)


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: {name}\n{lines}\n"


class _Static(StaticFiles):
    """Our files never change under their address: it holds their version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file that browsers may keep."""
        response = await super().get_response(path, scope)
        if response.status_code == 200 and "v" in QueryParams(scope["query_string"]):
            response.headers["cache-control"] = YEAR
        return response
