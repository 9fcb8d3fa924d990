"""Machine: what the figures were measured on and with; figures without these say nothing."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path

from omni_worker.nats_server import find_binary

from .processes import ROOT, interpreter

_DISTRIBUTIONS = ("nats-py", "pydantic", "uvloop", "faststream", "taskiq", "taskiq-nats")
_ASK = """
import json, platform
from importlib.metadata import PackageNotFoundError, version
found = {"Python": platform.python_version()}
for name in %r:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def machine() -> dict[str, str]:
    """The machine, without a name that would say whose it is."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{_memory() / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Of the Python the measured processes run on, its libraries, the server and the C client."""
    asked = [interpreter(), "-c", _ASK % (_DISTRIBUTIONS,)]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(said)
    server = subprocess.run([find_binary(), "--version"], capture_output=True, text=True).stdout
    found["nats-server"] = server.strip().rpartition("v")[2]
    if (library := _libnats()) is not None:
        found["libnats"] = library
    return found


def commit() -> str:
    """The commit that is measured; `+` when files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    name = git("rev-parse", "--short", "HEAD") or "unknown"
    return name + ("+" if git("status", "--porcelain", "omni_worker") else "")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.*)", text)
    return found.group(1).strip() if found else platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _libnats() -> str | None:
    header = Path("/usr/include/nats/version.h")
    if not header.exists():
        return None
    found = re.search(r'NATS_VERSION_STRING\s+"([^"]+)"', header.read_text())
    return found.group(1) if found else None
