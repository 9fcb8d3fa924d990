"""Watcher: saved files that replace the child; those that git ignores do not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .saved import Saved, version_of

STEP = 20  # milliseconds without another change until the changes are posted
LONGEST = 200  # milliseconds they are collected at most
ROUND = 0.1  # seconds between two looks at the file of variables
LOOK = 1.0  # seconds between two looks at every file
SHARE = 50  # times as long as a look took is the pause after it, at least


@dataclass(frozen=True, slots=True)
class Changed:
    """Files that were saved."""

    paths: tuple[Path, ...]
    at: float  # monotonic time


@dataclass(frozen=True, slots=True)
class Unreported:
    """The system cannot report saved files: they are looked for."""

    cause: str


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
        self._stop = threading.Event()
        self._watches = threading.Event()
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
        from watchfiles import Change, DefaultFilter

        usual = DefaultFilter()
        saved = Saved(self._folders, lambda path: usual(Change.modified, str(path)))
        env_version = self._version_of_env()
        next_look = time.monotonic() + LOOK
        for reported in self._rounds():
            self._watches.set()  # the first round may be empty: from here on nothing is missed
            paths = saved.changed(reported)
            if (begun := time.monotonic()) >= next_look:
                paths |= saved.looked()
                took = time.monotonic() - begun
                next_look = time.monotonic() + max(LOOK, SHARE * took)
            if self._env_file is not None:
                paths.discard(Path(os.path.abspath(self._env_file)))
                # Looked at in every round: git ignores it, and it may be outside of the folders.
                if (now := self._version_of_env()) != env_version:
                    env_version = now
                    paths.add(self._env_file)
            if paths:
                self._post(Changed(tuple(paths), time.monotonic()))

    def _rounds(self) -> Iterator[set[str]]:
        """Yield what the system reports, at once, and an empty set in quiet moments."""
        from watchfiles import watch

        try:
            for changes in watch(
                *self._folders,
                stop_event=self._stop,
                step=STEP,
                debounce=LONGEST,
                rust_timeout=int(ROUND * 1_000),
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                yield {path for _, path in changes}
        except (OSError, RuntimeError) as error:  # most of all: its table of folders is full
            self._post(Unreported(str(error).partition(" about ")[0].rstrip(".")))
            while not self._stop.wait(ROUND):
                yield set()

    def _version_of_env(self) -> tuple[int, int, int] | None:
        return version_of(self._env_file) if self._env_file is not None else None
