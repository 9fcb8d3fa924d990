"""`--workers N`: N processes share the work under a parent that starts the dead again."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import time
from contextlib import closing
from typing import Any

from nats.aio.client import Client

from omni_worker.process.supervisor import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Supervisor,
    is_early,
    pause_before,
)
from omni_worker.process.worker import Stop

from ..processes.support import PROGRAM, Stage, clean_environment, publish_foreign, until_settled
from ..waiting import until
from .support import Running, is_alive, probe_fully, until_probed

APP = """
app = App("play")
effect("imported", pid=os.getpid(), parent=os.getppid())


@app.on("message.received", durable="r1")
async def route(event):
    effect("begun", id=event.id, pid=os.getpid())
    if os.path.exists("slow"):
        await asyncio.sleep(2)
    if os.path.exists("block"):
        while not os.path.exists("go-on"):
            time.sleep(0.01)
    await asyncio.sleep(0.002)
    effect("handled", id=event.id, pid=os.getpid())


@app.on("message.sent")
async def audit(event):
    pass
"""


async def run(stage: Stage, *options: str, count: int = 2, source: str = APP) -> Running:
    """A parent, once all its workers are ready."""
    parent = Running(stage, stage.app(source), "--workers", str(count), *options)
    await parent.until_said(f"all {count} workers are ready")
    return parent


def pids(stage: Stage) -> list[int]:
    """Every process that has imported the app, in order."""
    return [one["pid"] for one in stage.effects("imported")]


def by_worker(parent: Running, message: str) -> list[Any]:
    """Which worker said this."""
    return sorted(one["worker"] for one in parent.lines() if message in one["message"])


def test_a_worker_is_started_again_after_a_growing_pause() -> None:
    pauses = [pause_before(early_deaths) for early_deaths in range(12)]

    assert pauses[:5] == [FIRST_PAUSE, 0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE


def test_dying_early_is_dying_before_any_work_was_done() -> None:
    assert is_early(lived=3.0, ready_for=None)
    assert is_early(lived=3.0, ready_for=1.0)
    assert not is_early(lived=90.0, ready_for=None)  # it has tried to reach the server
    assert not is_early(lived=8.0, ready_for=6.0)


async def test_they_share_the_events_and_the_parent_imports_nothing(
    stage: Stage, plain: Client
) -> None:
    parent = await run(stage, count=3)

    ids = await publish_foreign(plain, 300)
    await stage.until_effects(300, "handled")

    assert sorted(stage.ids()) == ids
    assert {one["pid"] for one in stage.effects("handled")} == set(pids(stage))
    assert len(pids(stage)) == 3
    assert {one["parent"] for one in stage.effects("imported")} == {parent.pid}
    assert by_worker(parent, "ready") == ["*", "1", "2", "3"]


async def test_what_every_process_runs_is_said_once(stage: Stage) -> None:
    parent = await run(stage, count=2)

    [line] = [one for one in parent.lines() if "sees every event" in one["message"]]
    assert line["message"].startswith("each of the 2 workers sees every event of play.audit")
    assert line["worker"] == "1"


async def test_a_dead_worker_is_started_again(stage: Stage, plain: Client) -> None:
    parent = await run(stage)
    first, second = pids(stage)

    os.kill(first, signal.SIGKILL)
    await parent.until_said("worker 1 died (killed by SIGKILL); it is started again in 0.5 s")
    await until(lambda: by_worker(parent, "ready").count("1") == 2)

    await publish_foreign(plain, 100)
    await stage.until_effects(100, "handled")
    assert {one["pid"] for one in stage.effects("handled")} == {pids(stage)[2], second}


async def test_the_dead_turn_readiness_red_and_not_the_rest(stage: Stage, free_port: int) -> None:
    await run(stage, "--health-port", str(free_port))
    await until_probed(free_port, "/readyz", 200)

    os.kill(pids(stage)[0], signal.SIGKILL)

    await until_probed(free_port, "/readyz", 503, "worker 1 is not running: killed by SIGKILL")
    await until_probed(free_port, "/healthz", 200)
    await until_probed(free_port, "/readyz", 200)


async def test_a_blocked_worker_turns_the_whole_red(
    stage: Stage, free_port: int, plain: Client
) -> None:
    parent = await run(stage, "--health-port", str(free_port))
    (stage.folder / "block").touch()

    await publish_foreign(plain, 1)
    reasons = await until_probed(free_port, "/healthz", 503)

    [blocked] = stage.effects("begun")
    number = pids(stage).index(blocked["pid"]) + 1
    assert reasons.startswith(f"worker {number}: the event loop is blocked")
    assert "by handler r1 (play.py:" in reasons
    (stage.folder / "go-on").touch()
    await until_probed(free_port, "/healthz", 200)
    assert parent.is_running


async def test_a_stopped_worker_is_missed(stage: Stage, free_port: int) -> None:
    await run(stage, "--health-port", str(free_port))
    one = pids(stage)[1]

    os.kill(one, signal.SIGSTOP)
    try:
        await until_probed(free_port, "/healthz", 503, "worker 2: no word for")
    finally:
        os.kill(one, signal.SIGCONT)

    await until_probed(free_port, "/healthz", 200)


async def test_each_worker_answers_for_itself_on_the_port_of_their_parent(
    stage: Stage, free_port: int
) -> None:
    await run(stage, "--health-port", str(free_port))
    await until_probed(free_port, "/readyz", 200)
    workers = (await answer_of(free_port, "/healthz"))[1]["workers"]

    answers = [await answer_of(free_port, f"/workers/{number}/readyz") for number in (1, 2)]

    assert [(code, said["status"], said["pid"]) for code, said in answers] == [
        (200, "ok", workers["1"]),
        (200, "ok", workers["2"]),
    ]
    assert (await answer_of(free_port, "/workers/3/readyz"))[1]["reasons"] == [
        "no worker 3: there are 1 to 2"
    ]
    code, said = await answer_of(free_port, "/workers")
    assert (code, said["paths"]) == (404, ["/healthz", "/readyz", "/metrics"])


async def test_any_other_path_is_answered_by_a_worker_that_is_ready(
    stage: Stage, free_port: int
) -> None:
    await run(stage, "--health-port", str(free_port))
    first, second = pids(stage)
    number_of_first = (await answer_of(free_port, "/healthz"))[1]["workers"]["1"]
    assert await number_of_answering(free_port) == "1"

    os.kill(number_of_first, signal.SIGSTOP)
    try:

        async def other_answers() -> bool:
            return await number_of_answering(free_port) == "2"

        await until(other_answers)
        code, said = await answer_of(free_port, "/workers/1/healthz")
        assert code == 503
        assert said["reasons"] == ["worker 1 did not answer 'route' within 4 s"]
    finally:
        os.kill(number_of_first, signal.SIGCONT)
    assert {first, second} == set(pids(stage))


async def test_an_extensions_routes_are_served_by_each_worker_and_by_their_parent(
    stage: Stage, free_port: int
) -> None:
    source = """
