"""The cases and their loads: what is asked of whom."""

from __future__ import annotations

import json

import pytest

from benchmarks.case import enough
from benchmarks.cases import ALL, FIRST, named
from benchmarks.jobs import Job, from_json, to_json
from benchmarks.loads import Load, body_of, instance_of, subject_of, types_of
from benchmarks.runner import _scaled, unavailable
from benchmarks.tables import _SHAPES
from omni_worker import Event

from .test_showing import ROOT


def test_names_of_cases_and_of_their_rows_are_unique() -> None:
    names = [case.name for case in ALL]

    assert sorted(set(names)) == sorted(names)
    for case in ALL:
        labels = [one.label for one in case.contenders]
        assert sorted(set(labels)) == sorted(labels)
        assert case.base in ("", *labels)
        assert case.shape in _SHAPES


def test_cases_are_chosen_by_name_and_by_pattern() -> None:
    assert [case.name for case in named(["drain"])] == ["drain"]
    assert {case.name for case in named(["latency-*"])} == {
        "latency-10", "latency-50", "latency-90",
    }  # fmt: skip
    assert [case.name for case in named(list(FIRST))] == list(FIRST)
    with pytest.raises(ValueError, match="no case 'drian'; there are: drain, "):
        named(["drian"])


def test_the_page_has_a_chapter_for_each_case() -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")

    for case in ALL:
        assert f"<!--figures: {case.group}-->" in page


def test_a_slow_system_gets_fewer_events() -> None:
    assert enough(200_000, 1_000_000) == 200_000
    assert enough(200_000, 6_000) == 24_000
    assert enough(200_000, 0.1) == 1


def test_a_job_is_the_same_on_the_other_side() -> None:
    job = Job(system="omni", work="drain", load=Load(events=5, types=3), settings={"each": True})

    assert from_json(to_json(job)) == job


@pytest.mark.parametrize("size", [440, 4_096, 65_536])
def test_events_have_the_size_they_are_said_to_have(size: int) -> None:
    body = body_of(Load(events=1, size=size), 123_456)

    assert len(body) == pytest.approx(size, rel=0.06)
    assert Event[dict[str, object]].model_validate_json(body).type == "message.received"


def test_events_are_spread_over_all_instances_and_types() -> None:
    load = Load(events=1_000, instances=50, types=10)

    spread = {(subject_of(load, number)) for number in range(load.events)}

    assert len(spread) == 50 * 10
    assert len(types_of(load)) == 10
    assert {instance_of(load, number) for number in range(load.events)} == {
        f"wa-{number:04d}" for number in range(50)
    }


def test_a_task_of_taskiq_holds_the_same_event() -> None:
    task = json.loads(body_of(Load(events=1, tasks=True), 7))

    assert task["kwargs"]["event"] == json.loads(body_of(Load(events=1), 7))


def test_a_trial_keeps_the_base_and_asks_for_less() -> None:
    case = _scaled(named(["drain"])[0], 0.1, ["C client"])

    assert [one.label for one in case.contenders] == ["omni-worker", "C client"]
    assert case.contenders[1].job.load.events == 20_000


def test_who_cannot_be_measured_is_told_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.runner.interpreter", lambda: "python")
    monkeypatch.setattr("benchmarks.systems.c_client.shutil.which", lambda name: None)
    monkeypatch.setattr("benchmarks.systems.c_client.BINARY", ROOT / "nowhere" / "client")

    assert unavailable("fast_stream") == "its environment is missing: make bench makes it"
    assert unavailable("c_client") == "no C compiler: apt install gcc libnats-dev"
    assert unavailable("omni") is None
