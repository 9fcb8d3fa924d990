"""`omni-worker check`: asks a worker on this machine how it is, for exec probes and for people."""

from __future__ import annotations

import http.client
import json

import click

from .. import FAILED, Probing, complain

PATIENCE = 5.0  # seconds; a worker that does not answer in time is not well


def check_command(probing: Probing, *, ready: bool) -> int:
    """Returns the exit code: 0 when it is well, 1 when it is not or cannot be asked."""
    path = "/readyz" if ready else "/healthz"
    host = "127.0.0.1" if probing.host in ("0.0.0.0", "::") else probing.host
    connection = http.client.HTTPConnection(host, probing.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        reasons = [str(reason) for reason in said["reasons"]]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        complain(f"no worker answers on {host}:{probing.port}: {error or type(error).__name__}")
        return FAILED
    finally:
        connection.close()
    for reason in reasons:
        complain(reason)
    if reasons or answer.status != 200:
        return FAILED
    click.echo("ready" if ready else "alive")
    return 0
