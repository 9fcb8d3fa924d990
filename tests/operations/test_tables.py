"""Tables: whatever is in them, they fit the terminal, align, and nothing is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_worker.cli.tables import ago, counted, facts, grouped, lasting, table, wrapped
from omni_worker.listeners.text import columns_of

HEAD = ["#", "AGE", "TYPE", "HANDLER", "TRIES", "ERROR"]
RIGHT = (0, 4)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def letters(*rows: list[object]) -> list[str]:
    return table(HEAD, rows, right=RIGHT)


def test_what_fits_is_one_line_a_row() -> None:
    lines = letters(
        [1, "3 min", "message.received", "r1", 4, "no such chat"],
        [200, "1 d", "a.b", "r2", "-", "x"],
    )

    assert lines == [
        "  #  AGE    TYPE              HANDLER  TRIES  ERROR",
        "  1  3 min  message.received  r1           4  no such chat",
        "200  1 d    a.b               r2           -  x",
    ]


def test_a_long_text_goes_on_in_its_column() -> None:
    error = "the chat 4711 is closed and will not be opened again, says the service"

    lines = letters([1, "3 min", "message.received", "whatsapp-router", 4, error])

    assert lines[1:] == [
        "1  3 min  message.received  whatsapp-router      4  the chat 4711 is closed and",
        "                                                    will not be opened again,",
        "                                                    says the service",
    ]


def test_a_whole_text_that_does_not_fit_beside_its_row_stands_under_it_on_one_line() -> None:
    error = "SchemaMismatch: custom.order.placed: payload.customer: Input is no string"
    row = ["56 s", "custom.order.placed", "place (orders)", "-"]

    fits = table(HEAD, [[1, *row, "x"]], right=RIGHT, is_whole=True)
    does_not = table(HEAD, [[1, *row, "x"], [2, *row, error]], right=RIGHT, is_whole=True)

    assert fits[1:] == ["1  56 s  custom.order.placed  place (orders)      -  x"]
    assert does_not == [
        "#  AGE   TYPE                 HANDLER         TRIES  ERROR",
        "1  56 s  custom.order.placed  place (orders)      -",
        "    x",
        "2  56 s  custom.order.placed  place (orders)      -",
        f"    {error}",
    ]


def test_beside_long_names_the_text_stands_under_its_row() -> None:
    handler = "orders.shop.place-1a2b3c4d"

    lines = letters([1, "3 min", "custom.webhook.github.push", handler, 4, "no such chat " * 8])

    assert handler in lines[2]
    assert lines[3].startswith("    no such chat")
    assert [line for line in lines if len(line) > 80] == []


def test_names_too_long_for_any_terminal_are_broken_and_can_be_read_whole() -> None:
    name = "".join(f"{number:04}" for number in range(32))

    lines = table(["STREAM", "CONSUMER", "WAITING"], [["MESSAGE", name, "1 000 000"]], right=(2,))

    assert [line for line in lines if len(line) > 80] == []
    assert lines[1].endswith("  1 000 000")
    pieces = [line.removeprefix("MESSAGE").removesuffix("1 000 000").strip() for line in lines[1:]]
    assert "".join(pieces) == name


@given(
    st.lists(
        st.lists(st.text("abc._ 漢", max_size=60), min_size=4, max_size=4), min_size=1, max_size=4
    )
)
def test_no_letter_is_lost_and_no_line_too_wide(rows: list[list[str]]) -> None:
    lines = table(["A", "B", "C", "D"], rows)

    assert [line for line in lines if len(line) > 80] == []
    wanted = "ABCD" + "".join(cell for row in rows for cell in row)
    assert sorted("".join(lines).replace(" ", "")) == sorted(wanted.replace(" ", ""))


def test_facts_leave_out_what_nobody_said() -> None:
    assert facts([("event", "e-1"), ("correlation", None), ("type", ""), ("from", 0)]) == [
        "event  e-1",
        "from   0",
    ]


def test_words_stay_whole_to_be_copied() -> None:
    url = "x" * 100

    assert wrapped(f"see {url} there", first="  ") == ["  see", f"  {url}", "  there"]


LONG = "x" * 90


@pytest.mark.parametrize(
    "word",
    [
        f"https://a.b/{LONG}?d=e&f=%20#g", f"message.received.whatsapp.{LONG}",
        f'"~/{LONG}/c.py:12",', f"<{LONG}@b>.",
    ],
)  # fmt: skip
def test_what_people_copy_stays_whole(word: str) -> None:
    assert wrapped(f"see {word} there", first="  ") == ["  see", f"  {word}", "  there"]


@pytest.mark.parametrize("word", ['{"key":1}' * 30, "f(a)['b']" * 30, "é" * 200, "漢" * 100])
def test_words_nobody_copies_are_broken(word: str) -> None:
    lines = wrapped(f"see {word} there", first="  ")

    assert [line for line in lines if columns(line) > 80] == []
    assert "".join("".join(lines).split()) == f"see{word}there"


def test_a_wide_character_takes_two_columns() -> None:
    assert wrapped("漢字 " * 20) == ["漢字 " * 15 + "漢字", "漢字 漢字 漢字 漢字"]


def columns(line: str) -> int:
    return sum(map(columns_of, line))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (0.4, "0 s"), (59, "59 s"), (99, "99 s"), (100, "2 min"), (7199, "120 min"),
     (7200, "2 h"), (172_799, "48 h"), (172_800, "2 d"), (8_640_000, "100 d")],
)  # fmt: skip
def test_a_length_of_time_is_that_of_people(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


def test_numbers_are_grouped_and_counted() -> None:
    assert (grouped(1_234_567), counted(1, "event"), counted(2_000, "event"), ago(None)) == (
        "1 234 567", "1 event", "2 000 events", "-",
    )  # fmt: skip
