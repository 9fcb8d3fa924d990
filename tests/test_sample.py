"""The sample of `make test`: all of what is quick, some of every folder that is not."""

from __future__ import annotations

import pytest

from .sample import ONE_OF, choose, describe, rank, rerun

QUICK = [f"tests/test_wire.py::test_{number}" for number in range(10)]
SLOW = [f"tests/faults/test_once.py::test_{number}" for number in range(10)]
OTHER = [f"tests/faults/test_rights.py::test_{number}" for number in range(10)]
FOLDER = ["tests/dev/test_init.py::test_0"]


def test_all_that_is_quick_and_one_of_a_few_of_each_slow_folder_is_chosen() -> None:
    chosen = choose([*QUICK, *SLOW, *OTHER, *FOLDER])

    assert chosen == {*QUICK, *[*SLOW, *OTHER][::ONE_OF], *FOLDER}


def test_slow_folders_begin_first() -> None:
    assert sorted([*QUICK, *SLOW], key=rank) == [*SLOW, *QUICK]


def test_what_is_left_out_is_counted_by_folder() -> None:
    left = [*SLOW[:3], "tests/cli/test_run.py::test_0"]

    said = describe(left, 20)

    assert said == "4 of 20 tests are left to `make check`: tests/cli 1, tests/faults 3"


def test_a_command_runs_what_failed_again() -> None:
    one = ["tests/test_a.py::test_1[x y]@mypy"]

    again = "  .venv/bin/python -m pytest 'tests/test_a.py::test_1[x y]'"
    assert rerun(one, ".venv/bin/python") == ["To run one again, alone:", again]
    assert rerun([*one, SLOW[0]], ".venv/bin/python") == [
        "To run one again, alone (.venv/bin/python -m pytest --lf: all 2):",
        again,
    ]
    assert rerun([], "python") == []


def test_pytest_xdist_knows_every_group(request: pytest.FixtureRequest) -> None:
    # pytest 9.2 hid them from pytest-xdist 3.8: each process built a wheel of its own.
    if not hasattr(request.config, "workerinput"):
        return
    groups = {item.nodeid: item.get_closest_marker("xdist_group") for item in request.session.items}

    lost = [id for id, group in groups.items() if group and not id.endswith(f"@{group.args[0]}")]
    assert lost == []
