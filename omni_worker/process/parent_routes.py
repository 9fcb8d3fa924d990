"""Routes of a parent: requests on its port that its workers answer.

The parent has imported none of their code, so it knows no route of theirs: it passes a request on.
What only all of them together can answer is a route of the parent's own, over `Supervisor.ask_all`.
"""

from __future__ import annotations

from dataclasses import replace

from ..routes import Answer, Request, Routes
from .channel import CommandError
from .router import BadRoute, answer_of, refusal, request_as_json
from .supervisor import Supervisor

WORKER = "Omni-Worker"  # header: number of the worker that answered


def parent_routes(supervisor: Supervisor) -> Routes:
    """Routes `/workers/N/…`, answered by worker N, and all others, by the first ready one."""

    async def of_one(request: Request) -> Answer:
        number, _, path = request.path.removeprefix("/workers/").partition("/")
        if not (number.isascii() and number.isdigit() and len(number) < 4):
            return refusal(404, "expected /workers/N/PATH, such as /workers/1/healthz")
        if not 1 <= int(number) <= supervisor.count:
            return refusal(404, f"no worker {number}: there are 1 to {supervisor.count}")
        return await _ask(supervisor, int(number), replace(request, path=f"/{path}"))

    async def of_any(request: Request) -> Answer:
        ready = supervisor.ready_workers
        if not ready:
            return refusal(503, "no worker is ready")
        return await _ask(supervisor, ready[0], request)

    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return {
        **{f"{method} /workers/*": of_one for method in methods},
        **{f"{method} /*": of_any for method in methods},
    }


async def _ask(supervisor: Supervisor, number: int, request: Request) -> Answer:
    try:
        said = await supervisor.ask(number, "route", **request_as_json(request))
        answer = answer_of(said)
    except (CommandError, BadRoute) as error:
        return refusal(503, str(error))
    return replace(answer, headers={**answer.headers, WORKER: str(number)})
