"""Fake: Omni's API in a test, in this process. The client in front of it is the real one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from ..errors import ConfigError
from .client import Omni
from .target import Target

TARGET = Target("http://omni.invalid/api/v2", SecretStr("fake-omni-key"))


@dataclass(frozen=True, slots=True)
class Posted:
    """A request that came to the fake: its path below the API, and its body."""

    path: str
    body: Mapping[str, Any]
    correlation_id: str | None = None

    @property
    def text(self) -> str | None:
        """Text of the message, if it has one."""
        text = self.body.get("text")
        return text if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class _Trouble:
    status: int | None  # None: no connection
    error: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    is_lost: bool = False  # the request is done, its answer lost


class FakeOmni:
    """Stands in for Omni behind a client: ``with FakeOmni(omni) as fake``, before the app runs.

    ``sent`` has what was taken, in order; ``posted`` also what was refused. Needs neither address
    nor key. Retries, errors and the memory of what was sent are the client's own.
    """

    def __init__(self, omni: Omni) -> None:
        self.sent: list[Posted] = []
        self.posted: list[Posted] = []
        self._omni = omni
        self._troubles: deque[_Trouble] = deque()

    @property
    def texts(self) -> list[str]:
        """Texts of the messages that were taken."""
        return [one.text for one in self.sent if one.text is not None]

    def fail(
        self,
        status: int = 500,
        *,
        times: int = 1,
        code: str = "FAILED",
        message: str = "a failure that the test asked for",
        retry_after: float | None = None,
    ) -> None:
        """Answer the next requests with this status, and with a `Retry-After`."""
        headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        trouble = _Trouble(status, {"code": code, "message": message}, headers)
        self._troubles.extend([trouble] * times)

    def be_away(self, *, times: int = 1) -> None:
        """Let the next requests find no server."""
        self._troubles.extend([_Trouble(None)] * times)

    def lose_answer(self, *, times: int = 1) -> None:
        """Take the next messages, and let the connection break before the answer."""
        self._troubles.extend([_Trouble(None, is_lost=True)] * times)

    def __enter__(self) -> Self:
        if self._omni.is_open or self._omni.stand_in is not None:
            raise ConfigError("FakeOmni: enter it before the app runs, and once: with FakeOmni(…)")
        self._omni.stand_in = (TARGET, httpx.MockTransport(self._answer))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._omni.stand_in = None

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v2")
        body = json.loads(request.content)
        posted = Posted(path, body, request.headers.get("x-correlation-id"))
        self.posted.append(posted)
        trouble = self._troubles.popleft() if self._troubles else None
        if trouble is not None and trouble.is_lost:
            self.sent.append(posted)
            raise httpx.ReadError("the answer is lost: a failure that the test asked for")
        if trouble is not None and trouble.status is None:
            raise httpx.ConnectError("no server: a failure that the test asked for")
        if trouble is not None and trouble.status is not None:
            return httpx.Response(
                trouble.status, json={"error": trouble.error}, headers=trouble.headers
            )
        self.sent.append(posted)
        number = len(self.sent)
        data = {
            "messageId": f"m-{number}", "externalMessageId": f"ext-{number}", "status": "sent",
            "instanceId": body.get("instanceId"), "to": body.get("to"),
        }  # fmt: skip
        return httpx.Response(201, json={"data": data})
