"""Requirement: the line by which pip finds the omni-worker that runs here, or one like it."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

NAME = "omni-worker"


def installed(*extras: str) -> str:
    """Return the requirement for what is installed: a checkout, a wheel, a repository, an index.

    pip notes where a package came from, unless that was an index (PEP 610).
    """
    try:
        found = distribution(NAME)
    except PackageNotFoundError:  # run from its folder, without having been installed
        return requirement(None, None, extras)
    noted = found.read_text("direct_url.json")
    return requirement(found.version, json.loads(noted) if noted else None, extras)


def requirement(
    version: str | None, origin: dict[str, Any] | None, extras: tuple[str, ...] = ()
) -> str:
    """Return the requirement for a version that came from ``origin``, as PEP 610 writes it."""
    name = f"{NAME}[{','.join(extras)}]" if extras else NAME
    if origin is None or _is_gone(url := origin["url"]):
        return name if version is None else f"{name}~={version}"
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if folder := origin.get("subdirectory"):
        url = f"{url}#subdirectory={folder}"
    return f"{name} @ {url}"


def _is_gone(url: str) -> bool:
    parsed = urlparse(url)
    return parsed.scheme == "file" and not Path(url2pathname(parsed.path)).exists()
