"""The reference is whole: what the code takes is in the docs, with a word about it."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import click
import pytest

from docs.hooks import reference
from omni_worker import Settings
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
        if isinstance(option, click.Option):
            assert option.help
            assert option.opts[-1] in section


def test_every_core_type_and_every_option_of_a_handler_is_there() -> None:
    assert all(f"`{type}`" in reference.core_events() for type in CORE_PAYLOADS)
    assert set(OPTIONS) <= words(reference.options())


def test_the_tables_of_the_readme_are_found() -> None:
    assert "| `ConfigError` |" in reference.errors()
    assert reference.errors().count("\n\n") == 0


def test_the_options_in_the_readme_are_those_of_the_table() -> None:
    assert f"\n{reference.options()}\n\n" in reference.README.read_text("utf-8")


def test_every_part_is_in_a_page() -> None:
    marks = re.findall(r"^<!-- (.+) -->$", "\n".join(PAGES.values()), re.MULTILINE)

    assert sorted(marks) == sorted(reference.PARTS)


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
