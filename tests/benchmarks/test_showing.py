"""Tables, page and chart: what is shown of results, and that the docs show the file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.chart import chart_of
from benchmarks.report import rendered
from benchmarks.results import from_plain
from benchmarks.tables import WIDTH, Table, as_markdown, as_text, number, table_of

from .support import measurement, results, row

ROOT = Path(__file__).parents[2]
RESULTS = from_plain(json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8")))


def test_figures_have_three_digits_that_say_something() -> None:
    assert [number(each) for each in (12345.6, 123.4, 12.34, 1.234)] == [
        "12 346", "123", "12.3", "1.23",
    ]  # fmt: skip


def test_a_table_sets_each_row_beside_ours() -> None:
    case = measurement(loop=row(4.0), omni_worker=row(2.0))
    case.rows["loop"].rounds[0]["cpu"] *= 3

    assert as_text(table_of(case)).splitlines() == [
        "Drain",
        "             events  events/s    ours  spread  CPU µs    ours  server",
        "loop          1 000       250  2.00 ×   ± 0 %    30.0  3.00 ×    5.00",
        "omni-worker   1 000       500  1.00 ×   ± 0 %    10.0  1.00 ×    5.00",
        "One round.",
    ]


def test_delays_are_shown_in_milliseconds_beside_the_raw_consumer() -> None:
    delays = {"rate": 10_000.0, "p50": 400.0, "p99": 2_000.0, "p999": 150_000.0}
    case = measurement(base="pull", shape="latency", pull=row(1.0, **delays))
    case.rows["omni-worker"] = row(1.0, **{**delays, "p50": 440.0})

    assert table_of(case).rows == (
        ("pull", "10 000", "0.40", "2.00", "150"),
        ("omni-worker", "10 000", "0.44 (1.10 ×)", "2.00 (1.00 ×)", "150 (1.00 ×)"),
    )


def test_what_is_wrong_with_figures_is_said_beneath_them() -> None:
    case = measurement(omni_worker=row(1.0, 1.0, others=0.8))
    case.missing["C client"] = "no libnats: apt install libnats-dev"
    case.failed["FastStream"] = "999 handled, 1000 expected"
    case.scale = 0.1

    assert table_of(case).notes == (
        "Medians of 2 rounds. A trial with 0.1 of the events.",
        "C client is left out: no libnats: apt install libnats-dev.",
        "FastStream failed: 999 handled, 1000 expected",
        "Noisy: other processes used up to 0.8 cores at the same time.",
    )


def test_a_quiet_machine_is_not_called_noisy() -> None:
    assert table_of(measurement(omni_worker=row(1.0, others=0.1))).notes == ("One round.",)


def test_markdown_aligns_figures_to_the_right() -> None:
    table = Table("Drain", ("", "events/s"), (("ours", "1 000"), ("theirs", "9")), ("Noted.",))

    assert as_markdown(table) == (
        "**Drain**\n\n"
        "|        | events/s |\n"
        "| ------ | -------: |\n"
        "| ours   |    1 000 |\n"
        "| theirs |        9 |\n"
        "\nNoted."
    )


def test_only_what_is_marked_in_the_page_is_written() -> None:
    page = "before\n<!--figures: drain-->\nold\n<!--end: drain-->\nafter\n"

    once = rendered(page, results(drain=measurement(omni_worker=row(1.0))))
    twice = rendered(once, results(drain=measurement(omni_worker=row(1.0))))

    assert once.startswith("before\n<!--figures: drain-->\n\n**Drain**")
    assert once.endswith("<!--end: drain-->\nafter\n")
    assert "old" not in once
    assert once == twice


def test_a_part_that_is_not_measured_says_so() -> None:
    page = "<!--figures: latency-->\n<!--end: latency-->"

    assert "Not measured yet." in rendered(page, results())


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("<!--figures: drain-->\nwithout end", "<!--end: drain-->"),
        ("no mark at all", "<!--figures: drain-->"),
    ],
)
def test_a_mark_that_is_missing_is_named(page: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rendered(page, results(drain=measurement(omni_worker=row(1.0))))


def test_a_bar_is_as_long_as_its_rate() -> None:
    case = measurement(slow=row(4.0), omni_worker=row(1.0))

    picture = ElementTree.fromstring(chart_of(results(drain=case)))

    bars = [
        float(each.attrib["width"]) for each in picture.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert bars[1] / bars[0] == pytest.approx(4, rel=0.02)


def test_a_name_in_the_chart_cannot_break_it() -> None:
    case = measurement(omni_worker=row(1.0))
    case.title = "<Drain> & more"

    assert "<Drain>" not in chart_of(results(drain=case))
    ElementTree.fromstring(chart_of(results(drain=case)))


def test_every_table_fits_a_terminal() -> None:
    wide = [
        line
        for case in RESULTS.cases.values()
        for line in as_text(table_of(case)).splitlines()[1 : -len(table_of(case).notes)]
        if len(line) > WIDTH
    ]

    assert wide == []


def test_the_docs_show_the_results_file_and_nothing_else() -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    picture = (ROOT / "docs" / "pictures" / "performance.svg").read_text("utf-8")

    assert rendered(page, RESULTS) == page, "python -m benchmarks render"
    assert chart_of(RESULTS) == picture, "python -m benchmarks render"
