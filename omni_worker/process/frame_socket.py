"""Frame socket: JSON objects both ways over a socket between two processes.

A frame is one line of JSON, of at most `MAX_FRAME` bytes. Neither end trusts the other: nothing
here blocks, buffers are bounded, and what cannot be read or sent is dropped and logged once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..forks import let_go_in_forks

log = logging.getLogger("omni_worker.channel")

MAX_FRAME = 1 << 20  # bytes
MAX_UNSENT = 4 << 20  # bytes kept while the other end does not read
MAX_PER_SECOND = 8 << 20  # bytes read of one peer; the rest waits in its own socket
CHUNK = 1 << 16  # bytes read at a time, so that one peer does not keep the loop

Frame = dict[str, Any]


def encode(frame: Frame) -> bytes:
    """Make a frame a line."""
    return json.dumps(frame, default=str).encode() + b"\n"


class FrameReader:
    """Turn bytes, in any pieces, into frames; ``dropped`` counts lines that are none. Pure."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._is_too_long = False
        self.dropped = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that end within ``data``."""
        frames: list[Frame] = []
        for index, piece in enumerate(data.split(b"\n")):
            if index:
                self._end(frames)
            if len(self._line) + len(piece) > MAX_FRAME:
                self._line.clear()
                self._is_too_long = True
            if not self._is_too_long:
                self._line += piece
        return frames

    def _end(self, frames: list[Frame]) -> None:
        frame: object = None
        with suppress(ValueError, RecursionError):  # RecursionError: "[[[[[…"
            frame = json.loads(self._line)
        if isinstance(frame, dict):
            frames.append(frame)
        elif self._line or self._is_too_long:
            self.dropped += 1
        self._line.clear()
        self._is_too_long = False


class FrameSocket:
    """Frames over a socket. ``take`` and, once, ``gone`` are called on the loop of ``open``."""

    def __init__(
        self, connection: socket.socket, peer: str, take: Callable[[Frame], None],
        gone: Callable[[], None],
    ) -> None:  # fmt: skip
        connection.setblocking(False)
        self._socket = connection
        let_go_in_forks(self, lambda one: [one._socket.fileno()])
        self._peer = peer
        self._take = take
        self._gone = gone
        self._reader = FrameReader()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # around what is unsent
        self._unsent: deque[memoryview] = deque()
        self._unsent_size = 0
        self._is_over = False
        self._is_reading = False
        self._logged: set[str] = set()
        self._second, self._read_in_second = 0.0, 0

    def open(self) -> None:
        """Begin to read, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._read_on()
        if self._unsent:
            self._await_room()

    def send(self, frame: Frame, *, unless_busy: bool = False) -> bool:
        """Send a frame, from any thread; False when it was dropped.

        ``unless_busy`` drops it also while earlier frames are unsent: the next one will do.
        """
        data = encode(frame)
        if len(data) > MAX_FRAME:
            self._log_once(f"a frame for {self._peer} is longer than {MAX_FRAME} bytes")
            return False
        with self._lock:
            if not self._is_over:
                self._flush()
            if self._is_over or (unless_busy and self._unsent):
                return False
            if self._unsent_size + len(data) > MAX_UNSENT:
                self._log_once(f"{self._peer} does not read")
                return False
            self._unsent.append(memoryview(data))
            self._unsent_size += len(data)
            self._flush()
            is_waiting = bool(self._unsent)
        if is_waiting and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: this process ends
                self._loop.call_soon_threadsafe(self._await_room)
        return True

    def drain(self) -> None:
        """Take what a peer that has ended left in the socket."""
        for _ in range(MAX_UNSENT // CHUNK):
            if self._is_over or not self._read():
                return

    def close(self) -> None:
        """End it; nothing is taken or sent any more. Idempotent, on the loop."""
        with self._lock:
            if self._socket.fileno() < 0:
                return
            self._is_over = True
            self._unsent.clear()
            self._pause()
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_writer(self._socket)
            self._socket.close()

    # --- reading -----------------------------------------------------------------------------

    def _read_on(self) -> None:
        if self._loop is not None and not self._is_over and not self._is_reading:
            self._is_reading = True
            self._loop.add_reader(self._socket, self._on_readable)

    def _pause(self) -> None:
        if self._is_reading and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._is_reading = False

    def _on_readable(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        if now - self._second >= 1.0:
            self._second, self._read_in_second = now, 0
        if self._read_in_second > MAX_PER_SECOND:
            self._log_once(f"{self._peer} sends more than {MAX_PER_SECOND} bytes a second")
            self._pause()
            self._loop.call_later(self._second + 1.0 - now, self._read_on)
            return
        self._read()

    def _read(self) -> bool:
        """Read once; False when there was nothing."""
        try:
            data = self._socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        self._read_in_second += len(data)
        for frame in self._reader.feed(data):
            if self._is_over:
                return False
            self._take(frame)
        if self._reader.dropped:
            self._log_once(f"{self._peer} sent what is no frame")
        return True

    def _end(self) -> None:
        if not self._is_over:
            self.close()
            self._gone()

    # --- writing -----------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what the socket takes now; called with the lock."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._fail()
                return
            self._unsent_size -= sent
            rest = self._unsent.popleft()[sent:]
            if rest:
                self._unsent.appendleft(rest)

    def _fail(self) -> None:
        """Read, on the loop, what the other end sent before it was gone; then end."""
        self._unsent.clear()
        self._unsent_size = 0
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_failed)

    def _on_failed(self) -> None:
        self.drain()
        self._end()

    def _await_room(self) -> None:
        if self._loop is not None and not self._is_over:
            self._loop.add_writer(self._socket, self._on_room)

    def _on_room(self) -> None:
        with self._lock:
            if not self._is_over:
                self._flush()
            is_waiting = bool(self._unsent)
        if not is_waiting and self._loop is not None and not self._is_over:
            self._loop.remove_writer(self._socket)

    def _log_once(self, what: str) -> None:
        if what not in self._logged:
            self._logged.add(what)
            log.warning("%s; dropped, and not logged again", what)
