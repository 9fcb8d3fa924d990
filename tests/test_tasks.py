"""Tasks: a name is made and read in one room."""

from __future__ import annotations

from omni_worker import tasks


def test_our_own_names_are_told_from_others() -> None:
    names = [tasks.own("guard"), tasks.of_handler("r1"), tasks.KEEPER, "Task-1", "omni-workers"]

    assert [tasks.is_own(name) for name in names] == [True, True, True, False, False]


def test_a_handlers_task_is_shown_as_the_handler_and_others_as_they_are() -> None:
    assert tasks.shown(tasks.of_handler("r1")) == "handler r1"
    assert tasks.shown(tasks.KEEPER) == tasks.KEEPER
    assert tasks.shown("Task-1") == "Task-1"
