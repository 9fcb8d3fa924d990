"""Discovery: imports every module of a package, so that the handlers in them are declared."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError


def import_package(name: str) -> list[str]:
    """Import a package and every module below it, in order; returns their names.

    Folders without an ``__init__.py`` count as well, ``__main__`` does not: importing it runs a
    program. What a module raises passes through. Raises ConfigError when there is no such package.
    """
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The package itself, or something that it imports?
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"no such package: {error.name!r}; expected one that `import` finds, as myapp.handlers:"
            " is its folder in the working directory or in PYTHONPATH?"
        ) from None
    names = [name]
    for folder in getattr(package, "__path__", ()):
        names += [each for each in _modules(Path(folder), name) if each not in names]
    for each in names[1:]:
        importlib.import_module(each)
    return names


def _modules(folder: Path, package: str) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        name = f"{package}.{path.stem}"
        if not path.stem.isidentifier():
            continue
        if path.is_dir() and path.stem != "__pycache__" and not path.suffix:
            below = list(_modules(path, name))
            if below or (path / "__init__.py").is_file():
                yield name
                yield from below
        elif path.suffix == ".py" and path.stem not in ("__init__", "__main__"):
            yield name
