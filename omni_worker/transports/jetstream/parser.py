"""The parser: the server's bytes, cut into messages for sinks and control lines for the client."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nats import errors

log = logging.getLogger("omni_worker.transport")

# subject, reply, header block or None, body. Called by the reader: never blocks.
Sink = Callable[[bytes, bytes, "bytes | None", bytes], None]

MAX_LINE = 1_048_576  # bytes of one control line; INFO of a large cluster is the longest
MSG, HMSG = b"MH"  # the first bytes of a message, without headers and with them


class Parser:
    """Parser from bytes to sink calls. A failing sink costs that message, not the connection."""

    def __init__(self, sinks: dict[bytes, Sink], on_control: Callable[[bytes], None]) -> None:
        self._sinks = sinks
        self._on_control = on_control
        self.reset()

    def reset(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket; whole messages go to their sinks, the rest is kept."""
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        position = self._consume(data)
        if position < len(data):
            self._chunks.append(data[position:])
            self._have = len(data) - position

    def _consume(self, data: bytes) -> int:
        sinks = self._sinks
        position, size = 0, len(data)
        self._need = 0
        while position < size:
            end = data.find(b"\r\n", position)
            if end < 0:
                if size - position > MAX_LINE:
                    raise errors.ProtocolError
                break
            first = data[position]
            if first != MSG and first != HMSG:
                self._on_control(data[position:end])
                position = end + 2
                continue
            # MSG <subject> <sid> [reply] <bytes>, and HMSG with the bytes of the headers before.
            # Split at spaces only: a subject may hold a vertical tab or a form feed.
            words = data[position:end].split(b" ")
            start = end + 2
            stop = start + int(words[-1])
            if stop >= size - 1:
                self._need = stop + 2 - position
                break
            position = stop + 2
            sink = sinks.get(words[2])
            if sink is None:
                continue
            try:
                if first == HMSG:
                    body = start + int(words[-2])
                    reply = words[3] if len(words) == 6 else b""
                    sink(words[1], reply, data[start:body], data[body:stop])
                else:
                    sink(words[1], words[3] if len(words) == 5 else b"", None, data[start:stop])
            except Exception:
                log.exception("a message could not be processed; it will be delivered again")
        return position
