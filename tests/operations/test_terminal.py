"""What only somebody at a terminal sees: progress, questions, a picture that is drawn again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer

from .conftest import MANY
from .support import Terminal, on_a_terminal, operate

APP = """
from omni_worker import App, Event

app = App("shop")


@app.on("custom.order", durable="orders", start_from="first")
async def order(event: Event) -> None:
    print("shipped", event.id)


@app.on("message.received", durable="counter")
async def count(event: Event) -> None:
    if event.id.endswith("999"):
        print("counted", event.id)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


async def an_order(url: str) -> None:
    async with EventBus(url, name="t") as bus:
        await bus.publish("custom.order", {}, id="o-1")


# --- progress -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "what", "at_least"),
    [
        ("trace no-such-event", "messages read:", 2 * MANY),
        ("dead-letters list", "dead letters read:", MANY),
        ("dead-letters show no-such-letter", "dead letters read:", MANY),
        ("dead-letters discard --error nothing-like-it", "dead letters read:", MANY),
    ],
)
def test_what_takes_long_says_how_far_it_is(
    large_server: NatsServer, folder: Path, command: str, what: str, at_least: int
) -> None:
    _, shown = on_a_terminal(large_server.url, folder, *command.split())

    said = re.findall(rf"\r\x1b\[K{what} ([\d ]+) of ([\d ]+) \((\d+) %\)", shown)
    done = [int(one[0].replace(" ", "")) for one in said]
    shares = [int(one[2]) for one in said]
    assert len(said) > 2
    assert {int(one[1].replace(" ", "")) >= at_least for one in said} == {True}
    assert done == sorted(done)
    assert 0 <= shares[0] < 50 < shares[-1] <= 100
    # The line is gone before anything else is written.
    for rest in shown.split(what)[1:]:
        assert re.match(r" [\d ]+ of [\d ]+ \(\d+ %\)\r\x1b\[K", rest)


def test_what_a_handler_prints_stands_on_lines_of_its_own(
    large_server: NatsServer, folder: Path
) -> None:
    _, shown = on_a_terminal(
        large_server.url, folder,
        *["replay", "shop:app", "--handler", "counter", "--since", "1d", "--dry-run"],
    )  # fmt: skip

    printed = [line for line in shown.split("\n") if "counted" in line]
    assert f" of {MANY // 1000} 000 (" in shown
    assert len(printed) == MANY // 1000
    for line in printed:
        assert re.fullmatch(r"(.*\r\x1b\[K)?counted event-\d*999", line)


# --- questions ----------------------------------------------------------------------------------

QUESTION = "replay shop:app --handler orders --since 1h"


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
async def test_yes_goes_on(nats_server: NatsServer, folder: Path, answer: str) -> None:
    await an_order(nats_server.url)

    with Terminal(nats_server.url, folder, *QUESTION.split()) as terminal:
        terminal.until("Continue? [y/N]")
        terminal.type(answer)
        code = terminal.ended()

    assert code == 0
    assert "shipped o-1" in terminal.shown
    assert [line for line in terminal.shown.split("\n") if len(line) > 80] == []


@pytest.mark.parametrize("answer", ["n\n", "\n", "perhaps\n", "\x04"])
async def test_anything_else_does_nothing(
    nats_server: NatsServer, folder: Path, answer: str
) -> None:
    await an_order(nats_server.url)

    with Terminal(nats_server.url, folder, *QUESTION.split()) as terminal:
        terminal.until("Continue? [y/N]")
        terminal.type(answer)
        code = terminal.ended()

    assert code == 1
    assert "shipped" not in terminal.shown
    assert "Nothing was replayed" in terminal.shown


async def test_ctrl_c_at_a_question_ends_at_once(nats_server: NatsServer, folder: Path) -> None:
    await an_order(nats_server.url)

    with Terminal(nats_server.url, folder, *QUESTION.split()) as terminal:
        terminal.until("Continue? [y/N]")
        terminal.type("\x03")
        code = terminal.ended(timeout=10)  # nobody presses Enter

    assert code == 130
    assert "Traceback" not in terminal.shown
    assert "Fatal" not in terminal.shown
    assert "shipped" not in terminal.shown


# --- a picture that is drawn again --------------------------------------------------------------


async def test_watch_draws_again_in_the_same_place(nats_server: NatsServer, folder: Path) -> None:
    await an_order(nats_server.url)
    operate(nats_server.url, "plan", "shop:app", "--apply", folder=folder)

    with Terminal(nats_server.url, folder, "status", "--watch") as terminal:
        terminal.until("is one running?")
        async with EventBus(nats_server.url, name="t") as bus:
            for _ in range(41):
                await bus.publish("custom.order", {})
        terminal.until(" 42 ")
        terminal.type("\x03")
        code = terminal.ended()

    first, *later = terminal.shown.split("\x1b[H")[1:]
    assert code == 130
    assert "Ctrl-C ends" in later[-1]
    assert first.startswith("\x1b[2J")  # cleared once; what stood above it can be scrolled to
    assert "\x1b[2J" not in "".join(later)
    assert "\x1b[3J" not in terminal.shown
    for line in later[-1].replace("\x1b[K", "").replace("\x1b[J", "").split("\n"):
        assert len(line) <= 80


async def test_watch_shows_what_fits_the_window(nats_server: NatsServer, folder: Path) -> None:
    async with EventBus(nats_server.url, name="t") as bus:
        for number in range(30):
            await bus.subscribe("custom.n", _pass, durable=f"d{number}")

        with Terminal(nats_server.url, folder, "status", "--watch") as terminal:
            terminal.until("enlarge the window")
            terminal.type("\x03")
            terminal.ended()

    picture = terminal.shown.split("\x1b[H")[2].partition("\x1b[J")[0]
    assert picture.count("\n") <= 24


async def _pass(event: object) -> None:
    pass
