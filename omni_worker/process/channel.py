"""Channel between the parent of several workers and each of them: facts up, commands down.

A fact is the newest value of a name, and may be lost for a newer one. A command has one answer,
or none in time. `frame_socket` moves the frames; what they mean is for those who open a channel.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..errors import ConfigError, OmniWorkerError
from ..settings import PARENT_FD
from ..tasks import own
from .frame_socket import Frame, FrameSocket

log = logging.getLogger("omni_worker.channel")

MAX_COMMANDS = 64  # commands a worker runs at once
ANSWER_WITHIN = 4.0  # seconds

Command = Callable[..., Awaitable[Any]]


class CommandError(OmniWorkerError):
    """A worker could not do what its parent asked of it."""


class NoAnswer(CommandError):
    """A worker is gone, does not read, or did not answer in time: it may have obeyed or not."""


def command_frame(name: str, number: int = 0, /, **arguments: Any) -> Frame:
    """Make a command a frame; ``number`` is repeated in its answer."""
    return {"command": name, "id": number, "arguments": arguments}


class ParentChannel:
    """The worker's end. ``fact`` may be called from any thread, everything else on the loop."""

    def __init__(self, connection: socket.socket) -> None:
        self._frames = FrameSocket(connection, "the parent", self._take, self._on_gone)
        self._commands: dict[str, Command] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._gone: Callable[[], object] | None = None

    @classmethod
    def found(cls, environment: MutableMapping[str, str]) -> ParentChannel | None:
        """The channel a parent left in the environment, taken out of it; None without a parent."""
        number = environment.pop(PARENT_FD, "")
        if not number.isdigit():
            return None
        try:
            os.set_inheritable(int(number), False)
            return cls(socket.socket(fileno=int(number)))
        except OSError as error:  # the variable came down from a grandparent, the channel did not
            log.debug("%s=%s is no channel: %s", PARENT_FD, number, error)
            return None

    def on(self, name: str, function: Command) -> None:
        """Let an async function answer a command; its result must be JSON."""
        if name in self._commands:
            raise ConfigError(f"two functions for command {name!r}")
        self._commands[name] = function

    def open(self, gone: Callable[[], object]) -> None:
        """Take commands from now on; ``gone`` is called once when the parent has ended."""
        self._gone = gone
        self._frames.open()

    def fact(self, name: str, value: Any) -> None:
        """Send a fact; it is dropped while the parent does not read: the next one will do."""
        self._frames.send({"fact": name, "value": value}, unless_busy=True)

    def close(self) -> None:
        """Take no further commands, and cancel those that run."""
        self._gone = None
        for task in self._running:
            task.cancel()
        self._frames.close()

    def _on_gone(self) -> None:
        if self._gone is not None:
            self._gone()

    def _take(self, frame: Frame) -> None:
        match frame:
            case {"command": str(name), "id": int(number), "arguments": dict(arguments)}:
                if len(self._running) >= MAX_COMMANDS:
                    self._refuse(number, f"{MAX_COMMANDS} commands run already")
                    return
                task = asyncio.get_running_loop().create_task(
                    self._obey(name, number, arguments), name=own(f"command {name}")
                )
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _obey(self, name: str, number: int, arguments: dict[str, Any]) -> None:
        function = self._commands.get(name)
        if function is None:
            self._refuse(number, f"unknown command {name!r}")
            return
        try:
            value = await function(**arguments)
            is_sent = self._frames.send({"answer": number, "value": value})
        except OmniWorkerError as error:
            self._refuse(number, str(error))
        except Exception as error:
            log.error(
                "command %s failed: %s: %s", name, type(error).__name__, error, exc_info=error
            )
            self._refuse(number, f"{type(error).__name__}: {error}")
        else:
            if not is_sent:
                self._refuse(number, f"the answer to {name!r} could not be sent: it is too long")

    def _refuse(self, number: int, why: str) -> None:
        self._frames.send({"answer": number, "error": why[:1_000]})


class WorkerChannel:
    """The parent's end of one worker's channel, for one life of it; used on the loop."""

    def __init__(
        self, connection: socket.socket, worker: str, on_fact: Callable[[str, Any], None]
    ) -> None:
        self._frames = FrameSocket(connection, worker, self._take, self.close)
        self._worker = worker
        self._on_fact = on_fact
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._is_closed = False

    def open(self) -> None:
        """Take facts and answers from now on."""
        self._frames.open()

    async def ask(
        self, command: str, /, *, timeout: float = ANSWER_WITHIN, **arguments: Any
    ) -> Any:
        """Ask the worker for something; returns its answer.

        Raises CommandError when it refused or failed, NoAnswer when the outcome is unknown.
        """
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            frame = command_frame(command, number, **arguments)
            if self._is_closed or not self._frames.send(frame):
                raise NoAnswer(f"{self._worker} does not take commands now")
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise NoAnswer(
                f"{self._worker} did not answer {command!r} within {timeout:g} s"
            ) from None
        finally:
            del self._asked[number]

    def drain(self) -> None:
        """Take what an ended worker has sent, then close."""
        self._frames.drain()
        self.close()

    def close(self) -> None:
        """Stop reading; every open request ends without an answer."""
        self._is_closed = True
        self._frames.close()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NoAnswer(f"{self._worker} has ended"))

    def _take(self, frame: Frame) -> None:
        match frame:
            case {"fact": str(name), "value": value}:
                self._on_fact(name, value)
            case {"answer": int(number), "error": str(why)}:
                self._settle(number, CommandError(f"{self._worker}: {why}"))
            case {"answer": int(number), "value": value}:
                self._settle(number, value)

    def _settle(self, number: int, outcome: Any) -> None:
        answer = self._asked.get(number)  # None: it was not waited for any longer
        if answer is None or answer.done():
            return
        if isinstance(outcome, CommandError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
