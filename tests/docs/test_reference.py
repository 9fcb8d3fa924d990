"""The reference is whole: what the code takes is in the docs, with a word about it."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import click
import pytest

import omni_worker
from docs.hooks import reference
from omni_worker import Settings, payloads, testing
from omni_worker.options import OPTIONS
from omni_worker.payloads import CORE_PAYLOADS

from ..test_house import ROOMS
from .blocks import PAGES, ROOT

PICTURES = ROOT / "docs" / "pictures"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_there_with_its_meaning(name: str) -> None:
    field = Settings.model_fields[name]

    assert field.description
    assert f"| `{reference.variable(name, field)}` |" in reference.settings()
    assert field.description in reference.settings()


@pytest.mark.parametrize("path", [path for path, _ in reference.walk(reference.main)][1:])
def test_a_command_is_there_with_every_option(path: str) -> None:
    command = dict(reference.walk(reference.main))[path]
    level = "#" * len(path.split())

    _, _, below = reference.commands().partition(f"{level} {path}\n")
    section = re.split(r"^#+ ", below, maxsplit=1, flags=re.MULTILINE)[0]

    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help
            assert option.opts[-1] in section


def test_every_core_type_and_every_option_of_a_handler_is_there() -> None:
    assert all(f"`{type}`" in reference.core_events() for type in CORE_PAYLOADS)
    assert set(OPTIONS) <= words(reference.options())


def test_every_public_name_is_in_the_page_of_python_or_explained_elsewhere() -> None:
    shown = set(re.findall(r"^::: [\w.]+\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE))
    named = {
        name for page in ("api", "events", "extensions") for name in words(PAGES[f"docs/{page}.md"])
    }

    assert set(omni_worker.__all__) - set(payloads.__all__) - shown - named == set()
    assert set(testing.__all__) - shown - named == set()


def test_a_message_that_troubleshooting_explains_is_one_of_ours() -> None:
    rows = re.findall(r"^\| \*(.+?)\* \|", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "omni_worker").rglob("*.py"))

    assert rows
    for piece in (piece.strip() for row in rows for piece in row.split("…")):
        assert piece in code


def test_every_part_is_in_a_page() -> None:
    marks = re.findall(r"^<!-- ([a-z ]+) -->$", "\n".join(PAGES.values()), re.MULTILINE)

    assert sorted(marks) == sorted(reference.PARTS)


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "<!-- end: " in text])
def test_a_part_in_a_page_is_what_the_code_says_now(page: str) -> None:
    is_fresh = PAGES[page] == reference.filled(PAGES[page])

    assert is_fresh, f"{page} is of an older version of the code; run: make reference"


@pytest.mark.parametrize("name", ["delivery", "house", "journey"])
def test_a_picture_says_what_is_in_it_to_who_cannot_see_it(name: str) -> None:
    picture = ElementTree.parse(PICTURES / f"{name}.svg").getroot()

    assert picture.get("aria-labelledby") == f"{name}-title {name}-text"
    assert [element.get("id") for element in picture[:2]] == [f"{name}-title", f"{name}-text"]
    assert all(element.text for element in picture[:2])


def test_the_picture_of_the_house_has_its_floors_in_the_order_of_the_imports() -> None:
    picture = (PICTURES / "house.svg").read_text()
    named = re.findall(r'class="name" x="[\d.]+" y="(\d+)">(\w+)<', picture)
    floors: dict[int, list[int]] = {}
    for height, room in named[1:]:  # the first is on the roof
        path = f"transports.{room}" if room in ("base", "memory", "jetstream") else room
        floors.setdefault(int(height), []).append(ROOMS.index(path))

    above = sorted(floors.items())
    assert len(above) == 9
    for (_, upper), (_, lower) in itertools.pairwise(above):
        assert min(upper) > max(lower)


def words(text: str) -> set[str]:
    """What stands in backticks."""
    return set(re.findall(r"`(\w+)`", text))