from omni_worker import Answer, Extension


class Numbers(Extension):
    def routes(self):
        return {"/number": self.number, "/thread": lambda request: Answer(body=b"{}")}

    async def number(self, request):
        asyncio.get_running_loop()  # raises anywhere else
        return Answer(content_type="application/json", body=b'{"pid": %d}' % os.getpid())
"""
    await run(stage, "--health-port", str(free_port), source=source + APP + "app.use(Numbers())\n")
    workers = (await answer_of(free_port, "/healthz"))[1]["workers"]

    answers = [
        await answer_of(free_port, path)
        for path in ("/number", "/workers/2/number", "/workers/2/thread")
    ]

    assert answers == [(200, {"pid": workers["1"]}), (200, {"pid": workers["2"]}), (200, {})]


async def test_a_parent_asks_its_workers_over_the_channel(stage: Stage, plain: Client) -> None:
    target = stage.app(APP)
    stop = Stop()
    supervisor = Supervisor(
        [PROGRAM, "run", target],
        2,
        environment={**clean_environment(), "NATS_URL": stage.url, "PYTHONPATH": str(stage.folder),
                     "EFFECTS": str(stage.folder / "effects.jsonl"), "WORKER": "w"},
        grace=30.0, stop=stop,
        on_ready=lambda: None,
        on_report=lambda _: None,
    )  # fmt: skip
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.ready_workers == (1, 2))
    await publish_foreign(plain, 20)
    await stage.until_effects(20, "handled")
    await until_settled(plain, "r1")

    facts = await supervisor.ask_all("facts")
    unknown = await supervisor.ask_all("dance")

    handled = [
        handler["counts"]["handled"]
        for number in (1, 2)
        for handler in facts[number]["handlers"]
        if handler["handler"] == "r1"
    ]
    assert sorted(one["pid"] for one in facts.values()) == sorted(pids(stage))
    assert (len(handled), sum(handled)) == (2, 20)
    assert [str(one) for one in unknown.values()] == [
        "worker 1: unknown command 'dance'",
        "worker 2: unknown command 'dance'",
    ]
    stop.ask("the test")
    assert await running == 0
    gone = await supervisor.ask_all("facts")
    assert {str(one) for one in gone.values()} == {
        "worker 1 is not running: exit code 0",
        "worker 2 is not running: exit code 0",
    }


async def answer_of(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """A whole answer, waited for as long as a parent waits for a worker."""
    return await asyncio.to_thread(probe_fully, port, path, 10.0)


async def number_of_answering(port: int) -> str | None:
    """Number of the worker that answered a path of theirs."""

    def ask() -> str | None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", "/nothing")
            return connection.getresponse().getheader("Omni-Worker")

    return await asyncio.to_thread(ask)


async def test_those_that_keep_dying_are_given_up(stage: Stage) -> None:
    target = stage.app(APP + "\nos._exit(7)")
    parent = Running(stage, target, "--workers", "2")

    assert await parent.exit(30) == 1

    assert len(pids(stage)) == 5
    assert parent.messages("error") == [
        "worker 1 died 5 times in a row as soon as it was started (exit code 7); giving up"
    ]


async def test_code_that_cannot_be_loaded_is_said_once(stage: Stage) -> None:
    target = stage.app('effect("imported", pid=os.getpid())\ntime.sleep(0.5)\nwrong')
    parent = Running(stage, target, "--workers", "3")

    assert await parent.exit() == 2

    assert len(pids(stage)) == 1
    assert parent.said().count("name 'wrong' is not defined") == 1


async def test_sigterm_lets_every_handler_finish(stage: Stage, plain: Client) -> None:
    parent = await run(stage)
    (stage.folder / "slow").touch()
    ids = await publish_foreign(plain, 10)
    await stage.until_effects(10, "begun")

    assert await parent.stop() == 0

    assert sorted(stage.ids()) == ids
    await until_settled(plain, "r1")
    assert by_worker(parent, "stopped") == ["*", "1", "2"]


async def test_a_ctrl_c_that_reaches_everybody_is_one_request(stage: Stage, plain: Client) -> None:
    parent = await run(stage)
    (stage.folder / "slow").touch()
    ids = await publish_foreign(plain, 10)
    await stage.until_effects(10, "begun")

    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does

    assert await parent.exit() == 0
    assert sorted(stage.ids()) == ids
    assert not [one for one in parent.messages() if "at once" in one]


async def test_a_second_signal_ends_all_of_them_at_once(stage: Stage, plain: Client) -> None:
    parent = await run(stage, source=APP.replace("asyncio.sleep(2)", "asyncio.sleep(60)"))
    (stage.folder / "slow").touch()
    await publish_foreign(plain, 10)
    await stage.until_effects(10, "begun")

    parent.signal(signal.SIGTERM)
    await until(lambda: len(by_worker(parent, "stopping: ")) == 3)
    first = time.monotonic()  # what comes within a second is the same request
    await until(lambda: time.monotonic() - first > 1.2)
    parent.signal(signal.SIGTERM)

    assert await parent.exit() == 130
    assert not any(is_alive(pid) for pid in pids(stage))


async def test_they_end_with_their_parent(stage: Stage) -> None:
    parent = await run(stage)

    parent.kill()

    await until(lambda: not any(is_alive(pid) for pid in pids(stage)))
