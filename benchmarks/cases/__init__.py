"""What is measured: every case, in the order it is run and shown."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ..case import Case
from . import drain, handlers, publish, rest

ALL: tuple[Case, ...] = (
    *drain.CASES,
    *publish.CASES,
    *handlers.CASES,
    *rest.CASES,
)
FIRST = ("drain", "publish-each", "publish-many", "relay")  # make bench


def named(patterns: list[str]) -> list[Case]:
    """The cases of these names, `*` allowed. Raises ValueError that names what there is."""
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in ALL):
            names = ", ".join(case.name for case in ALL)
            raise ValueError(f"no case {pattern!r}; there are: {names}")
    return [case for case in ALL if any(fnmatchcase(case.name, one) for one in patterns)]
