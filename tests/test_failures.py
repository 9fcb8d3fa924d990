"""Failures: an exception as text says what happened and where, and never hurts the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import InvalidPayload, Reject, Retry
from omni_worker.failures import (
    MAX_ERROR,
    MAX_TRACEBACK,
    failure_line,
    place_of,
    traceback_text,
    whole_text,
)
from omni_worker.schemas import SchemaRegistry


class Shop:
    """Code of a user's."""

    def amount(self, payload: dict[str, int]) -> int:
        """Raise a KeyError, here."""
        return payload["amount"]


def raised(call: Callable[[], Any]) -> BaseException:
    """The exception that a call raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError


def test_a_line_names_class_text_and_place() -> None:
    error = raised(lambda: Shop().amount({}))

    line = failure_line(error)

    assert line == f"KeyError: 'amount' (tests/test_failures.py:{line_of('amount')} in Shop.amount)"


def line_of(name: str) -> int:
    """The line in which a method of the shop raises."""
    code: Any = getattr(Shop, name).__code__
    return int(code.co_firstlineno) + 2


def test_the_place_is_the_users_line_that_called_a_library() -> None:
    def parse() -> None:
        json.loads("{")

    assert place_of(raised(parse)).endswith(" in parse")


def test_a_retry_says_what_it_was_raised_for() -> None:
    def ask() -> None:
        try:
            raise ConnectionError("429 from the model")
        except ConnectionError:
            raise Retry(after=2) from None

    def ask_again() -> None:
        try:
            raise ConnectionError("429 from the model")
        except ConnectionError:
            raise Retry(after=2)  # noqa: B904

    hidden, shown = raised(ask), raised(ask_again)

    assert "429" not in failure_line(hidden)
    assert ", because of ConnectionError: 429 from the model (tests/" in failure_line(shown)
    assert ", because of ConnectionError: 429 from the model" in whole_text(shown)


def test_a_group_says_what_is_in_it() -> None:
    async def fetch(number: int) -> None:
        raise OSError(f"inner {number}")

    async def many() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(fetch(number))

    line = failure_line(raised(lambda: asyncio.run(many())))

    assert line.startswith("ExceptionGroup: unhandled errors in a TaskGroup (5 sub-exceptions)")
    assert line.count("OSError: inner") == 3
    assert line.endswith("; …")


def test_a_traceback_has_no_frame_of_ours() -> None:
    def publish() -> None:
        SchemaRegistry().register("message received", BaseModel)

    error = raised(publish)

    assert "in publish" in traceback_text(error)
    assert "omni_worker/schemas.py" not in traceback_text(error)
    assert "omni_worker/schemas.py" in traceback_text(error, whole=True)


def test_neither_a_payload_nor_a_secret_is_shown() -> None:
    class Number(BaseModel):
        text: int

    def read() -> None:
        password = "password=hunter2"
        try:
            Number.model_validate({"text": "a very private word"})
        except ValueError as error:
            raise InvalidPayload(password) from error

    error = raised(read)
    said = failure_line(error) + traceback_text(error) + whole_text(error)

    assert "int_parsing" in said
    assert "private" not in said.replace('{"text": "a very private word"}', "")  # a line of code
    assert "InvalidPayload: password=***" in said


class Broken(Exception):
    """Nothing of it can be read."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError


def chained(depth: int) -> BaseException:
    """An exception with a long chain of causes."""
    error: BaseException = ValueError("the first")
    for number in range(depth):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


def doubled(depth: int) -> BaseException:
    """A group with 2 ** depth exceptions in it, all the same one."""
    error: Exception = ValueError("the real cause")
    for _ in range(depth):
        error = ExceptionGroup("twice", [error, error])
    return error


@pytest.mark.parametrize(
    "error",
    [Broken(), chained(50_000), doubled(60), ValueError("\n" * 3_000_000), Reject("\x1b[2J\ud800")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_its_text_is_short(error: BaseException) -> None:
    def fail() -> None:
        raise error

    caught = raised(fail)

    assert len(failure_line(caught)) <= 2 * MAX_ERROR
    assert "\n" not in failure_line(caught)
    assert len(whole_text(caught)) <= MAX_ERROR
    assert len(traceback_text(caught)) <= MAX_TRACEBACK
