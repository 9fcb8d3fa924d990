"""Brake: a file that the code writes when it is loaded does not reload it without end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FREE = 4  # reloads in a row by such files that wait for nothing
LONGEST = 5.0  # seconds of a pause


@dataclass(slots=True)
class Brake:
    """Changes so far: a person saves now and then while the code is loaded, not each time."""

    _paths: frozenset[Path] = frozenset()
    _count: int = 0  # changes in a row of the same files, each while the code was loaded

    def pause(self, paths: frozenset[Path], *, while_loading: bool) -> float:
        """Return the seconds until these changes reload the code: none at first, then ever more."""
        if not while_loading:
            self._count = 0
            return 0.0
        if paths != self._paths:
            self._paths, self._count = paths, 0
        self._count += 1
        over = self._count - FREE
        return 0.0 if over <= 0 else min(LONGEST, 2.0 ** (over - 1))

    @property
    def is_new(self) -> bool:
        """True if the pause is the first one: it is to be reported."""
        return self._count == FREE + 1
