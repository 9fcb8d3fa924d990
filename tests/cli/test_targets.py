"""`omni-worker run` with a target that leads to no app says which of the ways it went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import call, too_wide


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nosuch:app", "no such module: 'nosuch' (looked in the current directory and on the"),
        ("nosuch.workers:app", "no such module: 'nosuch' (looked"),
        ("shop.nosuch:app", "no such module: 'shop.nosuch' (looked"),
        ("empty:app", "no App called 'app' in module 'empty'; it has no App at all"),
        ("other:app", "no App called 'app' in module 'other'; it has router, second"),
        ("number:app", "no App called 'app' in module 'number': app is of type int"),
        ("other:router.name", "no App called 'router.name' in module 'other': router.name is of"),
        (
            "shop:app",
            "no App called 'app' in module 'shop'; did you mean shop alone, which looks in",
        ),
        (
            "shop.app.app",
            "no such module: 'shop.app.app' (looked in the current directory and on the"
            " Python path); did you mean shop.app:app?",
        ),
        ("other", "other has several Apps: name one, other:router or other:second"),
        ("other:", "'other:': expected MODULE:APP"),
        (":app", "':app': expected MODULE:APP"),
        ("other.py", "other.py has several Apps: name one, other.py:router or other.py:second"),
        ("other.py:app", "no App called 'app' in module 'other'; it has router, second"),
        ("other.py:", "'other.py:': expected MODULE:APP"),
        ("./other:app", "'./other:app': expected a module or a .py file; try other:app"),
        ("./shop/app.py", "no App found in ./shop/app.py: give the file that makes it, or FILE:"),
        ("shop/other.py", "no such file: shop/other.py; give its path from the current directory"),
        ("shop", "no App found in shop, shop.app, shop.worker: name it as MODULE:APP"),
        ("shop/", "'shop/': expected a module or a .py file; try shop:app"),
        (
            "my-bot.py",
            "my-bot.py: 'my-bot' cannot be the name of a Python module; rename it, for example to",
        ),
        (
            "2.nd/bots/a.py",
            "2.nd/bots/a.py: '2.nd' cannot be the name of a Python module; rename it, for",
        ),
        ("json.py", "json.py: json is the name of another module, /"),
        ("sys.py", "sys.py: sys is the name of another module, a built-in one; rename the file"),
        ("json/app.py", "json/app.py: json is the name of another module, /"),
        ("sh op:app", "'sh op:app': expected MODULE:APP, for example shop.workers:app"),
        ("..other:app", "'..other:app': expected MODULE:APP"),
        ("made:router", "made:router has no handlers: declare one with @app.on(...)"),
        ("made:three", "no App called 'three' in module 'made': three is of type int"),
        ("other:router", "other:router has no handlers: declare one with @app.on(...)"),
    ],
)
def test_a_target_that_leads_to_no_app_is_said_in_one_sentence(
    tmp_path: Path, target: str, said: str
) -> None:
    (tmp_path / "empty.py").touch()
    (tmp_path / "number.py").write_text("app = 3")
    (tmp_path / "made.py").write_text(
        "from omni_worker import App\ndef router(): return App('router')\ndef three(): return 3\n"
    )
    (tmp_path / "other.py").write_text(
        "from omni_worker import App\nrouter = App('router')\nsecond = App('second')\n"
    )
    for name in ("my-bot.py", "json.py", "sys.py"):
        (tmp_path / name).touch()
    for name in ("2.nd/bots/a.py", "json/app.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.touch()
        (file.parent / "__init__.py").touch()
    (tmp_path / "2.nd" / "__init__.py").touch()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "app.py").touch()

    ended = call("run", target, folder=tmp_path)

    assert ended.code == 2
    assert ended.line.startswith(f"omni-worker: {said}")
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert too_wide(ended.err) == []


BOT = """
from omni_worker import App, Event
from .words import TYPE
import neighbour, shop.words

mine = App("shop")

@mine.on(TYPE, durable="orders")
async def order(event: Event): ...

def made() -> App:
    return mine
