"""Saved: which files of code below some folders differ from how they were when last looked at.

The system reports most saves. What it does not report is found by looking: files of a new folder,
folders behind links, and everything where its table of watched folders is full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .gitignore import Ignored

# Code and configuration. Data files are left out: a worker that writes one would reload for ever.
SUFFIXES = (".py", ".toml", ".yaml", ".yml", ".env")
OURS = ".omni-worker"

Version = tuple[int, int, int]


class Saved:
    """Remembers the version of each file: a change is found once, by a look or by a report."""

    def __init__(self, folders: Iterable[Path], is_wanted: Callable[[Path], bool]) -> None:
        self._folders = [Path(os.path.abspath(folder)) for folder in folders]
        self._is_wanted = is_wanted  # False for what editors, git and installers write
        self._ignored = Ignored()
        self._versions = {path: version_of(path) for path in self._files()}

    def looked(self) -> set[Path]:
        """Look at every file; return those that were added, changed or removed."""
        return self.changed({*self._files(), *self._versions})

    def changed(self, paths: Iterable[str | Path]) -> set[Path]:
        """Return those of these paths that differ from how they were, and are code."""
        found = set()
        for path in map(Path, map(os.path.abspath, paths)):
            version = version_of(path)
            if version == self._versions.get(path) or not self._is_code(path):
                continue
            found.add(path)
            if version is None:
                del self._versions[path]
            else:
                self._versions[path] = version
        return found

    def _is_code(self, path: Path) -> bool:
        if OURS in path.parts or not path.name.endswith(SUFFIXES):
            return False
        return self._is_wanted(path) and not self._ignored.holds(path)

    def _files(self) -> Iterator[Path]:
        seen: set[tuple[int, int]] = set()  # folders: a link may lead back
        for top in self._folders:
            for name, folders, files in os.walk(top, followlinks=True):
                folder = Path(name)
                folders[:] = [one for one in folders if self._is_new(folder / one, seen)]
                yield from (folder / one for one in files if one.endswith(SUFFIXES))

    def _is_new(self, folder: Path, seen: set[tuple[int, int]]) -> bool:
        """Return True if a folder may hold code, and was not met by another path."""
        if folder.name == OURS or not self._is_wanted(folder):
            return False
        if self._ignored.holds(folder, is_folder=True):
            return False
        try:
            found = folder.stat()
        except OSError:
            return False
        is_new = (found.st_dev, found.st_ino) not in seen
        seen.add((found.st_dev, found.st_ino))
        return is_new


def version_of(path: Path) -> Version | None:
    """Return numbers that change with every save of a file; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
