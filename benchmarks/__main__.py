"""The command line: run cases, show what was measured, put it into docs/."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from .cases import ALL, FIRST, named
from .chart import chart_of
from .goals import table_of_goals
from .machine import machine, versions
from .processes import ROOT, Failed
from .report import rendered
from .results import Results, from_plain
from .runner import run
from .tables import as_text, table_of

LAST = ROOT / "benchmarks" / ".trial.json"  # of trial runs; not kept by git
KEPT = ROOT / "benchmarks" / "results.json"  # what docs/performance.md shows
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "pictures" / "performance.svg"


def main() -> None:
    """One of the commands; 1 when something was lost or failed, 2 when called wrongly."""
    given = _arguments()
    try:
        given.command(given)
    except (Failed, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, Failed) else 2)


def measure(given: argparse.Namespace) -> None:
    """Run cases; each is written as soon as it is measured."""
    cases = list(ALL) if given.all else named(given.cases or list(FIRST))
    results = _begin(given.results)
    failed = []
    for name, measured in run(cases, given.rounds, scale=given.scale, only=given.only, say=_say):
        results.cases[name] = measured
        write(given.results, results)
        failed += [f"{name}: {label}" for label in measured.failed]
        print(f"\n{as_text(table_of(measured))}\n", flush=True)
    if failed:
        raise Failed(", ".join(failed))


def show(given: argparse.Namespace) -> None:
    """The tables of a results file."""
    for measured in read(given.results).cases.values():
        print(f"{as_text(table_of(measured))}\n")


def reach(given: argparse.Namespace) -> None:
    """What we set out to reach, beside what a results file says."""
    print(as_text(table_of_goals(read(given.results))))


def render(given: argparse.Namespace) -> None:
    """Figures and chart into docs/."""
    results = read(given.results)
    PAGE.write_text(rendered(PAGE.read_text("utf-8"), results), "utf-8")
    PICTURE.write_text(chart_of(results), "utf-8")
    print(f"{PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)} show {given.results.name}")


def list_cases(given: argparse.Namespace) -> None:
    """Every case by name."""
    for case in ALL:
        print(f"{case.name:20}{case.title}")


def read(path: Path) -> Results:
    """The results of a file."""
    if not path.exists():
        raise ValueError(f"{path} is not there: run cases first")
    return from_plain(json.loads(path.read_text()))


def write(path: Path, results: Results) -> None:
    """The results into a file, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(dataclasses.asdict(results), file, indent=1, ensure_ascii=False)
        file.write("\n")
    Path(file.name).replace(path)


def _begin(path: Path) -> Results:
    """What the file holds, when it is of this machine with these versions; else nothing."""
    fresh = Results(machine(), versions())
    if not path.exists():
        return fresh
    old = read(path)
    if (old.machine, old.versions) == (fresh.machine, fresh.versions):
        return old
    print(f"{path.name} is of another machine or other versions: begun anew")
    return fresh


def _say(line: str) -> None:
    print(line, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("run", help="run cases (default: those of make bench)")
    one.add_argument("cases", nargs="*", metavar="CASE", help="names of cases; * is any text")
    one.add_argument("--all", action="store_true", help="every case")
    one.add_argument("--rounds", type=int, help="default: what each case says, usually 3")
    one.add_argument("--scale", type=float, default=1.0, help="this part of the events, to try out")
    one.add_argument("--only", action="append", default=[], metavar="LABEL",
                     help="only rows with this in their label, and the case's base")  # fmt: skip
    one.set_defaults(command=measure)

    other = commands.add_parser("list", help="every case")
    other.set_defaults(command=list_cases)

    tables = commands.add_parser("show", help="the tables of a results file")
    tables.set_defaults(command=show)

    goals = commands.add_parser("goals", help="what we set out to reach, and whether we did")
    goals.set_defaults(command=reach)

    for each in (one, tables, goals):
        each.add_argument("--results", type=Path, default=LAST, metavar="FILE")

    page = commands.add_parser("render", help="figures and chart into docs/")
    page.add_argument("--results", type=Path, default=KEPT, metavar="FILE")
    page.set_defaults(command=render)
    return parser.parse_args()


if __name__ == "__main__":
    main()
