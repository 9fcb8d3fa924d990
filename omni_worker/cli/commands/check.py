"""`omni-worker check`: ask a worker for its health, for exec probes and for people."""

from __future__ import annotations

import http.client
import json
from typing import Any

import click

from .. import FAILED, complain
from ..tables import lasting

PATIENCE = 5.0  # seconds; a worker that does not answer in time is not healthy


@click.command("check")
@click.option(
    "--health-port", type=click.IntRange(1, 65_535), metavar="PORT", required=True,
    envvar="OMNI_WORKER_HEALTH_PORT", help="That of `omni-worker run`.",
)  # fmt: skip
@click.option(
    "--health-host", default="127.0.0.1", show_default=True, envvar="OMNI_WORKER_HEALTH_HOST",
    metavar="HOST", help="That of `omni-worker run`.",
)  # fmt: skip
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only alive.")
def command(health_port: int, health_host: str, ready: bool) -> int:
    """Check a worker: exit code 0 when it is alive (or ready), else 1 and the reasons.

    For exec probes; the port may be given as OMNI_WORKER_HEALTH_PORT to both commands.
    """
    path = "/readyz" if ready else "/healthz"
    host = "127.0.0.1" if health_host in ("0.0.0.0", "::") else health_host
    connection = http.client.HTTPConnection(host, health_port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        reasons = [str(reason) for reason in said["reasons"]]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        is_nobody = isinstance(error, ConnectionRefusedError)
        why = "nothing listens there" if is_nobody else error or type(error).__name__
        complain(f"no worker answers on {host}:{health_port}: {why}")
        return FAILED
    finally:
        connection.close()
    for reason in reasons:
        complain(reason)
    if reasons or answer.status != 200:
        return FAILED
    click.echo(f"{'ready' if ready else 'alive'}{_who(said)}")
    return 0


def _who(said: dict[str, Any]) -> str:
    """Name the process, if it says which one it is; a parent of several workers does not."""
    match said:
        case {"pid": int(pid), "uptime": int() | float() as uptime}:
            return f", pid {pid}, for {lasting(uptime)}"
    return ""
