"""Target file: a .py file in place of MODULE, and the name of the module that it is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PACKAGE = "__init__.py"
SUFFIX = ".py"


class NotAModule(Exception):
    """You must act: the file does not exist, or cannot be imported; the message says why."""


@dataclass(frozen=True, slots=True)
class TargetFile:
    """A file, the folder that it is imported from, and the name of its module there."""

    shown: str  # as it was typed
    path: Path
    folder: Path
    module: str

    def check_is(self, module: ModuleType) -> None:
        """Raise NotAModule for another module of this name, which was imported before."""
        found = getattr(module, "__file__", None)
        if found is None or not Path(found).exists() or not self.path.samefile(found):
            raise self.hidden_by(module)

    def hidden_by(self, module: ModuleType | None) -> NotAModule:
        """Return the error for a name that is taken by another module."""
        where = getattr(module, "__file__", None) or "a built-in one"
        name = self.module if module is None else module.__name__
        what = "file" if name == self.module else "folder"
        return NotAModule(
            f"{self.shown}: {name} is the name of another module, {where}; rename the {what}"
        )


def find_file(text: str, app_dir: Path | None) -> TargetFile:
    """Find a file in the current directory, or in ``app_dir``. Raises NotAModule."""
    tried = [Path(text)] if app_dir is None else [Path(text), app_dir / text]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        places = " or ".join(str(path) for path in tried)
        raise NotAModule(f"no such file: {places}; give its path from the current directory")
    # Not resolved: a link is imported by its own name, in its own folder.
    path = Path(os.path.abspath(found))
    names = [] if path.name == PACKAGE else [path.stem]
    folder = path.parent
    while (folder / PACKAGE).is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    for name in names:
        if not name.isidentifier():
            better = re.sub(r"\W+", "_", name).strip("_").lower() or "myapp"
            raise NotAModule(
                f"{text}: {name!r} cannot be the name of a Python module; rename it, for example"
                f" to {better if better.isidentifier() else f'app_{better}'}"
            )
    return TargetFile(text, path, folder, ".".join(names))


def folder_of(target: str, app_dir: Path | None) -> Path | None:
    """Return the folder that a target file is imported from; None for a module, or no such file."""
    name = target.partition(":")[0]
    try:
        return find_file(name, app_dir).folder if name.endswith(SUFFIX) else None
    except NotAModule:  # the loader reports that
        return None
