"""Real runs, of a few events: what is counted, what is verified, and how a failure looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import protocols
from benchmarks.case import FETCH, OMNI, Case, Contender, draining
from benchmarks.jobs import Job
from benchmarks.loads import Load
from benchmarks.processes import ROOT, Code, Failed, Measured, interpreter
from benchmarks.protocols import drained, published, relayed, shared
from benchmarks.runner import run
from benchmarks.stage import Stage
from benchmarks.tables import as_text, table_of
from benchmarks.versions import Version, compare, contender, shown, version

FEW = Load(events=60)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.keep(set())


def job(work: str, system: str = "omni", load: Load = FEW) -> Job:
    return Job(system=system, work=work, load=load)


def test_a_case_is_measured_by_rounds_and_shown() -> None:
    case = Case(
        name="few",
        title="A few events",
        contenders=tuple(draining(FEW, (FETCH, OMNI))),
        base=OMNI.label,
        group="drain",
    )
    said: list[str] = []

    [(name, found)] = run([case], 2, scale=1.0, only=[], say=said.append)

    assert name == "few"
    assert [len(row.rounds) for row in found.rows.values()] == [2, 2]
    assert all(one["handled"] == FEW.events for row in found.rows.values() for one in row.rounds)
    assert all(one["cpu"] > 0 for row in found.rows.values() for one in row.rounds)
    assert as_text(table_of(found)).splitlines()[2].startswith("fetch(500) loop      60")
    assert len(said) == 1 + 4


@pytest.mark.parametrize("protocol", [shared(1), shared(2)])
def test_processes_share_a_load(stage: Stage, protocol: protocols.Protocol) -> None:
    assert protocol(stage, job("drain"))["handled"] == FEW.events


def test_what_is_published_is_stored(stage: Stage) -> None:
    each = replace(job("publish"), settings={"each": True})

    assert published(stage, each)["handled"] == FEW.events


@pytest.mark.parametrize("system", ["omni", "nats_py"])
def test_what_a_handler_publishes_is_stored_in_every_round(stage: Stage, system: str) -> None:
    """The ids are the same in each: the server has to forget them in between."""
    for _ in range(2):
        assert relayed(stage, job("relay", system))["handled"] == FEW.events


def test_more_in_the_stream_than_was_handled_is_a_failure(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "needed", lambda job: FEW)
    monkeypatch.setattr(protocols, "_LAST_ACKS", 0.5)

    with pytest.raises(Failed, match=r"60 handled, 59 expected|left without an ack"):
        drained(stage, job("drain", load=Load(events=59)))


def test_fewer_stored_than_published_is_a_failure() -> None:
    with pytest.raises(Failed, match="omni: 300 stored, 301 expected"):
        protocols.check(job("publish"), "stored", 300, 301)


def test_a_contender_that_fails_is_named_and_the_others_go_on() -> None:
    broken = Contender(label="broken", job=job("no_such_work"))
    case = Case(
        name="few",
        title="A few events",
        contenders=(broken, *draining(FEW, (OMNI,))),
        base=OMNI.label,
        group="drain",
    )

    [(_, found)] = run([case], 2, scale=1.0, only=[], say=lambda line: None)

    assert "no_such_work" in found.failed["broken"]
    assert list(found.rows) == [OMNI.label]
    assert len(found.rows[OMNI.label].rounds) == 2


def test_a_process_that_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes.PATIENCE", 1.0)
    monkeypatch.setattr("benchmarks.processes.command", lambda job: ["cat"])

    with Measured(job("drain")) as process, pytest.raises(Failed, match="no answer within 1 s"):
        process.ready()


def test_an_older_version_is_measured_beside_this_one() -> None:
    with version("HEAD") as older:
        assert older.code.folder != ROOT
        both = [older, Version("this one", Code(ROOT, interpreter()))]

        compare("drain", both, rounds=2, scale=FEW.events / 200_000)

        older_line, own_line = shown("drain", both)
    assert [len(one.micros) for one in both] == [2, 2]
    assert older_line.count("1.00 ×") == 2
    assert own_line.split()[:2] == ["drain", "this"]
    assert max(map(len, (older_line, own_line))) < 80


def test_of_a_case_with_many_rows_our_largest_is_compared() -> None:
    assert contender("drain").label == OMNI.label
    assert contender("handlers").label == f"{OMNI.label}, 100"
    with pytest.raises(ValueError, match="drain-instances has no row of omni-worker"):
        contender("drain-instances")
