"""Support for the tests of dev mode: one `omni-worker dev` process in a project of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from pathlib import Path

from omni_worker.nats_server import die_with_parent

from ..processes.support import _HEAD as HEAD
from ..processes.support import PROGRAM, Stage, clean_environment
from ..waiting import until


class Dev:
    """One `omni-worker dev`, with what it said so far."""

    def __init__(
        self, stage: Stage, *arguments: str, url: str | None = None, target: str = "play"
    ) -> None:
        number = len(list(stage.folder.glob("dev-*.log"))) + 1
        self._log = stage.folder / f"dev-{number}.log"
        environment = {
            **clean_environment(),
            "EFFECTS": str(stage.folder / "effects.jsonl"),
            "WORKER": f"dev-{number}",
            **({"NATS_URL": url} if url else {}),
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "dev", target, *arguments],
                cwd=stage.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def said(self) -> str:
        """Everything it wrote so far, a long line's parts put together again."""
        return self._log.read_text().replace("\n           ", " ")

    async def until_said(self, text: str, times: int = 1, timeout: float = 15.0) -> None:
        """Wait until it has said this, so many times in all."""
        await until(
            lambda: self.said().count(text) >= times or self.process.poll() is not None,
            timeout,
            what=f"{text!r} {times} ×",
            seen=self.said,
        )
        assert self.said().count(text) >= times, f"not said: {text!r} in\n{self.said()}"

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def exit(self, timeout: float = 15.0) -> int:
        """Wait for its end; returns the exit code."""
        await until(lambda: self.process.poll() is not None, timeout)
        return self.process.wait()

    async def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        self.interrupt()
        return await self.exit()

    def end(self) -> None:
        """End it however it stands; its child and its server go with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Project:
    """A stage with its dev processes."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.folder: Path = stage.folder
        self.devs: list[Dev] = []

    def write(self, source: str, file: Path | None = None) -> None:
        """Save the app, as an editor does: the whole file at once, under another name first."""
        file = file or self.folder / "play.py"
        draft = file.with_name(f"{file.name}~")
        draft.write_text(HEAD + textwrap.dedent(source))
        os.replace(draft, file)

    async def dev(self, *arguments: str, url: str | None = None, target: str = "play") -> Dev:
        """Start dev and wait until it works."""
        dev = self.spawn(*arguments, url=url, target=target)
        await dev.until_said("ready: ")
        return dev

    def spawn(self, *arguments: str, url: str | None = None, target: str = "play") -> Dev:
        """Start dev, and do not wait."""
        dev = Dev(self.stage, *arguments, url=url, target=target)
        self.devs.append(dev)
        return dev
