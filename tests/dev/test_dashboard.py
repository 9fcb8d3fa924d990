"""The dashboard of `dev`: its address comes first, its process when a browser does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from .support import Dev, Project
from .test_reload import app


def dashboards(dev: Dev) -> list[Path]:
    """The dashboards among the processes it has started, whichever thread did."""
    return [
        Path("/proc", child)
        for task in Path(f"/proc/{dev.process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if "\0dashboard\0" in Path("/proc", child, "cmdline").read_text()
    ]


def address(dev: Dev) -> str:
    return re.findall(r"dashboard on (http://localhost:\d+)", dev.said())[0]


async def test_its_address_is_the_first_line_and_no_process_runs_before_it_is_opened(
    project: Project,
) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--port", "0")
    first = dev.said().splitlines()[0]
    before = dashboards(dev)

    url = address(dev)
    handlers = read(url, "/?format=json")["handlers"]

    assert url in first
    assert before == []
    assert [one["handler"] for one in handlers] != []
    assert len(dashboards(dev)) == 1


async def test_its_process_ends_with_dev(project: Project) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--port", "0")
    read(address(dev), "/?format=json")
    [dashboard] = dashboards(dev)

    code = await dev.stop()

    assert code == 0
    assert not dashboard.exists()


async def test_it_may_be_left_out(project: Project) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--no-dashboard", "--port", "0")

    assert "dashboard" not in dev.said()


def read(url: str, path: str) -> Any:
    with urlopen(url + path, timeout=20) as answer:
        return json.load(answer)
