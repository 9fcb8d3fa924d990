"""The JetStream API: streams, consumers and stored messages, by requests to the server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

from ...errors import ApiError, PermissionDenied, Unanswered
from ..base import StoredMessage
from ..headers import parse_headers
from ..infos import (
    AccountInfo,
    ConsumerInfo,
    Permissions,
    StreamInfo,
    read_account,
    read_consumer_info,
    read_permissions,
    read_stream_info,
)
from ..timestamps import nanoseconds
from .limits import with_advice, within_limits
from .requests import Reply, Requests

NOT_FOUND = 404
API_TYPES = "io.nats.jetstream.api."  # how the type of each of the API's answers begins
USER_INFO = "$SYS.REQ.USER.INFO"
JETSTREAM_OFF = (10076, 10039)  # not enabled, not enabled for the account
NO_LEADER = 10008  # "JetStream system temporarily unavailable"
LEADER_PAUSE = 0.25  # seconds
READ_TIMEOUT = 5.0  # seconds for one stored message: events wait for the answer
# Seconds until an unanswered request is repeated: after a new leader is elected, a waiting caller
# is delayed by at most this time.
FIRST_PATIENCE = 1.0
PATIENCE = 2.0


class Api:
    """Implements the Operators port. Raises ApiError with the server's own text and codes."""

    def __init__(
        self, requests: Requests, domain: str | None, max_bytes: int | None = None
    ) -> None:
        self._requests = requests
        self._max_bytes = max_bytes
        self.prefix = f"$JS.{domain}.API." if domain else "$JS.API."
        # Between domains `$KV.` does not pass; behind the API's prefix the server maps it back.
        self._before_buckets = self.prefix if domain else ""

    async def streams(self) -> list[StreamInfo]:
        """Return the configuration and state of every stream."""
        return [read_stream_info(one) for one in await self._pages("STREAM.LIST", "streams")]

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream, within the account's limits; repeating it changes nothing."""
        while True:
            try:
                return read_stream_info(await self.ask(f"STREAM.CREATE.{config['name']}", config))
            except ApiError as error:
                changed = within_limits(config, error, self._max_bytes)
                if changed is None or changed == config:
                    raise with_advice(error) from error
                config = changed

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Replace a stream's whole configuration."""
        return read_stream_info(await self.ask(f"STREAM.UPDATE.{config['name']}", config))

    async def stream_info(self, stream: str) -> StreamInfo | None:
        """Return one stream, None if there is none."""
        found = await self._ask_or_none(f"STREAM.INFO.{stream}")
        return None if found is None else read_stream_info(found)

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Return every consumer of a stream."""
        found = await self._pages(f"CONSUMER.LIST.{stream}", "consumers")
        return [read_consumer_info(one) for one in found]

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo | None:
        """Return one consumer, None if there is none."""
        found = await self._ask_or_none(f"CONSUMER.INFO.{stream}.{consumer}")
        return None if found is None else read_consumer_info(found)

    async def create_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Create, never update: another version may have been faster (10148)."""
        return await self._write_consumer(stream, config, "create")

    async def update_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Update, never create (10149).

        Once the server was started again, the answer to an update has another ``created`` than
        the consumer (2.15.1): it would seem recreated by an operator, and what is settled would run
        again. So the consumer is read.
        """
        answer = await self._write_consumer(stream, config, "update")
        return await self.consumer_info(stream, answer.name) or answer

    async def pause_consumer(self, stream: str, consumer: str, until: str) -> bool:
        """Deliver nothing until then; return True if it is paused."""
        said = await self.ask(f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": until})
        return bool(said.get("paused"))

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Remove a consumer; no error if it is gone already."""
        await self._ask_or_none(f"CONSUMER.DELETE.{stream}.{consumer}")

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return one stored message by sequence."""
        return await self._stored(stream, {"seq": sequence})

    async def next_message(self, stream: str, sequence: int, filter: str) -> StoredMessage | None:
        """Return the first message from ``sequence`` on that matches."""
        return await self._stored(stream, {"seq": sequence, "next_by_subj": filter})

    async def account(self) -> AccountInfo:
        """Return the account's use of JetStream, and its limits."""
        return read_account(await self.ask("INFO"))

    async def permissions(self) -> Permissions | None:
        """Return the permissions of this login as the server lists them; None if we may not ask."""
        try:
            reply = await self._requests.ask(
                USER_INFO, timeout=FIRST_PATIENCE, accept=_is_the_servers
            )
        except (PermissionDenied, Unanswered):
            return None
        if reply.status:
            return None
        said = json.loads(reply.body).get("data") or {}
        return read_permissions(said.get("permissions") or {})

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last stored message of one subject."""
        return await self._stored(stream, {"last_by_subj": subject})

    async def owner(self, subject: str) -> str | None:
        """Return the stream that stores a subject, None if there is none."""
        found = await self.ask("STREAM.NAMES", {"subject": subject})
        names: list[str] = found.get("streams") or []
        return names[0] if names else None

    async def ask(
        self, verb: str, body: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> dict[str, Any]:
        """Send one API request, repeated while a cluster elects its leader and does not answer.

        A request may arrive twice; requests are idempotent: creating an existing object, or
        deleting a missing one, changes nothing.
        """
        payload = json.dumps(dict(body)).encode() if body is not None else b""
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        patience = FIRST_PATIENCE
        while True:
            left = max(0.01, deadline - now())
            try:
                reply = await self._requests.ask(
                    self.prefix + verb, payload, timeout=min(patience, left), accept=_is_the_apis
                )
                return _checked(verb, reply)
            except Unanswered:
                if left <= patience:
                    raise
                patience = PATIENCE
            except ApiError as error:
                if error.err_code != NO_LEADER:
                    raise
                if left <= LEADER_PAUSE:
                    raise Unanswered(str(error)) from error
                await asyncio.sleep(LEADER_PAUSE)

    async def put(self, subject: str, body: bytes, headers: bytes) -> int:
        """Store one message with its own headers, by request; return its sequence."""
        if subject.startswith("$KV."):
            subject = self._before_buckets + subject
        reply = await self._requests.ask(
            subject, body, headers=headers, timeout=10.0, accept=_is_a_streams
        )
        return int(_checked("a write", reply)["seq"])

    async def _stored(self, stream: str, which: Mapping[str, Any]) -> StoredMessage | None:
        found = await self._ask_or_none(f"STREAM.MSG.GET.{stream}", which, timeout=READ_TIMEOUT)
        if found is None:
            return None
        message = found["message"]
        return StoredMessage(
            stream=stream,
            subject=message["subject"],
            sequence=message["seq"],
            body=base64.b64decode(message.get("data") or ""),
            headers=parse_headers(base64.b64decode(message.get("hdrs") or "")),
            stored_at=nanoseconds(message["time"]),
        )

    async def _ask_or_none(
        self, verb: str, body: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> dict[str, Any] | None:
        try:
            return await self.ask(verb, body, timeout=timeout)
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise

    async def _pages(self, verb: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = await self.ask(verb, {"offset": len(found)})
            found += page.get(key) or []
            if not page.get(key) or len(found) >= page.get("total", 0):
                return found

    async def _write_consumer(
        self, stream: str, config: Mapping[str, Any], action: str
    ) -> ConsumerInfo:
        # The filter is not put into the subject: several of them cannot be, and a permission for
        # CONSUMER.CREATE.<stream>.> covers both.
        made = await self.ask(
            f"CONSUMER.CREATE.{stream}.{config['name']}",
            {"stream_name": stream, "config": dict(config), "action": action},
        )
        return read_consumer_info(made)


def _object(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of an answer, an empty one for anything else."""
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# Another program that subscribes to `>` may reply first; what it says must not end a worker.


def _is_the_apis(reply: Reply) -> bool:
    return bool(reply.status) or str(_object(reply).get("type")).startswith(API_TYPES)


def _is_a_streams(reply: Reply) -> bool:
    answer = _object(reply)
    return (
        bool(reply.status)
        or isinstance(answer.get("error"), dict)
        or ("stream" in answer and isinstance(answer.get("seq"), int))
    )


def _is_the_servers(reply: Reply) -> bool:
    return bool(reply.status) or "server" in _object(reply)


def _checked(verb: str, reply: Reply) -> dict[str, Any]:
    if reply.status == 503:
        raise ApiError(
            "the server has no JetStream here: start it with --jetstream,"
            " or check NATS_JS_DOMAIN and the account",
            code=503,
            err_code=JETSTREAM_OFF[0],
        )
    answer: dict[str, Any] = json.loads(reply.body)
    if error := answer.get("error"):
        raise ApiError(
            f"{verb}: {error.get('description', 'refused')} ({error.get('err_code', 0)})",
            code=error.get("code", 0),
            err_code=error.get("err_code", 0),
        )
    return answer
