"""Children: the processes that run the project's code, one after the other.

They are forked from a template that has imported the framework and nothing of the project: a
change costs the time of the project's own imports, not of ours.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ...nats_server import die_with_parent
from ...process.channel import command_frame
from ...process.frame_socket import encode
from ..common_options import Given


@dataclass(frozen=True, slots=True)
class Ended:
    """A child has ended; its ``code`` says how."""

    child: DevProcess


Post = Callable[[Ended], None]
Remember = Callable[[object], None]


class DevProcess:
    """Process at the other end of a socket. Its end is posted from a thread."""

    def __init__(self, connection: socket.socket, post: Post, remember: Remember) -> None:
        self._socket = connection
        self._remember = remember
        self._post = post
        self._pid: int | None = None
        self._loading = True
        self._started_at = time.time()  # as files are dated
        self._loaded_at = float("inf")
        self._is_over = False
        self.code = 0  # once it has ended: its exit code, or minus the signal that ended it
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def tell(self, memory: object) -> None:
        """Give it what the child before it left to be remembered."""
        with suppress(OSError):  # it has ended
            self._socket.sendall(encode(command_frame("remember", memory=memory)))

    def hand_over(self) -> None:
        """Hand back its events and end, now."""
        self._end(in_order=False)

    def stop(self) -> None:
        """End in good order: running handlers may finish."""
        self._end(in_order=True)

    def kill(self) -> None:
        """End it like a crash."""
        self._signal(signal.SIGKILL)

    def ended(self, code: int) -> None:
        """Take the template's report that it is gone."""
        if self._is_over:
            return
        self._is_over = True
        self._listener.join(1.0)  # its last lines come first
        self._pid, self.code = None, code
        self._socket.close()
        self._post(Ended(self))

    def was_loading(self, paths: Iterable[Path]) -> bool:
        """Return True if one of these files was written while the code was being loaded."""
        for path in paths:
            with suppress(OSError):  # it is gone
                if self._started_at <= path.stat().st_mtime <= self._loaded_at:
                    return True
        return False

    def _end(self, *, in_order: bool) -> None:
        with suppress(OSError):  # it has ended: the word is on its way
            self._socket.sendall(encode(command_frame("stop", in_order=in_order)))
        if self._loading:
            self._signal(signal.SIGTERM)  # it holds nothing yet, and does not listen

    def _listen(self) -> None:
        with suppress(OSError, ValueError), self._socket.makefile("r") as lines:
            for line in lines:
                match json.loads(line):
                    case {"fact": "pid", "value": int(pid)}:
                        self._pid = pid
                    case {"fact": "loaded"}:
                        self._loading, self._loaded_at = False, time.time()
                    case {"fact": "memory", "value": value}:
                        self._remember(value)

    def _signal(self, one: signal.Signals) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, one)


class Template:
    """Process that children are forked from, one at a time; it reports how they ended."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
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
        self._child: DevProcess | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(self, since: float, first: bool, post: Post, remember: Remember) -> DevProcess:
        """Fork a child that loads the project and runs it; ``since`` is when that was asked for."""
        ours, theirs = socket.socketpair()
        with theirs:
            child = self._child = DevProcess(ours, post, remember)
            order = json.dumps({"since": since, "first": first}).encode() + b"\n"
            with suppress(OSError):  # the template has ended, and with it the child
                socket.send_fds(self._socket, [order], [theirs.fileno()])
        return child

    @property
    def is_alive(self) -> bool:
        """Return True if the template still runs and can fork."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and with it what it forked."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._socket.close()

    def _listen(self) -> None:
        with suppress(OSError, ValueError), self._socket.makefile("r") as lines:
            for line in lines:
                self._tell(int(line))
        self._tell(self._process.wait())

    def _tell(self, code: int) -> None:
        if self._child is not None:
            self._child.ended(code)


class Children:
    """Working child, and the template of the next."""

    def __init__(
        self,
        target: str,
        environment: Mapping[str, str],
        *,
        payloads: bool,
        log_level: str,
        only: Sequence[str],
        without: Sequence[str],
        given: Given,
        post: Post,
    ) -> None:
        self._arguments = [
            *(target, "payloads" if payloads else "plain", log_level),
            *(given.server or "", str(given.app_dir or ""), json.dumps([only, without])),
        ]
        self._environment = environment
        self._post = post
        self._template: Template | None = None
        self._is_stale = False
        self._memory: object = None  # of the newest child, for the next one
        self.working: DevProcess | None = None

    def start(self, since: float, *, first: bool = False) -> None:
        """Start the next child."""
        if self._template is None or self._is_stale or not self._template.is_alive:
            self._close_template()
            self._template = Template(self._arguments, self._environment)
            self._is_stale = False
        self.working = self._template.fork(since, first, self._post, self._remember)
        self.working.tell(self._memory)

    def renew_template(self) -> None:
        """Fork the next child from a new template: something before the code has changed."""
        self._is_stale = True

    def take_environment(self, environment: Mapping[str, str]) -> None:
        """Start the next child with other variables."""
        self._environment = environment
        self.renew_template()

    def _remember(self, memory: object) -> None:
        self._memory = memory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.working is not None:
            self.working.kill()
        self._close_template()

    def _close_template(self) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None


def _before_it_runs() -> Callable[[], None]:
    die = die_with_parent()

    def prepare() -> None:
        # A Ctrl-C in the terminal reaches it too; the parent says what that means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if die is not None:
            die()

    return prepare
