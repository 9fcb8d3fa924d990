"""Gitignore: what git says, we say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from omni_worker.cli.dev.gitignore import Ignored

PATHS = [
    "app.py",
    "build/app.py",
    "build/deep/app.py",
    "src/build/app.py",
    "src/app.py",
    "src/keep.py",
    "src/a/b/app.py",
    "#odd.py",
    "!odd.py",
    "app.pyc",
    "a[1].py",
    "src/generated_x.py",
]

RULES = [
    "build/",
    "/build/",
    "build",
    "*.pyc",
    "*.py",
    "*.py\n!keep.py",
    "src/\n!src/keep.py",
    "src/*\n!src/keep.py",
    "**/app.py",
    "src/**",
    "src/**/app.py",
    "/src/*.py",
    "src/a",
    "a/b/",
    "# a comment\n\n",
    r"\#odd.py",
    r"\!odd.py",
    "generated_?.py",
    "a[[]1].py",
    "app.p[!y]*",
    "deep/  ",
    "[",
    "*\n!*/\n!*.py",  # from here on the library pathspec disagrees
    "src/a\nsrc/**\n*\n!src/**",
    "build\n!/src\na/",
    "*/\n!/src\n!*.py",
]


@pytest.mark.parametrize("rules", RULES)
def test_a_path_is_ignored_when_git_ignores_it(rules: str, tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": rules})

    assert git(tmp_path) == ours(tmp_path)


def test_a_deeper_gitignore_has_the_last_word(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*.py\n", "src/.gitignore": "!app.py\na/\n"})

    assert git(tmp_path) == ours(tmp_path)


def test_a_changed_gitignore_counts_from_then_on(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*.pyc\n"})
    ignored = Ignored()
    before = ignored.holds(tmp_path / "app.py")

    (tmp_path / ".gitignore").write_text("*.pyc\n*.py\n")

    assert (before, ignored.holds(tmp_path / "app.py")) == (False, True)


def make(folder: Path, rules: dict[str, str]) -> None:
    """A repository with every path, and these rules."""
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for path in PATHS:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    for path, text in rules.items():
        (folder / path).write_text(text)


def git(folder: Path) -> set[str]:
    """What git ignores."""
    said = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=folder,
        input="\0".join(PATHS),
        capture_output=True,
        text=True,
        check=False,
    )
    return set(filter(None, said.stdout.split("\0")))


def ours(folder: Path) -> set[str]:
    """What we ignore."""
    ignored = Ignored()
    return {path for path in PATHS if ignored.holds(folder / path)}
