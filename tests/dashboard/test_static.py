"""Static: files from other projects are theirs, to the byte, with their licences."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from omni_worker.dashboard.rendering import STATIC

SUMS = STATIC / "SHA256SUMS"
TEMPLATES = STATIC.parent / "templates"
OURS = {"dashboard.css", "dashboard.js", "theme.js", "icon.svg", SUMS.name}


def sums() -> dict[str, str]:
    rows = [line.split("  ") for line in SUMS.read_text().splitlines() if line[0] != "#"]
    return {name: digest for digest, name in rows}


def test_every_foreign_file_has_its_checksum_and_a_licence() -> None:
    foreign = {path.name for path in STATIC.iterdir()} - OURS

    assert foreign == set(sums())
    assert {name.split(".")[0] for name in foreign if name.endswith(".js")} == {
        name.split(".")[0] for name in foreign if name.endswith(".LICENSE")
    }


@pytest.mark.parametrize("name", sorted(sums()))
def test_a_foreign_file_is_unchanged(name: str) -> None:
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sums()[name]


def test_the_policy_needs_no_exception() -> None:
    """No script evaluates text, no style or handler is in the HTML, and nothing is fetched."""
    for path in STATIC.glob("*.js"):
        assert not re.search(r"\beval\(|new Function|document\.write", path.read_text()), path.name
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle=|\son[a-z]+=|<script>|<style", text), path.name
        assert "| safe" not in text, path.name
        assert not re.search(r"https?://", text), path.name
    assert not re.search(r"url\(|@import", (STATIC / "dashboard.css").read_text())


def test_everything_is_in_the_wheel() -> None:
    suffixes = {path.suffix for folder in (STATIC, TEMPLATES) for path in Path(folder).iterdir()}

    assert suffixes == {".css", ".js", ".svg", ".LICENSE", "", ".html"}
