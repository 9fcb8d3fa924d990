"""Dead letters: what is written about an event that will not be tried again."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_worker.failures import MAX_ERROR, MAX_TRACEBACK
from omni_worker.letters.read import read_letter
from omni_worker.letters.written import (
    MAX_HEADERS,
    Failure,
    compose,
    letter_id,
    with_body,
    with_reference,
)
from omni_worker.transports.base import StoredMessage
from omni_worker.wire import encode_event, encode_payload

NOW = 1_795_419_310_014
ENVELOPE = {
    "id": "e1", "type": "custom.webhook.github", "payload": {"a": 1}, "timestamp": 5,
    "metadata": {"correlationId": "c", "traceId": "t", "source": "api", "personId": "p"},
}  # fmt: skip
FAILURE = Failure(error="boom", error_type="builtins.ValueError", traceback="…", attempts=4)


def original(**changed: Any) -> StoredMessage:
    usual: dict[str, Any] = {
        "subject": "custom.webhook.github.whatsapp.wa-001", "stream": "CUSTOM", "sequence": 7,
        "stored_at": 1_700_000_000_123_456_789, "body": json.dumps(ENVELOPE).encode(),
        "headers": {"X": ["1", "2"]},
    }  # fmt: skip
    return StoredMessage(**(usual | changed))


def composed(failure: Failure = FAILURE, **changed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return compose(original(**changed), failure, handler="r1", consumer="r1", now=NOW)


def test_a_letter_has_what_others_read_and_what_brings_the_original_back() -> None:
    payload, metadata = composed()

    assert payload == {
        "originalEventId": "e1", "originalEventType": "custom.webhook.github", "error": "boom",
        "retryCount": 3, "timestamp": NOW, "subject": "custom.webhook.github.whatsapp.wa-001",
        "stream": "CUSTOM", "sequence": 7, "storedAt": 1_700_000_000_123, "consumer": "r1",
        "handler": "r1", "errorType": "builtins.ValueError", "traceback": "…",
        "attempts": 4, "headers": {"X": ["1", "2"]}, "retryOf": None,
    }  # fmt: skip
    assert {key: value for key, value in metadata.items() if value is not None} == {
        "correlationId": "c", "traceId": "t", "personId": "p",
        "channelType": "whatsapp", "instanceId": "wa-001",
    }  # fmt: skip


def test_without_correlation_and_trace_the_originals_id_stands_in() -> None:
    body = json.dumps({**ENVELOPE, "metadata": None}).encode()

    _, metadata = composed(body=body, subject="custom.webhook.github")

    assert (metadata["correlationId"], metadata["traceId"]) == ("e1", "e1")
    assert (metadata["channelType"], metadata["instanceId"]) == (None, None)


def test_an_unreadable_event_is_named_by_stream_and_sequence_and_typed_by_its_subject() -> None:
    payload, metadata = composed(body=b"\xff", subject="message.received.whatsapp.wa-001")

    assert payload["originalEventId"] == "CUSTOM:7"
    assert payload["originalEventType"] == "message.received"
    assert (metadata["channelType"], metadata["instanceId"]) == ("whatsapp", "wa-001")


@pytest.mark.parametrize(("attempts", "expected"), [(0, 0), (1, 0), (4, 3)])
def test_the_retry_count_is_the_attempts_without_the_first(attempts: int, expected: int) -> None:
    failure = Failure(error="x", error_type="x", traceback="", attempts=attempts)

    payload, _ = composed(failure)

    assert (payload["retryCount"], payload["attempts"]) == (expected, attempts)


@pytest.mark.parametrize(
    ("written", "read"),
    [({"attempts": 0, "retryCount": 0}, 0), ({"attempts": 4, "retryCount": 3}, 4),
     ({"retryCount": 3}, 4), ({}, 0)],
)  # fmt: skip
def test_how_often_it_ran_is_read_also_from_letters_of_other_programs(
    written: dict[str, int], read: int
) -> None:
    letter = {"id": "l", "type": "system.dead_letter", "timestamp": NOW, "payload": written}

    found = read_letter(original(subject="system.dead_letter", body=json.dumps(letter).encode()))

    assert found.attempts == read


def test_the_same_delivery_and_handler_make_the_same_letter() -> None:
    same = letter_id(original(), "r1")

    assert same == letter_id(original(body=b"other", headers={}), "r1")
    assert uuid.UUID(same).version == 5


@pytest.mark.parametrize(
    ("changed", "handler"),
    [({}, "r2"), ({"stream": "S"}, "r1"), ({"sequence": 8}, "r1"), ({"stored_at": 1}, "r1")],
)
def test_another_handler_stream_sequence_or_time_makes_another_letter(
    changed: dict[str, Any], handler: str
) -> None:
    assert letter_id(original(), "r1") != letter_id(original(**changed), handler)


def test_the_original_bytes_are_kept_as_text_as_base64_or_by_reference() -> None:
    assert with_body({"a": 1}, "olá".encode()) == {"a": 1, "body": "olá"}
    assert with_body({}, b"\xff") == {"bodyBase64": base64.b64encode(b"\xff").decode()}
    assert with_reference({}, "S", 7) == {"bodyRef": {"stream": "S", "sequence": 7}}


@given(
    body=st.binary(max_size=50),
    subject=st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    header=st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    error=st.text(max_size=20),
)
def test_a_letter_about_any_bytes_can_be_published(
    body: bytes, subject: str, header: str, error: str
) -> None:
    failure = Failure.of(ValueError(error + header), attempts=1)
    payload, metadata = composed(failure, body=body, subject=subject, headers={header: [header]})

    written = encode_event(
        id="1", type="system.dead_letter", timestamp=NOW, metadata=metadata,
        content=encode_payload("system.dead_letter", with_body(payload, body)),
    )  # fmt: skip

    letter = json.loads(written)["payload"]
    kept = letter.get("body", "").encode() or base64.b64decode(letter.get("bodyBase64", ""))
    assert body == kept


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def nested(depth: int) -> Exception:
    """A group in a group, deeper than Python's calls may go."""
    error: Exception = ValueError("the real cause")
    for _ in range(depth):
        error = ExceptionGroup("again", [error])
    return error


