"""Discovery: `run PACKAGE` finds the App, `app.discover` the handlers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_worker import App, ConfigError
from omni_worker.cli.app_loader import CannotLoad, load_app

APP = "from omni_worker import App\n"


@pytest.fixture(autouse=True)
def forget_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test writes a package called shop; the next one must not get this one's modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def package(**files: str) -> None:
    """A package `shop` with these files."""
    for name, text in {"__init__": "", **files}.items():
        path = Path("shop", *name.split("/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("module", ["__init__", "app", "worker"])
def test_an_app_is_found_where_people_put_it(module: str) -> None:
    package(**{module: APP + 'workers = App("here")'})

    assert load_app("shop").name == "here"


def test_the_one_called_app_wins() -> None:
    package(__init__=APP + 'other = App("other")\napp = App("this")')

    assert load_app("shop").name == "this"


def test_a_plain_module_will_do() -> None:
    Path("shop.py").write_text(APP + 'app = App("plain")')

    assert load_app("shop").name == "plain"


def test_no_app_anywhere_says_where_it_was_looked_for() -> None:
    package(app="")

    with pytest.raises(CannotLoad, match=r"no App found in shop, shop\.app, shop\.worker: name"):
        load_app("shop")


def test_several_apps_are_a_choice() -> None:
    package(worker=APP + 'one = App("one")\ntwo = App("two")')

    with pytest.raises(CannotLoad, match=r"shop\.worker:one or shop\.worker:two"):
        load_app("shop")


def test_a_module_that_fails_is_not_passed_over() -> None:
    package(app="1 / 0", worker=APP + 'app = App("worker")')

    with pytest.raises(CannotLoad, match="ZeroDivisionError"):
        load_app("shop")


def test_discover_imports_every_module_below_a_package() -> None:
    handler = "from shop.app import app\n\n@app.on('custom.{0}', durable='{0}')\n"
    handler += "async def handle(event): ...\n"
    package(
        **{
            "app": APP + 'app = App("shop")\napp.discover("shop.handlers")',
            "handlers/__init__": "",
            "handlers/mail": handler.format("mail"),
            "handlers/deep/chat": handler.format("chat"),
            "handlers/__main__": "raise SystemExit('a program, not a module')",
        }
    )

    app = load_app("shop")

    assert sorted(one.options.durable or "" for one in app.handlers) == ["chat", "mail"]


def test_discover_says_the_names_it_imported() -> None:
    package(**{"handlers/__init__": "", "handlers/b": "", "handlers/a": ""})

    assert App("shop").discover("shop.handlers") == [
        "shop.handlers",
        "shop.handlers.a",
        "shop.handlers.b",
    ]


def test_discover_of_nothing_names_the_line() -> None:
    with pytest.raises(
        ConfigError,
        match=r"no such package: 'nowhere'; .* in PYTHONPATH\? \(.*test_discovery.py:\d+",
    ):
        App("shop").discover("nowhere.handlers")


def test_discover_lets_a_modules_own_error_pass() -> None:
    package(**{"handlers/__init__": "", "handlers/a": "import no_such_module_at_all"})

    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        App("shop").discover("shop.handlers")


@pytest.mark.parametrize(
    ("module", "needless"),
    [
        ("omni_worker", {"click", "watchfiles", "nats", "uvloop"}),
        ("omni_worker.listeners.logs", {"click", "watchfiles", "nats", "uvloop"}),
        ("omni_worker.cli", {"watchfiles", "nats", "uvloop", "pytest"}),
    ],
)
def test_an_import_pulls_in_nothing_needless(module: str, needless: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert module in said
    assert needless & set(said) == set()
