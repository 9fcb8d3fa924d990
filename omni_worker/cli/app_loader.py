"""App loader: from `module:app` to the App, with an error for each way this goes wrong."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..app import App
from ..errors import ConfigError
from ..handlers import complete
from ..signatures import shown_place
from .target_file import SUFFIX, NotAModule, TargetFile, find_file

USUAL_MODULES = ("app", "worker")  # of a package, after the package itself


class CannotLoad(Exception):
    """You must act: the target leads to no App; the message says why."""


def load_app(target: str, app_dir: Path | None = None) -> App:
    """Import `module:app` from ``app_dir``, or the current directory. Raises CannotLoad.

    APP may be a function without arguments that makes the App: `myapp:create_app`.
    `package` alone: the App in it, in `package.app` or in `package.worker`. A file,
    `shop/handlers.py` or `shop/handlers.py:app`, is imported as a module.
    """
    module_name, colon, name = target.partition(":")
    if not module_name or (colon and not name):
        raise CannotLoad(f"{target!r}: expected MODULE:APP, for example myapp:app")
    try:
        if module_name.endswith(SUFFIX):
            return _complete(_from_file(find_file(module_name, app_dir), name, app_dir))
        return _complete(_from_module(target, module_name, name, app_dir))
    except NotAModule as error:
        raise CannotLoad(str(error)) from None
    except NoSuchModule as error:
        where = "the current directory" if app_dir is None else str(app_dir)
        parent, _, last = error.missing.rpartition(".")
        meant = f"; did you mean {parent}:{last}?" if not colon and parent in sys.modules else ""
        raise CannotLoad(
            f"no such module: {error.missing!r} (looked in {where} and on the Python path){meant}"
        ) from None


def _from_module(target: str, module_name: str, name: str, app_dir: Path | None) -> App:
    if "/" in module_name:
        parts = Path(module_name).parts
        module = ".".join(part for part in parts if part.isidentifier()) or "myapp"
        raise CannotLoad(
            f"{target!r}: expected a module or a .py file; try {module}:{name or 'app'}"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise CannotLoad(f"{target!r}: expected MODULE:APP, for example shop.workers:app")
    _put_on_path(module_name.partition(".")[0], app_dir)
    if not name:
        return _look_for_app(module_name)
    return _find_app(_import(module_name), module_name, name)


def _from_file(file: TargetFile, name: str, app_dir: Path | None) -> App:
    top = file.module.partition(".")[0]
    _put_on_path(top, app_dir)  # the file may import what a module may
    sys.path.insert(0, str(file.folder))
    try:
        module = _import(file.module)
    except NoSuchModule:
        raise file.hidden_by(sys.modules.get(top)) from None
    file.check_is(module)
    if name:
        return _find_app(module, file.module, name)
    if (app := _only_app(module, file.shown)) is not None:
        return app
    raise CannotLoad(
        f"no App found in {file.shown}: give the file that makes it, or FILE:FUNCTION if a"
        " function does"
    )


def _complete(app: App) -> App:
    for handler in app.handlers:
        complete(handler)
    return app


class NoSuchModule(Exception):
    """The module of the target, or a package above it, does not exist."""

    def __init__(self, missing: str) -> None:
        self.missing = missing


def _put_on_path(top: str, app_dir: Path | None) -> None:
    """Put the directory on the path, and its `src` if only that has the package."""
    folder = app_dir or Path()
    found = "" if app_dir is None else str(app_dir.resolve())
    if found not in sys.path:
        sys.path.insert(0, found)
    source = str((folder / "src").resolve())
    is_here = (folder / top / "__init__.py").is_file() or (folder / f"{top}.py").is_file()
    is_there = (folder / "src" / top).is_dir() or (folder / "src" / f"{top}.py").is_file()
    if is_there and not is_here and source not in sys.path:
        sys.path.insert(0, source)


def _look_for_app(package: str) -> App:
    looked = [package]
    if hasattr(_import(package), "__path__"):
        looked += [f"{package}.{each}" for each in USUAL_MODULES]
    for name in looked:
        # Only the package itself must exist; its usual modules may be missing.
        if name != package and importlib.util.find_spec(name) is None:
            continue
        if (app := _only_app(_import(name), name)) is not None:
            return app
    raise CannotLoad(f"no App found in {', '.join(looked)}: name it as MODULE:APP")


def _only_app(module: ModuleType, module_name: str) -> App | None:
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if "app" in apps:
        return apps["app"]
    if len({id(app) for app in apps.values()}) > 1:
        choice = " or ".join(f"{module_name}:{key}" for key in apps)
        raise CannotLoad(f"{module_name} has several Apps: name one, {choice}")
    return next(iter(apps.values()), None)


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The module itself is missing, or one that it imports? Only the first is a typing error.
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise NoSuchModule(missing) from None
        raise CannotLoad(_failed(module_name, error)) from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise CannotLoad(_failed(module_name, error)) from None


def _find_app(module: ModuleType, module_name: str, name: str) -> App:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            apps = [key for key, value in vars(module).items() if isinstance(value, App)]
            hint = f"; it has {', '.join(apps)}" if apps else _deeper(module, module_name)
            raise CannotLoad(f"no App called {name!r} in module {module_name!r}{hint}")
        found = getattr(found, part)
    if inspect.isfunction(found):
        found = _made_by(found, module_name, name)
    if not isinstance(found, App):
        raise CannotLoad(
            f"no App called {name!r} in module {module_name!r}:"
            f" {name} is of type {type(found).__name__}"
        )
    return found


def _deeper(module: ModuleType, module_name: str) -> str:
    """Say where a package's App usually is, if there is such a module."""
    for name in USUAL_MODULES if hasattr(module, "__path__") else ():
        if importlib.util.find_spec(f"{module_name}.{name}") is not None:
            return (
                f"; did you mean {module_name} alone, which looks in {module_name}.{name} as well?"
            )
    return "; it has no App at all"


def _made_by(factory: Callable[[], Any], module_name: str, name: str) -> Any:
    """Call an app factory, `create_app`, without arguments."""
    try:
        return factory()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise CannotLoad(_failed(f"{module_name}:{name}", error, "when called")) from None


def _failed(what: str, error: BaseException, when: str = "on import") -> str:
    told = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in told.stack if not _is_machinery(frame.filename)]
    if isinstance(error, ConfigError):  # the message is the whole story: a line of theirs is wrong
        return _with_place(str(error), frames)
    told.stack = traceback.StackSummary.from_list(frames)
    kind = "the module " if when == "on import" else ""
    return f"{kind}{what!r} failed {when}:\n{''.join(told.format()).rstrip()}"


def _with_place(message: str, frames: list[traceback.FrameSummary]) -> str:
    """Append the line of the user's code that called us, unless the message ends with it."""
    theirs = [one for one in frames if Path(one.filename).is_file() and not _is_ours(one.filename)]
    if not theirs or f":{theirs[-1].lineno})" in message:
        return message
    return f"{message} ({shown_place(theirs[-1].filename, theirs[-1].lineno or 0)})"


def _is_machinery(file: str) -> bool:
    return (
        file == __file__
        or file.startswith("<frozen importlib")
        or Path(file).parts[-2:] == ("importlib", "__init__.py")
    )


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(__file__).parent.parent)
