"""Play every scenario on both systems, and print the table."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from .plays import ALL, Scenario
from .stage import COMMANDS, Stage


async def main() -> None:
    chosen = [one for one in ALL if not sys.argv[1:] or sys.argv[1] in one.title]
    rows = []
    for scenario in chosen:
        said = [await played(scenario, system) for system in COMMANDS]
        rows.append((scenario.title, *said))
        print(" · ".join(rows[-1]), flush=True)
    print()
    heads = ("scenario", *COMMANDS)
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    lines = [heads, tuple("-" * width for width in widths), *rows]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(cells)} |")


async def played(scenario: Scenario, system: str) -> str:
    """One system in one scenario."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stage(system, Path(folder), **scenario.settings) as stage:
            return await scenario.play(stage)


asyncio.run(main())
