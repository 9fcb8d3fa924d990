"""Saved files are found, also where the system does not report them."""

from __future__ import annotations

import os
import queue
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from omni_worker.cli.dev.saved import Saved
from omni_worker.cli.dev.watcher import Changed, Unreported, Watch


def anything(path: Path) -> bool:
    """Every file is wanted."""
    return True


def save(path: Path, text: str = "x = 1") -> Path:
    """Write a file and the folders above it; the time of the file is another one each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
    return path


def test_a_change_is_found_once_whoever_reports_it(tmp_path: Path) -> None:
    kept, gone = save(tmp_path / "kept.py"), save(tmp_path / "gone.py")
    saved = Saved([tmp_path], anything)

    save(kept)
    gone.unlink()

    assert saved.changed([str(kept)]) == {kept}
    assert saved.looked() == {gone}
    assert saved.changed([kept, gone]) == set()
    assert saved.looked() == set()


def test_files_of_a_new_folder_are_found(tmp_path: Path) -> None:
    saved = Saved([tmp_path], anything)

    new = {save(tmp_path / "new" / "a.py"), save(tmp_path / "new" / "below" / "b.py")}

    assert saved.looked() == new


def test_a_folder_behind_a_link_is_looked_at_and_a_circle_ends(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    code = save(elsewhere / "code.py")
    project.mkdir()
    (project / "lib").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(project)
    saved = Saved([project], anything)

    save(code)

    assert saved.looked() == {project / "lib" / "code.py"}


def test_what_is_no_code_or_ignored_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitignore").write_text("generated/\n*_pb2.py\n")
    saved = Saved([tmp_path], lambda path: ".venv" not in path.parts)

    for name in ("data.json", "generated/a.py", "b_pb2.py", ".venv/c.py", ".omni-worker/d.py"):
        save(tmp_path / name)

    assert saved.looked() == set()
    assert saved.changed(tmp_path.rglob("*")) == set()


def test_without_reports_of_the_system_saves_are_found_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*folders: Any, **options: Any) -> Any:
        raise OSError('OS file watch limit reached. about ["/x"] (Error { kind: MaxFilesWatch })')

    monkeypatch.setattr(watchfiles, "watch", full)
    file = save(tmp_path / "app.py")
    posted: queue.SimpleQueue[object] = queue.SimpleQueue()

    with Watch((tmp_path,), posted.put):
        first = posted.get(timeout=10)
        save(file)
        second = posted.get(timeout=10)

    assert first == Unreported("OS file watch limit reached")
    assert isinstance(second, Changed)
    assert second.paths == (file,)


def test_a_folder_that_comes_with_its_files_and_one_behind_a_link_are_reported(
    tmp_path: Path,
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    linked = save(elsewhere / "linked.py")
    save(tmp_path / "made" / "inside.py")
    (project / "lib").symlink_to(elsewhere)
    posted: queue.SimpleQueue[object] = queue.SimpleQueue()

    def next_paths() -> tuple[Path, ...]:
        changed = posted.get(timeout=10)
        assert isinstance(changed, Changed)
        return changed.paths

    with Watch((project,), posted.put):
        (tmp_path / "made").rename(project / "made")
        came = next_paths()
        save(linked)
        behind = next_paths()

    assert came == (project / "made" / "inside.py",)
    assert project / "lib" / "linked.py" in behind
