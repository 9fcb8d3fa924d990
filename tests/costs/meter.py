"""What a piece of work costs, counted instead of timed: the same on every machine, busy or not."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import omni_worker
from omni_worker.transports.jetstream import client

OURS = f"{Path(omni_worker.__file__).parent}/"
JSON_PASSES = ("validate_json", "from_json", "to_json", "loads", "dumps")


class Meter:
    """Counts while it runs; asked per event afterwards."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()  # of our functions; of a coroutine, each turn as well
        self.json: Counter[str] = Counter()  # passes over JSON
        self.counts: Counter[str] = Counter()  # tasks, timers, writes, requests

    def most_called(self, events: int, most: int = 15) -> str:
        """What to look at when a limit is passed."""
        lines = [f"{count / events:7.2f}  {name}" for name, count in self.calls.most_common(most)]
        return "calls per event:\n" + "\n".join(lines)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count from here to the end of the block, in this thread."""
        loop = asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patched:
            for name in ("create_task", "call_later", "call_at"):
                patched.setattr(loop, name, self._counted(name, getattr(loop, name)))
            written, send = client.Client._write_out, client.Client.send

            def count_write(connection: client.Client) -> None:
                self.counts["writes"] += 1
                written(connection)

            def count_request(connection: client.Client, data: bytes) -> None:
                self.counts["requests"] += data.startswith(b"PUB $JS.API.")
                send(connection, data)

            patched.setattr(client.Client, "_write_out", count_write)
            patched.setattr(client.Client, "send", count_request)
            sys.setprofile(self._on_call)
            try:
                yield
            finally:
                sys.setprofile(None)

    @property
    def timers(self) -> int:
        # Some loops make one by the other: the smaller count is of their own doing.
        return max(self.counts["call_later"], self.counts["call_at"])

    def _counted(self, name: str, method: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.counts[name] += 1
            return method(*arguments, **named)

        return counted

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code.co_filename.startswith(OURS):
                self.calls[f"{code.co_filename.removeprefix(OURS)}:{code.co_name}"] += 1
        elif event == "c_call" and getattr(argument, "__name__", "") in JSON_PASSES:
            self.json[argument.__name__] += 1
