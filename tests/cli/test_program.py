"""The program `omni-worker`: how it imports the command line before it calls it."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import omni_worker_program


class CommandLine(ModuleType):
    """In place of omni_worker.cli: was the collector on, at the import and at the call?"""

    def __init__(self) -> None:
        super().__init__("omni_worker.cli")
        self.collected: list[bool] = []

    @property
    def main(self) -> Callable[..., None]:
        self.collected.append(gc.isenabled())
        return lambda **_: self.collected.append(gc.isenabled())


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    gc.enable()


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    found = CommandLine()
    monkeypatch.setitem(sys.modules, "omni_worker.cli", found)
    return found


def test_the_collector_is_off_for_the_import_only(command_line: CommandLine) -> None:
    omni_worker_program.main()

    assert command_line.collected == [False, True]


def test_a_collector_that_is_off_stays_off(command_line: CommandLine) -> None:
    gc.disable()

    omni_worker_program.main()

    assert command_line.collected == [False, False]
