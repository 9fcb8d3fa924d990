"""The sample that `make test` runs, the order in which tests begin, and what to run again."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

# Processes, kills, browsers and terminals: of each of these `make test` runs one test of a few. It
# runs all the others, the promises and the real server's suite among them.
SAMPLED = (
    "tests/benchmarks/", "tests/cli/", "tests/dashboard/", "tests/deploy/", "tests/dev/",
    "tests/faults/", "tests/operations/", "tests/processes/", "tests/transports/test_cluster.py",
    "tests/transports/test_oldest.py",
)  # fmt: skip
ONE_OF = 12

# Where single tests take longest. Begun last, one of them would go on alone at the end.
LONGEST = (
    "tests/differential/", "tests/faults/", "tests/docs/", "tests/operations/", "tests/deploy/",
    "tests/dev/",
)  # fmt: skip


def choose(tests: Iterable[str]) -> set[str]:
    """The ids of the sample, out of all ids."""
    chosen, seen = set[str](), Counter[str | None]()
    for id in tests:
        place = next((one for one in SAMPLED if id.startswith(one)), None)
        if place is None or seen[place] % ONE_OF == 0:
            chosen.add(id)
        seen[place] += 1
    return chosen


def rank(id: str) -> int:
    """The place of a test's folder, the slowest first."""
    places = (place for place, folder in enumerate(LONGEST) if id.startswith(folder))
    return next(places, len(LONGEST))


def describe(left: Iterable[str], total: int) -> str:
    """The sentence about tests that a sample leaves out."""
    folders = Counter(str(PurePath(id.partition("::")[0]).parent) for id in left)
    counts = ", ".join(f"{folder} {count}" for folder, count in sorted(folders.items()))
    return f"{folders.total()} of {total} tests are left to `make check`: {counts}"


def rerun(failed: Iterable[str], python: str) -> list[str]:
    """The lines below pytest's own list of tests that failed: how to run one of them again."""
    # pytest-xdist appends the group of tests that run in one process, which pytest does not know.
    names = [re.sub(r"@\w+$", "", id) for id in failed]
    if not names:
        return []
    several = f" ({python} -m pytest --lf: all {len(names)})" if len(names) > 1 else ""
    return [
        f"To run one again, alone{several}:",
        f"  {python} -m pytest {shlex.quote(names[0])}",
    ]
