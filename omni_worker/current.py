"""Current: the run that the caller is part of, in its task, its threads and its children."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from .context import Context
from .publisher import Publisher

# A plain run of a function that takes its event alone: what its context is made of, and once
# something asks for that, which most never do, the context.
Begun = list[Any]
CONTEXT = 5  # the place of the context

current_context: ContextVar[Context | Begun | None] = ContextVar(
    "omni_worker_context", default=None
)


def current_run() -> Context | None:
    """Return the run that the caller is part of; every caller in it gets the same."""
    run = current_context.get()
    if not isinstance(run, list):
        return run
    if len(run) == CONTEXT:
        # Another thread of the run may have asked since: of two contexts the first is the run's.
        run.append(Context(*run[:CONTEXT]))
    made: Context = run[CONTEXT]
    return made


def run_of(publisher: Publisher) -> Context | None:
    """Return the run that the caller is part of, if it publishes by this publisher."""
    context = current_run()
    return context if context is not None and context.publisher is publisher else None
