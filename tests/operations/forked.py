"""Commands forked off a process that has imported them: a third of a second less for each.

What an import decides is tested in `tests/cli`, where the program itself is started.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import walk_packages
from typing import BinaryIO

import omni_worker_program
from omni_worker.cli import commands
from tests.cli.support import Said
from tests.processes.support import clean_environment

PATIENCE = 30.0  # seconds after which a command hangs

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [__name__, *(found.name for found in walk_packages(commands.__path__, f"{commands.__name__}."))]
)


def call_forked(*arguments: str, folder: Path, **environment: str) -> Said:
    """Run `omni-worker …` in ``folder`` to its end, with nothing on its standard input."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _server.Process(
            target=_command,
            args=(arguments, folder.resolve(), clean_environment() | environment,
                  _path(out), _path(err)),
        )  # fmt: skip
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
        said = Said(process.exitcode, _read(out), _read(err))
    assert said.code >= 0, f"omni-worker {' '.join(arguments)} was killed: {said}"
    return said


def _path(file: BinaryIO) -> str:
    """A path by which another process opens the same file, which has no name."""
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _read(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def _command(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], out: str, err: str
) -> None:
    """Become the command, in the process that was forked for it."""
    standard = {"stdin": (os.devnull, "r"), "stdout": (out, "a"), "stderr": (err, "a")}
    for number, (name, (path, mode)) in enumerate(standard.items()):
        stream = open(path, mode, encoding="utf-8")  # noqa: SIM115 - open until the process ends
        os.dup2(stream.fileno(), number)
        setattr(sys, name, stream)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    sys.argv = ["omni-worker", *arguments]
    omni_worker_program.main()