"""


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("src/shop/handlers.py", ()),
        ("./src/shop/handlers.py:mine", ()),
        ("src/shop/handlers.py:made", ()),
        ("src/../src/shop/handlers.py", ("--app-dir", "src")),
        ("shop/handlers.py", ("--app-dir", "src")),
        ("src/shop/__init__.py", ()),
        ("link.d/shop/handlers.py", ()),
    ],
)
def test_a_file_is_imported_as_the_module_that_it_is(
    tmp_path: Path, target: str, options: tuple[str, ...]
) -> None:
    folder = tmp_path / "src" / "shop"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from .handlers import mine\n")
    (folder / "words.py").write_text('TYPE = "custom.order"\n')
    (folder / "handlers.py").write_text(BOT)
    (tmp_path / "link.d").symlink_to("src")
    # What a module in the current directory, or in --app-dir, may import, a file may as well.
    (tmp_path / (options[1] if options else "") / "neighbour.py").touch()

    ended = call("show", target, *options, folder=tmp_path)

    assert ended.code == 0, ended.err
    assert "orders" in ended.out


def test_a_file_wins_over_a_module_of_its_name_that_python_finds_first(tmp_path: Path) -> None:
    source = 'from omni_worker import App\napp = App("{0}")\n@app.on("custom.a", durable="{0}")\n'
    (tmp_path / "bots").mkdir()
    for name, durable in (("echo.py", "other"), ("bots/echo.py", "mine")):
        (tmp_path / name).write_text(source.format(durable) + "async def f(event): ...\n")

    ended = call("show", "bots/echo.py", folder=tmp_path)

    assert ended.code == 0, ended.err
    assert ("mine" in ended.out, "other" in ended.out) == (True, False)


def test_a_factory_that_fails_shows_its_own_traceback_only(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("def broken():\n    raise ValueError('no')\n")

    ended = call("run", "made:broken", folder=tmp_path)

    assert ended.code == 2
    lines = ended.err.splitlines()
    assert lines[0] == "omni-worker: 'made:broken' failed when called:"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: no"
    assert [line for line in lines if "File " in line] == [
        f'  File "{tmp_path / "made.py"}", line 2, in broken'
    ]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nosuchthing", "ModuleNotFoundError: No module named 'nosuchthing'"),
        ("import play.nosuch", "ModuleNotFoundError: No module named 'play.nosuch'; 'play' is not"),
        ("from os import nosuchthing", "ImportError: cannot import name 'nosuchthing' from 'os'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_a_module_that_fails_on_import_shows_its_own_traceback_only(
    tmp_path: Path, source: str, error: str
) -> None:
    (tmp_path / "play.py").write_text("import deeper\n")
    (tmp_path / "deeper.py").write_text(f"\n\n{source}\n")

    ended = call("run", "play:app", folder=tmp_path)

    assert ended.code == 2
    lines = ended.err.splitlines()
    assert lines[0] == "omni-worker: the module 'play' failed on import:"
    assert lines[1] == "Traceback (most recent call last):"
    files = [line.strip() for line in lines if line.startswith("  File")]
    assert files == [
        f'File "{tmp_path}/play.py", line 1, in <module>',
        f'File "{tmp_path}/deeper.py", line 3, in <module>',
    ]
    assert lines[-1].startswith(error)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@App('shop').on('a..b')\ndef f(event): ...", "@app.on('a..b'): event type 'a..b': empty"),
        ("App('s').on('a.b', durabel='r1')(print)", "@app.on('a.b'): unknown option durabel=; did"),
        ("App('My App!')", "app name 'My App!': a token cannot hold '.', '*', '>', white space"),
        ("RetryPolicy(retries=-1)", "RetryPolicy(retries=-1): expected a whole number, 0 or more"),
        ("App('shop').registry.register('a.b')", "register('a.b'): only custom.* and system.*"),
    ],
)
@pytest.mark.parametrize("command", ["run", "show", "plan", "asyncapi", "schemas dump"])
def test_a_wrong_declaration_is_one_message_with_file_and_line(
    tmp_path: Path, source: str, said: str, command: str
) -> None:
    (tmp_path / "play.py").write_text("import deeper\n")
    (tmp_path / "deeper.py").write_text(f"from omni_worker import App, RetryPolicy\n\n{source}\n")

    ended = call(*command.split(), "play", folder=tmp_path)

    assert (ended.code, ended.out) == (2, "")
    assert ended.line.startswith(f"omni-worker: {said}")
    assert ended.line.endswith("(deeper.py:3)")
    assert ended.line.count("deeper.py") == 1
    assert too_wide(ended.err) == []


def test_a_syntax_error_is_shown_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text("def f(:\n")

    ended = call("run", "play:app", folder=tmp_path)

    assert ended.code == 2
    assert f'File "{tmp_path}/play.py", line 1' in ended.err
    assert ended.err.endswith("SyntaxError: invalid syntax\n")


def test_a_user_who_leaves_during_a_slow_import_sees_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text("raise KeyboardInterrupt")

    ended = call("run", "play:app", folder=tmp_path)

    assert ended.code == 1
    assert ended.err.strip() == "Aborted!"
