"""Children: the processes that run the project's code, one at a time, and one that is warm.

The warm one has imported the framework and waits: a change costs the time of the project's own
imports, not of ours. Parent and child talk over a socket, in lines.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from ...server import die_with_parent

Post = Callable[[tuple["Child", str]], None]


class Child:
    """One process. ``post`` is called from a thread: (child, "ready" …), at last "ended"."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], post: Post) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "omni_worker.cli.dev_child"),
                    *(str(theirs.fileno()), *arguments),
                ],
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                preexec_fn=_before_it_runs(),
            )
        self._socket = ours
        self._post = post
        self._loading = False
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def code(self) -> int:
        """Its exit code; minus the signal that ended it."""
        return self._process.wait()

    def go(self, since: float, first: bool) -> None:
        """Load the project and run it; ``since`` is when that was asked for, in monotonic time."""
        self._loading = True
        self._send(go=since, first=first)

    def hand_over(self) -> None:
        """Hand back what it holds and end, now."""
        self._send(stop="now")
        if self._loading:
            self._signal(signal.SIGTERM)  # it holds nothing yet, and does not listen

    def stop(self) -> None:
        """End in good order: running handlers may finish."""
        self._send(stop="in order")
        if self._loading:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it like a crash."""
        self._signal(signal.SIGKILL)

    def _listen(self) -> None:
        with self._socket, self._socket.makefile("r") as lines:
            with suppress(OSError):
                for line in lines:
                    if line.strip() == "loaded":
                        self._loading = False
                    self._post((self, line.strip()))
            self._process.wait()
        self._post((self, "ended"))

    def _send(self, **command: object) -> None:
        with suppress(OSError):  # it has ended: "ended" is on its way
            self._socket.sendall(json.dumps(command).encode() + b"\n")

    def _signal(self, one: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(one)


class Children:
    """The one that works, and the warm one."""

    def __init__(
        self,
        target: str,
        environment: Mapping[str, str],
        *,
        payloads: bool,
        log_level: str,
        post: Post,
    ) -> None:
        self._arguments = [target, "payloads" if payloads else "plain", log_level]
        self._environment = environment
        self._post = post
        self._spare: Child | None = None
        self._dropped: set[Child] = set()
        self.working: Child | None = None

    def start(self, since: float, *, first: bool = False) -> None:
        """Let the next one work."""
        child, self._spare = self._spare or self._make(), None
        child.go(since, first)
        self.working = child

    def warm_up(self) -> None:
        """Have the next one ready."""
        if self._spare is None:
            self._spare = self._make()

    def drop_spare(self) -> None:
        """The warm one is not needed any more."""
        if self._spare is not None:
            self._spare.kill()
            self._spare = None

    def forget(self, child: Child) -> None:
        """A child that does not work has ended."""
        if child is self._spare:
            self._spare = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop_spare()
        if self.working is not None:
            self.working.kill()

    def _make(self) -> Child:
        return Child(self._arguments, self._environment, self._post)


def _before_it_runs() -> Callable[[], None]:
    die = die_with_parent()

    def prepare() -> None:
        # A Ctrl-C in the terminal reaches it too; the parent says what that means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if die is not None:
            die()

    return prepare
