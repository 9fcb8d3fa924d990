"""Versions: an older commit of omni-worker beside this one, in turn, on the same events.

    python -m benchmarks.versions dc4bd5e drain drain-4k publish-many --rounds 7
    python -m benchmarks.versions HEAD drain --python /usr/bin/python3.11

Each runs in a folder of its own. Where the machine has other work, only the ratios of CPU count.
``--python`` measures this commit with another interpreter, which has our dependencies.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from .case import OMNI, Contender
from .cases import named
from .processes import ROOT, Code, Failed, interpreter, running
from .stage import Stage


@dataclass(frozen=True, slots=True)
class Version:
    """Code that is measured; CPU µs per event and events a second, one for each round."""

    label: str
    code: Code
    micros: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


@contextmanager
def version(commit: str) -> Iterator[Version]:
    """The code of a commit, in a folder for as long as it is measured."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["git", "-C", str(ROOT), "archive", commit, "omni_worker", "benchmarks"]
        packed = subprocess.run(command, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Version(commit, Code(Path(folder), interpreter()))


def contender(case: str) -> Contender:
    """Our own row of a case, the largest of several. Raises ValueError if there is none."""
    [found] = named([case])
    ours = [one for one in found.contenders if one.label.startswith(OMNI.label)]
    if not ours:
        raise ValueError(f"{case} has no row of {OMNI.label}")
    return next((one for one in ours if one.label == OMNI.label), ours[-1])


def compare(case: str, versions: Sequence[Version], rounds: int, scale: float) -> None:
    """Measure the versions in turn. Raises Failed for one that lost an event."""
    one, stage = contender(case), Stage()
    load = replace(one.job.load, events=max(1, int(one.job.load.events * scale)))
    try:
        for turn in range(rounds):
            for number, each in enumerate(versions):
                job = replace(one.job, load=load, durable=f"v{turn:03d}{number}")
                with running(each.code):
                    figures = one.protocol(stage, job)
                each.micros.append(figures["cpu"] / load.events * 1e6)
                each.rates.append(load.events / figures["seconds"])
    finally:
        stage.keep(set())


def shown(case: str, versions: Sequence[Version]) -> list[str]:
    """Least and median of the CPU, median of the rate; and the medians beside the first's."""
    cpu, rate = median(versions[0].micros), median(versions[0].rates)
    return [
        f"{case:13}{each.label:16}{min(each.micros):7.1f}{median(each.micros):7.1f} µs"
        f"{median(each.micros) / cpu:6.2f} ×{median(each.rates):9.0f}/s"
        f"{median(each.rates) / rate:7.2f} ×"
        for each in versions
    ]


def main() -> None:
    """One of the commands; 1 when something was lost or failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("commit", metavar="COMMIT")
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the events")
    parser.add_argument("--python", metavar="FILE", help="this commit with another interpreter")
    given = parser.parse_args()
    try:
        for case in given.cases:
            with version(given.commit) as older:
                versions = [older, Version("this one", Code(ROOT, interpreter()))]
                if given.python:
                    versions.append(
                        Version(f"on {Path(given.python).name}", Code(ROOT, given.python))
                    )
                compare(case, versions, given.rounds, given.scale)
                print("\n".join(shown(case, versions)), flush=True)
    except (Failed, ValueError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
