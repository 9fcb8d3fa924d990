"""Sender: one request to Omni's API, with its tries. Nothing here knows what is sent, or why."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

from ..errors import ConfigError
from ..retry import RetryPolicy, retry_delay
from .answers import LONGEST_BODY, Answer, data_of, error_of, is_success, may_pass
from .errors import OmniBusy, OmniError, OmniUnavailable
from .target import URL_VARIABLE, Target

LONGEST_CORRELATION = 256  # characters
# Failures before any byte of the request was sent.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Sender:
    """Posts JSON. No redirect is followed: the key would go along. Cookies are not kept.

    A transport of httpx is used, not its client: that would log a line for each message, follow
    the environment's proxies, and read what is in ``~/.netrc``.
    """

    def __init__(
        self,
        target: Target,
        transport: httpx.AsyncBaseTransport,
        *,
        timeout: float,
        retry: RetryPolicy,
    ) -> None:
        self.target = target
        self._transport = transport
        self._timeout = timeout
        self._retry = retry

    async def post(
        self, path: str, body: Mapping[str, Any], correlation: str | None = None
    ) -> dict[str, Any]:
        """Post until it is done; returns what the answer says of it. Raises OmniError.

        A failure that may pass is tried again here, as long as the waits are short. A longer one
        that the answer asks for is an OmniBusy at once.
        """
        call = f"POST {path}"
        content = _content(call, body)
        headers = self._headers(correlation)
        tries = 0
        while True:
            tries += 1
            answer, error = await self._try(call, path, content, headers)
            if answer is not None and is_success(answer):
                return data_of(call, answer, self.target)
            if answer is not None:
                error = error_of(call, answer, self.target, time.time())
                if not may_pass(answer):
                    raise error
            assert error is not None
            wait = self._wait(error, tries)
            if wait is None:
                error.add_note(f"tried {tries} times" if tries > 1 else "tried once")
                raise error
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _try(
        self, call: str, path: str, content: bytes, headers: dict[str, str]
    ) -> tuple[Answer | None, OmniError | None]:
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)
        request = httpx.Request(
            "POST", self.target.url + path, content=content, headers=headers,
            extensions={"timeout": limits},
        )  # fmt: skip
        try:
            # The limits are of single steps: an answer that comes byte by byte keeps them all.
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(request)
                try:
                    body = await _bounded(response)
                finally:
                    await response.aclose()
        except (httpx.TransportError, TimeoutError) as error:
            return None, self._unavailable(call, error)
        return Answer(response.status_code, dict(response.headers.items()), body), None

    def _unavailable(self, call: str, error: Exception) -> OmniUnavailable:
        """Return the error of a request without an answer, with its cause."""
        where = self.target.url
        unsent = isinstance(error, _UNSENT)
        if isinstance(error, TimeoutError | httpx.TimeoutException) and not unsent:
            what = f"no answer of {where} within {self._timeout:g} s: see Omni's log"
        elif unsent:
            what = f"no connection to {where}: is Omni running there? {URL_VARIABLE} names it"
        else:
            what = f"the connection to {where} broke: see Omni's log"
        failed = OmniUnavailable(f"{call}: {what}", may_be_sent=not unsent)
        failed.__cause__ = error
        return failed

    def _wait(self, error: OmniError, tries: int) -> float | None:
        """Return the seconds until the next try; None if the error is the ending."""
        wait = retry_delay(self._retry, tries, random.random())
        if isinstance(error, OmniBusy) and error.after is not None:
            # Not before the time that was asked for, and not all at the same moment.
            error.after *= 1 + self._retry.jitter * random.random()
            wait = max(wait, error.after)
        longest = self._retry.cap * (1 + self._retry.jitter)
        return wait if tries <= self._retry.retries and wait <= longest else None

    def _headers(self, correlation: str | None) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",  # a body of a kilobyte could unpack to a gigabyte
            "content-type": "application/json",
            "user-agent": "omni-worker",
            "x-api-key": self.target.key.get_secret_value(),
        }
        # An id is any text: one that is no header's value is left out, and the message is sent.
        if correlation is not None and _is_header(correlation):
            headers["x-correlation-id"] = correlation
        return headers


async def _bounded(response: httpx.Response) -> bytes | None:
    """Read a body; None if it is longer than is read, or is packed unasked."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return None
    body = bytearray()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for piece in response.stream:
        body += piece
        if len(body) > LONGEST_BODY:
            return None
    return bytes(body)


def _content(call: str, body: Mapping[str, Any]) -> bytes:
    try:
        # ASCII: half a character of a broken text passes as \ud83d, in UTF-8 it would not.
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{call}: the body is not JSON: {error}") from None


def _is_header(text: str) -> bool:
    is_plain = text.isascii() and text.isprintable() and text == text.strip()
    return is_plain and 0 < len(text) <= LONGEST_CORRELATION