def doubled(depth: int) -> Exception:
    """A group that is twice in a group, and so on."""
    error: Exception = ValueError("the real cause")
    for _ in range(depth):
        error = ExceptionGroup("twice", [error, error])
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("boom"), "boom"),
        (ValueError(), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Unspeakable(), "its text cannot be read: RuntimeError"),
        (ValueError("\ud800"), "?"),
        (Leaving(), "its text cannot be read: SystemExit"),
        (SyntaxError("of a template", ("page.html", 3, 1, 5)), "of a template (page.html, line 3)"),
        (nested(2_000), "again (1 sub-exception): ValueError: the real cause"),
        (doubled(60), "twice (2 sub-exceptions): ValueError: the real cause"),
    ],
)
def test_a_failure_says_what_happened_whatever_was_raised(error: BaseException, said: str) -> None:
    failure = Failure.of(raised(error), attempts=1)

    assert failure.error == said
    assert failure.error_type.endswith(type(error).__qualname__)
    assert "test_letters" in failure.traceback


def test_no_secret_of_an_exception_is_stored() -> None:
    error = raised(ConnectionError("cannot reach postgres://app:hunter2@db, password=hunter2"))

    failure = Failure.of(error, attempts=1)

    assert failure.error == "cannot reach postgres://***@db, password=***"
    assert "hunter2" not in failure.error + failure.traceback


def test_what_is_long_is_trimmed() -> None:
    headers = {"Small": ["x"], "Large": ["x" * MAX_HEADERS]}
    failure = Failure.of(raised(ValueError("x" * 100_000)), attempts=1)

    payload, _ = composed(failure, headers=headers)

    assert len(payload["error"]) == MAX_ERROR
    assert MAX_TRACEBACK - 2 < len(payload["traceback"]) <= MAX_TRACEBACK
    assert payload["headers"] == {"Small": ["x"]}


def test_a_letter_fits_into_a_message_whatever_the_envelope_holds() -> None:
    large = "x" * 900_000
    hostile = {
        **ENVELOPE, "id": large,
        "metadata": {"correlationId": large, "traceId": large, "personId": large},
    }  # fmt: skip

    payload, metadata = composed(body=json.dumps(hostile).encode())

    assert payload["originalEventId"] == "CUSTOM:7"
    assert len(json.dumps([with_reference(payload, "CUSTOM", 7), metadata])) < 10_000
