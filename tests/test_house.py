"""The house: imports only go down, nats stays in one room, every file keeps the rules."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from omni_worker import payloads

HOUSE = Path(__file__).parent.parent / "omni_worker"

# Every room, the lowest first: it may import what stands before it and nothing else. A new room
# gets its place here; the flow of an event (docs) says which.
ROOMS = [
    "errors", "masking", "urls", "tasks", "forks", "outcomes", "routes", "subjects", "events",
    "payloads", "validation", "failures", "finite", "schemas", "retry", "cron", "rate", "adaptive",
    "options", "settings",
    "ids", "transports.timestamps", "transports.infos", "topology", "wire", "trace_context",
    "signatures", "injection", "handlers", "call_sites", "handler_consumers",
    "transports", "transports.headers", "transports.key_value", "transports.base",
    "transports.returned",
    "transports.atomic", "transports.results",
    "letters",
    "transports.bucket", "transports.memory", "transports.jetstream",
    "threads", "recently_settled", "nats_server", "discovery",
    "steering", "signals", "positions", "writes", "provision", "stream_consumers", "resets",
    "publisher", "signalling_publisher", "schedules", "context", "current", "notes", "limits",
    "long_retries", "dispatch",
    "letter_storage", "settle", "subscription", "batches",
    "assembly", "upkeep", "binding", "sent_back", "due_retries", "operations",
    "listeners", "listeners.text", "listeners.sentence",
    "listeners.batch_sentence", "listeners.flow_sentences",
    "listeners.sentences", "listeners.pretty", "listeners.logs",
    "listeners.configuration",
    "listeners.opentelemetry",
    "bus", "extensions", "service", "parts", "lifespan", "crons",
    "app", "sync", "metrics", "sentry", "omni",
    "process", "testing", "dashboard",
    "cli", "__main__", "__init__",
]  # fmt: skip

# (importing room, imported room): why it may go up all the same.
UPWARDS: dict[tuple[str, str], str] = {
    ("app", "process"): "app.run() is the way in for `python main.py`, imported when it is called",
}

# (file or room, how the line begins): why it is logged below the listeners. None is about what
# became of an event.
LOGGED: dict[tuple[str, str], str] = {
    ("transports.jetstream", ""): "the connection and its requests; a transport has no listeners",
    ("transports/bucket.py", "the bucket %s was deleted"): "a bucket that is created again",
    ("positions.py", "whether"): "a right that is missing; no handler runs yet",
    ("writes.py", ""): "whether a handler is paused, when that cannot be read",
    ("provision.py", ""): "streams that are made or differ, before any handler runs",
    ("operations", ""): "a command of a person's; no handler runs",
    ("signals", "a listener failed"): "a listener that fails cannot be told to listeners",
    ("schemas.py", ""): "a type without a schema, once",
    ("publisher/__init__.py", "publishing to"): "a stream's short duplicate window, once",
    ("publisher/outputs.py", "a duplicate in"): "a right that is missing, once",
    ("binding.py", "consumer %s stays"): "cleaning up at the end",
    ("sent_back.py", "dead letters cannot"): "a right that is missing, once",
    ("due_retries.py", "long retries that are due"): "a right that is missing, once",
    ("long_retries.py", "long retries wait"): "what the server lacks, or a right, once",
    ("sent_back.py", "returning events not read"): "a look that failed; there is another",
    ("sent_back.py", "reading what is sent back"): "a consumer that is read from now on",
    ("schedules/crons.py", "crons are not looked at"): "a look that failed; there is another",
    ("schedules/forwarder.py", "events that are due"): "a right that is missing, once; a look",
    ("bus", ""): "declarations: a type that is nearly another; a look at consumers that failed",
}

LINES = 380
FUNCTION_LINES = 61
# file: why it is longer; a file that is no longer so leaves the list.
LONG: dict[str, str] = {}

FILES = sorted(
    path for path in HOUSE.rglob("*.py") if "template" not in path.relative_to(HOUSE).parts
)


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a file of the package as its syntax tree."""
    return ast.parse(path.read_text())


