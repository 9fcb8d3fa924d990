"""Every block of code in the README and in the docs is run, type-checked, parsed or compared.

A block in a language that nobody checks is a failure.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from docs.hooks import reference
from omni_worker import SchemaRegistry, Settings, Valid
from omni_worker.nats_server import NatsServer
from omni_worker.wire import read_envelope

from ..processes.support import clean_environment
from .blocks import BLOCKS, PAGES, ROOT, Block
from .shells import check_script, command_of

# Written for packages that are not installed here, or for a project: only their syntax is checked.
FOREIGN = ("FastStream", "Celery", "Django", "Logfire")
PYTHON = [one for one in BLOCKS if one.language == "python" and one.title not in FOREIGN]
TESTS = [one for one in PYTHON if "def test_" in one.code]
RUN = """
import runpy, sys
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="block")
"""


def checked_in_other_tests(block: Block) -> None:
    """Python: below. Output: whoever asks for it, see the last test."""


def check_json(block: Block) -> None:
    """JSON, and an event we could read, with a payload that fits."""
    event = json.loads(block.code)
    envelope = read_envelope(block.code.encode(), stored_at=0)
    assert isinstance(SchemaRegistry().validate(envelope.type, event["payload"]), Valid)


def check_sh(block: Block) -> None:
    """Commands that exist, with options that exist."""
    check_script(block.code)


def check_console(block: Block) -> None:
    """The same for what is typed after `$ `."""
    typed = [line.removeprefix("$ ") for line in block.code.splitlines() if line.startswith("$ ")]
    assert typed
    check_script("\n".join(typed))


CHECKS: dict[str, Callable[[Block], None]] = {
    "python": checked_in_other_tests,
    "text": checked_in_other_tests,
    "json": check_json,
    "sh": check_sh,
    "console": check_console,
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_is_what_it_says_it_is(block: Block) -> None:
    assert block.language in CHECKS, f"{block.place}: nobody checks {block.language!r}"

    CHECKS[block.language](block)


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.title in FOREIGN], ids=lambda block: block.place
)
def test_code_for_other_packages_compiles(block: Block) -> None:
    compile(block.code, block.place, "exec")


def test_python_checks_under_strict_mypy(tmp_path: Path) -> None:
    files = written(PYTHON, tmp_path)

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (checked.returncode, checked.stdout) == (0, "")


def test_python_is_tidy(tmp_path: Path) -> None:
    files = written(PYTHON, tmp_path)

    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "E,F,B", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("page", sorted({block.file for block in PYTHON}))
def test_the_python_of_a_page_runs(page: str, nats_server: NatsServer, tmp_path: Path) -> None:
    files = written([block for block in PYTHON if block.file == page], tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", RUN, *files],
        cwd=tmp_path,
        env=clean_environment() | {"NATS_URL": nats_server.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_tests_in_the_docs_pass(tmp_path: Path) -> None:
    files = written(TESTS, tmp_path)

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "-o", "asyncio_mode=auto", *files],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    count = sum(block.code.count("def test_") for block in TESTS)
    assert tested.returncode == 0, tested.stdout
    assert f"{count} passed" in tested.stdout


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_settings_named_in_a_page_exist(page: str) -> None:
    known = {reference.variable(*field) for field in Settings.model_fields.items()}
    known |= {one for _, command in reference.walk(reference.main) for one in variables(command)}
    named = set(re.findall(r"\b(?:OMNI_WORKER|NATS)_[A-Z_]*[A-Z]", PAGES[page]))

    assert named <= known
    for code in re.findall(r"`omni-worker\s([^`]+)`", PAGES[page]):
        typed = code.partition(" [OPTIONS]")[0]  # a usage line of the reference
        words = typed.replace("\\|", "|").split()
        command, rest = command_of([word for word in words if word != "…"])
        options = {name for one in command.params for name in one.opts} | {"--help"}
        assert {word for word in rest if word.startswith("-")} <= options, code


def test_the_links_of_the_readme_lead_somewhere() -> None:
    # Those of the docs are looked at by `make docs`.
    links = re.findall(r"\]\(([^)#]+)", PAGES["README.md"])

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_output_in_the_docs_is_compared_with_the_real_one() -> None:
    asked = {
        (call.args[0].value, call.args[1].value)
        for file in (ROOT / "tests").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        if call.func.id == "shown" and len(call.args) == 2
        if all(isinstance(argument, ast.Constant) for argument in call.args)
    }  # fmt: skip

    for block in BLOCKS:
        if block.language in ("text", "console"):
            assert any(
                file == block.file and block.code.startswith(str(start)) for file, start in asked
            ), f"{block.place}: no test compares this with what is printed; see shown()"


def variables(command: click.Command) -> list[str]:
    """The environment variables a command reads its options from."""
    return [one.envvar for one in command.params if isinstance(one.envvar, str)]


def written(blocks: list[Block], folder: Path) -> list[str]:
    """Each block in a file that is named after its place."""
    for block in blocks:
        (folder / f"{block.module}.py").write_text(block.code)
    return [str(folder / f"{block.module}.py") for block in blocks]
