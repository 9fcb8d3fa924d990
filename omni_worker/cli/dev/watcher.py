"""Watcher: saved files that replace the child; those that git ignores do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .gitignore import Ignored

# Code and configuration. Data files are left out: a worker that writes one would reload for ever.
SUFFIXES = frozenset({".py", ".toml", ".yaml", ".yml", ".env"})
STEP = 20  # milliseconds without another change until the changes are posted
LONGEST = 200  # milliseconds they are collected at most


@dataclass(frozen=True, slots=True)
class Changed:
    """Files that were saved."""

    paths: tuple[Path, ...]
    at: float  # monotonic time


class Watch:
    """Watch folders in a thread while entered; entering returns once it watches."""

    def __init__(
        self,
        folders: tuple[Path, ...],
        post: Callable[[object], None],
        *,
        env_file: Path | None = None,
    ) -> None:
        self._folders = folders
        self._post = post
        self._env_file = env_file
        self._env_version = self._version_of_env()
        self._stop = threading.Event()
        self._watches = threading.Event()
        self._ignored = Ignored()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._watches.wait(5.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(2.0)

    def _watch(self) -> None:
        from watchfiles import DefaultFilter, watch

        usual = DefaultFilter()
        told = watch(
            *self._folders,
            watch_filter=lambda change, path: usual(change, path) and self._counts(Path(path)),
            stop_event=self._stop,
            step=STEP,
            debounce=LONGEST,
            rust_timeout=100,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        for changes in told:
            self._watches.set()  # the first round may be empty: from here on nothing is missed
            paths = {Path(path) for _, path in changes}
            # Looked at in every round: git ignores it, and it may be outside of the folders.
            if self._env_file is not None and (now := self._version_of_env()) != self._env_version:
                self._env_version = now
                paths.add(self._env_file)
            if paths:
                self._post(Changed(tuple(paths), time.monotonic()))

    def _version_of_env(self) -> tuple[int, int, int] | None:
        """Return numbers that change with every save of the file; None if it does not exist."""
        try:
            found = self._env_file.stat() if self._env_file is not None else None
        except OSError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns) if found else None

    def _counts(self, path: Path) -> bool:
        if self._env_file is not None and path == self._env_file.absolute():
            return False
        is_code = path.suffix in SUFFIXES or path.name == ".env"
        return is_code and ".omni-worker" not in path.parts and not self._ignored.holds(path)