def nodes_of(*kinds: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    """Yield each node of these kinds, behind its file and line for people."""
    for path in FILES:
        name = str(path.relative_to(HOUSE))
        for node in ast.walk(tree_of(path)):
            if isinstance(node, kinds):
                yield f"{name}:{getattr(node, 'lineno', 1)}", node


def room_of(parts: tuple[str, ...]) -> str:
    """The room a dotted path below the package lies in."""
    if parts[:1] in (("transports",), ("listeners",)):
        return ".".join(parts[:2])
    return parts[0] if parts else "__init__"


def parts_of(path: Path) -> tuple[str, ...]:
    """A file's dotted path below the package."""
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imports_of(path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line, top-level package and path within it of every import, wherever it stands."""
    package = path.relative_to(HOUSE).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, *rest = alias.name.split(".")
                yield node.lineno, top, tuple(rest)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            top, *rest = (node.module or "").split(".")
            yield node.lineno, top, tuple(rest)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield node.lineno, "omni_worker", (*base, *node.module.split("."))
            else:  # from . import this, that
                for alias in node.names:
                    yield node.lineno, "omni_worker", (*base, alias.name)


def upward_imports(path: Path) -> list[str]:
    """Each import that does not go down, with its line and both names."""
    mine = room_of(parts_of(path))
    found = []
    for line, top, parts in imports_of(path):
        other = room_of(parts)
        if top != "omni_worker" or other == mine or (mine, other) in UPWARDS:
            continue
        if ROOMS.index(other) > ROOMS.index(mine):
            found.append(f"{path.relative_to(HOUSE.parent)}:{line}: {mine} imports {other}")
    return found


def test_every_room_has_its_place() -> None:
    unplaced = sorted({room_of(parts_of(path)) for path in FILES} - set(ROOMS))

    assert unplaced == [], "give each a place in ROOMS"
    assert len(ROOMS) == len(set(ROOMS))


def test_imports_only_go_down() -> None:
    assert [line for path in FILES for line in upward_imports(path)] == []


def test_an_import_that_goes_up_is_found_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = tmp_path / "omni_worker"
    (house / "transports" / "memory").mkdir(parents=True)
    monkeypatch.setattr(sys.modules[__name__], "HOUSE", house)
    (house / "wire.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from .events import Event\n"
        "from . import bus\n"
        "if TYPE_CHECKING:\n"
        "    from omni_worker.app import App\n"
        "def late():\n"
        "    from . import dispatch, events\n"
        "    import omni_worker.binding\n"
    )
    inner = house / "transports" / "memory" / "server.py"
    inner.write_text(
        "from ...settle import Settler\nfrom ..base import Message\nfrom .x import y\n"
    )

    assert upward_imports(house / "wire.py") == [
        "omni_worker/wire.py:3: wire imports bus",
        "omni_worker/wire.py:5: wire imports app",
        "omni_worker/wire.py:7: wire imports dispatch",
        "omni_worker/wire.py:8: wire imports binding",
    ]
    assert upward_imports(inner) == [
        "omni_worker/transports/memory/server.py:1: transports.memory imports settle"
    ]


def rooms_that_may_not_log() -> list[str]:
    """Every room below the listeners, and the bus, which only has to be above their logs."""
    return [*ROOMS[: ROOMS.index("listeners")], "bus"]


def logged_in(path: Path) -> list[tuple[int, str]]:
    """Line and first words of everything that writes a log line, called or handed on."""
    levels = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    nodes = list(ast.walk(tree_of(path)))
    words = {
        id(part): one.args[0].value
        for one in nodes
        if isinstance(one, ast.Call) and one.args and isinstance(one.args[0], ast.Constant)
        for part in ast.walk(one.func)
    }
    return [
        (node.lineno, str(words.get(id(node), "")))
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr in levels
        and "log" in ast.unparse(node.value).lower()
    ]


def test_nothing_below_the_listeners_logs_an_event() -> None:
    found, needless = [], set(LOGGED)
    for path in FILES:
        place, room = str(path.relative_to(HOUSE)), room_of(parts_of(path))
        if room not in rooms_that_may_not_log():
            continue
        for line, words in logged_in(path):
            known = {one for one in LOGGED if one[0] in (place, room) and words.startswith(one[1])}
            needless -= known
            if not known:
                found.append(f"{place}:{line}: {words!r}")

    assert found == [], "emit a signal, and write its sentence in listeners/sentences.py"
    assert needless == set()


def test_a_line_that_is_logged_is_found_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "settle.py"
    path.write_text(
        "log.warning('lapsed', extra=facts)\n"
        "self._log.exception('a fault')\n"
        "logging.getLogger('omni_worker.worker').log(level, text)\n"
        "(warn or log.info)('a type')\n"
        "math.log(2)\n"
        "signals.emit(lapsed)\n"
    )

    found = sorted(logged_in(path))
    assert found == [(1, "lapsed"), (2, "a fault"), (3, ""), (4, "a type")]


def test_our_fields_of_a_log_line_begin_with_our_name() -> None:
    plain = {
        (place, key)
        for place, node in nodes_of(ast.keyword)
        if node.arg == "extra" and isinstance(node.value, ast.Dict)
        for key in [getattr(one, "value", None) for one in node.value.keys]
        if isinstance(key, str) and not key.startswith("omni_")
    }  # fmt: skip

    assert plain == set(), "a library's field of that name, or the reader's, would be overwritten"


def imported_at_once(path: Path) -> set[tuple[str, ...]]:
    """The files of the package that importing this one imports."""
    body = tree_of(path).body
    at_once = {node.lineno for node in body if isinstance(node, ast.ImportFrom)}
    files = {parts_of(one) for one in FILES} - {parts_of(path)}
    return {parts for line, _, parts in imports_of(path) if line in at_once and parts in files}


def test_the_imports_of_files_make_no_circle() -> None:
    graph = {parts_of(path): imported_at_once(path) for path in FILES}

    while leaves := [one for one, needs in graph.items() if not needs & graph.keys()]:
        for one in leaves:
            del graph[one]
    assert graph == {}


def test_only_the_jetstream_adapter_imports_nats() -> None:
    strangers = [
        f"{path.relative_to(HOUSE)}:{line}"
        for path in FILES
        for line, top, _ in imports_of(path)
        if top in ("nats", "nkeys") and room_of(parts_of(path)) != "transports.jetstream"
    ]

    assert strangers == []


def test_private_names_of_nats_are_used_in_one_file() -> None:
    found = []
    for path in (HOUSE / "transports" / "jetstream").glob("*.py"):
        if path.name == "client.py":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                ours = ast.unparse(node.value) in ("self", "cls", "super()")
                if not ours and not node.attr.endswith("__"):
                    found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")

    assert found == []


def test_importing_the_package_needs_neither_a_server_s_client_nor_a_terminal_s() -> None:
    code = (
        "import sys, omni_worker\n"
        "print(*sorted({'nats', 'nkeys', 'click', 'watchfiles', 'uvloop'} & set(sys.modules)))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert ended.stdout == "\n"


def test_only_who_puts_a_subscription_together_knows_its_gates() -> None:
    found = [
        f"{path.relative_to(HOUSE)}:{line}"
        for path in FILES
        for line, _, parts in imports_of(path)
        if parts[:2] == ("subscription", "gates") and len(parts) > 2
        if room_of(parts_of(path)) not in ("assembly", "subscription")
    ]

    assert found == [], "other rooms know the convention, subscription.gates, and no gate"


def test_tasks_and_threads_are_named_in_one_room() -> None:
    found = [
        f"{path.relative_to(HOUSE)}:{node.lineno}"
        for path in FILES
        if path.name != "tasks.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("create_task", "Thread", "DaemonThreads", "Slots"))
        for given in (*node.args, *(one.value for one in node.keywords))
        if isinstance(given, (ast.JoinedStr, ast.Constant)) and "omni-worker" in ast.unparse(given)
    ]

    assert found == [], "omni_worker.tasks makes the names, and reads them"


def test_a_file_opens_with_what_it_is_for() -> None:
    summaries = {
        place: (ast.get_docstring(node) or "").split("\n\n")[0].rstrip()
        for place, node in nodes_of(ast.Module)
    }

    ends = (".", "`", ")", "!", "?")
    assert [place for place, summary in summaries.items() if not summary.endswith(ends)] == []


def test_a_file_is_short_enough_to_be_read_at_once() -> None:
    long = [path for path in FILES if len(path.read_text().splitlines()) > LINES]

    assert {str(path.relative_to(HOUSE)) for path in long} == LONG.keys()


def test_a_function_fits_a_screen() -> None:
    functions = nodes_of(ast.FunctionDef, ast.AsyncFunctionDef)

    assert [
        place for place, one in functions if one.end_lineno - one.lineno >= FUNCTION_LINES
    ] == []


def test_a_file_prints_nothing() -> None:
    calls = nodes_of(ast.Call)

    assert [place for place, one in calls if ast.unparse(one.func) == "print"] == []


def test_the_name_of_a_file_says_something() -> None:
    empty = {"utils", "util", "helpers", "helper", "types", "manager", "common", "misc"}

    assert [path for path in FILES if empty & {*parts_of(path)}] == []


def test_every_public_name_is_there_and_said_to_be() -> None:
    import omni_worker

    static = {
        alias.name: node.module
        for node in ast.walk(ast.parse((HOUSE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if alias.name != "*"
    }
    files = {name: file for name, file in static.items() if file is not None}

    assert len(set(omni_worker.__all__)) == len(omni_worker.__all__)
    assert [name for name in omni_worker.__all__ if not hasattr(omni_worker, name)] == []
    assert files == omni_worker._FILES, "a type checker and Python import the same"
    assert {*files, "signals", *payloads.__all__} == set(omni_worker.__all__)
    assert set(omni_worker.__all__) <= set(dir(omni_worker))


@pytest.mark.parametrize("file", payloads.TYPES)
def test_every_name_of_a_file_of_payloads_is_in_its_table(file: str) -> None:
    module = importlib.import_module(f"omni_worker.payloads.{file}")

    table = [name for name, place in payloads._FILES.items() if place == file]
    assert sorted(table) == sorted(module.__all__)


@pytest.mark.parametrize("command", ["--help", "version", "completion bash"])
def test_a_command_imports_what_it_needs(command: str) -> None:
    heavy = {"pydantic", "nats", "asyncio", "omni_worker.app", "omni_worker.payloads.message"}
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(*sorted({heavy} & set(sys.modules)), file=sys.stderr))\n"
        "from omni_worker.cli import main\n"
        f"main({command.split()})\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert ended.stderr == "\n"


# A docstring names its subject: it begins with a verb or with the noun it is about.
GUESSED = re.compile(
    r"(what|who|whoever|whose|which|one|so many|it|its|they|their|that|the same|this|those|these"
    r"|how|where|whether)\b",
    re.IGNORECASE,
)
# Words a reader with English as a second language stumbles on; STYLE's page has better ones.
RARE = re.compile(r"\b(nobody|somebody|whoever|anew|besides|meanwhile|no more)\b", re.IGNORECASE)


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every comment and every string of a file."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield token.start[0], token.string


def test_a_docstring_begins_with_a_verb_or_the_noun_it_is_about() -> None:
    nodes = nodes_of(ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [(place, ast.get_docstring(one) or "") for place, one in nodes]

    assert [f"{place}: {one}" for place, one in docstrings if GUESSED.match(one)] == []


def test_a_file_uses_ordinary_words() -> None:
    found = [
        f"{path.relative_to(HOUSE)}:{line}: {text}"
        for path in FILES
        for line, text in prose_of(path)
        if RARE.search(text)
    ]

    assert found == []
