"""Marks: `Depends`, and the base of the context, by which a signature is known to want it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of a parameter: ``dependency`` provides its value; None stands for its type."""

    dependency: Callable[..., Any] | None


def Depends(dependency: Callable[..., Any] | None = None) -> Any:
    """Mark a parameter to be provided: ``db: Annotated[Session, Depends(session)]``.

    ``dependency`` is called once for each run of the handler: a function, a class, or a function
    that yields, whose clean-up sees how the handler ended. It may have dependencies of its own,
    and take the event and the context by their types. Without one, the parameter's type is called.
    """
    return Mark(dependency)


class RunContext:
    """Base of ``Context``: rooms below it know a parameter by this class."""

    __slots__ = ()

    ended: Outcome
