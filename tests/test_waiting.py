"""Waiting: a condition that comes is enough; one that does not is named, with what was seen."""

from __future__ import annotations

import asyncio

import pytest

from .waiting import NotInTime, until, wait_until


async def test_a_condition_is_waited_for() -> None:
    seen: list[int] = []
    asyncio.get_running_loop().call_later(0.01, seen.append, 1)

    await until(lambda: seen)

    assert seen == [1]


async def test_a_coroutine_function_is_asked_again() -> None:
    answers = [False, False, True]

    async def next_answer() -> bool:
        return answers.pop(0)

    await until(next_answer)

    assert answers == []


async def test_a_wait_in_vain_shows_the_condition_and_its_last_answer() -> None:
    seen: list[int] = []

    with pytest.raises(NotInTime) as raised:
        await until(lambda: seen, 0.01)

    assert str(raised.value) == "not within 0.01 s: await until(lambda: seen, 0.01)\nlast seen: []"


async def test_a_question_that_is_never_answered_is_given_up() -> None:
    with pytest.raises(NotInTime, match=r"an answer\nlast seen: silence"):
        await until(asyncio.Event().wait, 0.01, what="an answer", seen=lambda: "silence")


async def test_a_timeout_of_the_condition_itself_is_its_own() -> None:
    async def ask() -> bool:
        raise TimeoutError("the server said nothing")

    with pytest.raises(TimeoutError, match="the server said nothing"):
        await until(ask)


def test_without_a_loop_a_wait_in_vain_reports_the_same() -> None:
    with pytest.raises(NotInTime, match=r"not within 0.01 s: the end\nlast seen: 0"):
        wait_until(lambda: 0, 0.01, what="the end")
