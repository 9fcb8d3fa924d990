"""The dashboard of `dev`: its address comes first, its process when a browser does."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from .support import Dev, Project
from .test_reload import app


def children(pid: int) -> list[str]:
    """The command lines of the processes a process has started, whichever thread did."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
    return found


def address(dev: Dev) -> str:
    return re.findall(r"dashboard on (http://localhost:\d+)", dev.said())[0]


async def test_its_address_is_the_first_line_and_no_process_runs_before_it_is_opened(
    project: Project,
) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--port", "0")
    first = dev.said().splitlines()[0]
    before = [one for one in children(dev.process.pid) if " dashboard " in one]

    url = address(dev)
    handlers = read(url, "/?format=json")["handlers"]

    assert url in first
    assert before == []
    assert [one["handler"] for one in handlers] != []
    assert [one for one in children(dev.process.pid) if " dashboard " in one] != []


async def test_its_process_and_its_port_end_with_dev(project: Project) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--port", "0")
    url = address(dev)
    read(url, "/?format=json")

    code = await dev.stop()

    assert code == 0
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


async def test_it_may_be_left_out(project: Project) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--no-dashboard", "--port", "0")

    assert "dashboard" not in dev.said()


def read(url: str, path: str) -> Any:
    with urlopen(url + path, timeout=20) as answer:
        return json.load(answer)
