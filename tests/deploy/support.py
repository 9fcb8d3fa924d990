"""Support for the deployment tests: the real PM2 in a home of its own, and probes over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omni_worker.nats_server import die_with_parent

from ..processes.support import PROGRAM, Stage, Worker, clean_environment
from ..waiting import until

ROOT = Path(__file__).parents[2]
ECOSYSTEM = ROOT / "examples" / "pm2" / "ecosystem.config.cjs"
PM2_MISSING = "the PM2 tests need node, npm and PM2: apt-get install nodejs npm; make pm2"
PATIENCE = 60.0  # seconds one pm2 command may take


def find_pm2() -> str | None:
    """The one `make pm2` installs, else that on the PATH; None without node."""
    if shutil.which("node") is None:
        return None
    ours = ROOT / ".venv" / "pm2" / "node_modules" / ".bin" / "pm2"
    return str(ours) if ours.exists() else shutil.which("pm2")


class Pm2:
    """PM2 with a daemon of its own, which ends with the test and nothing else."""

    def __init__(self, program: str, **environment: str) -> None:
        self._program = program
        self._ecosystem = ECOSYSTEM
        # Not in pytest's folder: PM2's sockets are there, and their paths must be short.
        self.home = Path(tempfile.mkdtemp(prefix="pm2-"))
        self._environment = {
            **clean_environment(),
            "PM2_HOME": str(self.home),
            "PM2_DISABLE_VERSION_CHECK": "true",
            "APP_BIN": str(Path(PROGRAM).parent),
            **environment,
        }

    def change(self, folder: Path, **options: object) -> None:
        """Run the example with other options of the worker; None takes one away."""
        self._ecosystem = folder / "ecosystem.config.cjs"
        self._ecosystem.write_text(
            f"const example = require({json.dumps(str(ECOSYSTEM))});\n"
            f"Object.assign(example.apps[1], {json.dumps(options)});\n"
            "module.exports = example;\n"
        )

    def start(self, instances: int) -> None:
        """Run the example; returns when every worker has said that it is ready."""
        self._environment["APP_INSTANCES"] = str(instances)
        self.run("start", str(self._ecosystem))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Shown by pytest when the test fails.
        sys.stdout.write(self.said("worker")[-8_000:])
        self.run("kill")
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *arguments: str) -> str:
        """One command, to its end; returns what it printed."""
        done = subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """One command, not waited for."""
        return subprocess.Popen(
            [self._program, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def apps(self, name: str = "worker") -> list[dict[str, Any]]:
        """What PM2 knows of each process of an app."""
        listed = self.run("jlist")
        # It may greet a new home before the JSON.
        found: list[dict[str, Any]] = json.loads(listed[listed.index("[{") :])
        return [one for one in found if one["name"] == name]

    def pids(self, name: str = "worker") -> set[int]:
        """The processes that run."""
        return {one["pid"] for one in self.apps(name) if one["pid"]}

    def said(self, name: str) -> str:
        """Everything its processes wrote, one after the other."""
        logs = sorted((self.home / "logs").glob(f"{name}-*.log"))
        return "".join(log.read_text() for log in logs)

    def lines(self, name: str = "worker") -> list[dict[str, Any]]:
        """The same as log lines."""
        lines = self.said(name).split("\n")
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def messages(self, level: str | None = None) -> list[str]:
        """What the worker's log lines say."""
        return [one["message"] for one in self.lines() if level in (None, one["level"])]


def probe(port: int, path: str) -> tuple[int, list[str]]:
    """What a worker answers to a probe: the status and the reasons."""
    code, body = probe_fully(port, path)
    return code, body["reasons"]


def probe_fully(port: int, path: str, timeout: float = 2.0) -> tuple[int, dict[str, Any]]:
    """The same with the whole answer. Raises OSError when nobody answers in time."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def in_ci() -> bool:
    """Whether a test that cannot run is a failure."""
    return os.environ.get("CI") == "true"


class Running(Worker):
    """One `omni-worker run` with any options; the rest as in the process tests."""

    def __init__(self, stage: Stage, *arguments: str, url: str | None = None, **env: str) -> None:
        self.name = f"w{len(stage.workers) + 1}"
        stage.workers.append(self)
        self._log = stage.folder / f"{self.name}.log"
        environment = {
            **clean_environment(),
            "NATS_URL": url or stage.url,
            "EFFECTS": str(stage.folder / "effects.jsonl"),
            "WORKER": self.name,
            **env,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "run", *arguments],
                cwd=stage.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self.pid = self._process.pid


async def until_probed(
    port: int, path: str, code: int, reason: str = "", timeout: float = 15.0
) -> str:
    """Wait until a probe is answered like this; returns the reasons as one text."""
    said: object = None

    async def answered() -> bool:
        nonlocal said
        try:
            said = await asyncio.to_thread(probe, port, path)
        except OSError as error:
            said = error
            return False
        return said[0] == code and any(reason in one for one in (said[1] or [""]))

    await until(answered, timeout, what=f"{code} with {reason!r} on {path}", seen=lambda: said)
    assert isinstance(said, tuple)
    return "; ".join(said[1])
