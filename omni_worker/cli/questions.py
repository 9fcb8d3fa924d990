"""`show`, `plan`, `status`, `tail`, `trace`, `doctor` and `completion`: what they take."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import click

from .values import Moment, Rate, json_option, yes_option

A_DAY = timedelta(hours=24)


@click.command(short_help="Show what an app declares; no server is needed.")
@click.argument("target", metavar="MODULE[:APP]")
@json_option
def show(target: str, as_json: bool) -> None:
    """Show what an app declares: handlers, filters, consumers, options, schemas, streams.

    No server is needed: streams are shown as they are on a new one. `plan` compares with a real
    one. A type that is probably misspelt is told as doubtful.

    \b
    omni-worker show myapp:app
    omni-worker show myapp:app --json | jq .handlers[].filters

    Exit codes: 0 shown, 2 called wrongly, or the module cannot be imported.
    """
    from .commands.show import show_command

    sys.exit(show_command(target, as_json))


@click.command(short_help="Show what an app needs on the server, and mend it.")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--check", is_flag=True, help="Exit with code 3 when there is drift.")
@click.option("--apply", "do_apply", is_flag=True, help="Create and update what it shows.")
@click.option("--recreate", metavar="DURABLE", help="Make this consumer anew at its ack floor.")
@yes_option
@json_option
def plan(
    target: str, check: bool, do_apply: bool, recreate: str | None, yes: bool, as_json: bool
) -> None:  # fmt: skip
    """Show what an app needs on the server and how it differs from what stands.

    \b
    create    missing
    update    ours and different, or a stream that lacks a subject
    conflict  not ours to change: somebody has to decide
    later     made when it is first needed; --apply makes it now
    foreign   another program's, and it covers what is needed: no drift
    left      a consumer of this app that no handler reads any more

    Only the first three are drift. Nothing is touched without --apply, which creates what is
    missing, adds subjects, updates options and narrows filters. It never deletes. --recreate
    deletes one consumer and makes it anew, for what the server does not let be changed: refused
    while workers read it, and it says how many events come again.

    \b
    omni-worker plan myapp:app --check   # in CI
    omni-worker plan myapp:app --apply   # when the old version is gone
    omni-worker plan myapp:app --recreate r1

    Exit codes: 0 done, 1 could not, or a conflict is left; 2 called wrongly; 3 drift (with
    --check).
    """
    from .commands.plan import plan_command

    sys.exit(plan_command(target, check, do_apply, recreate, yes, as_json))


@click.command(short_help="Show what every consumer has before it.")
@click.argument("target", metavar="[MODULE[:APP]]", required=False)
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@json_option
def status(target: str | None, watch: bool, as_json: bool) -> None:
    """Show what every consumer has before it, or only those of an app.

    \b
    WAITING   stored and not delivered yet
    UNACKED   delivered and not answered yet; what waits for its retry too
    AGAIN     of these, delivered more than once
    LAG       how long ago the oldest event it still owes was stored
    PULLS     requests of workers that wait for events; 0: nobody reads

    With an app, consumers it wants and nobody has made yet are shown as missing. --watch goes on
    through a restart of the server; with --json it prints one object a line.

    \b
    omni-worker status --watch
    omni-worker status myapp:app --json | jq '.consumers[] | select(.waiting > 0)'

    Exit codes: 0 shown, 1 could not, 2 called wrongly, 130 Ctrl-C.
    """
    from .commands.status import status_command

    sys.exit(status_command(target, watch, as_json))


@click.command(short_help="Show events as they are stored, or past ones.")
@click.argument("pattern", default=">", metavar="[PATTERN]")
@click.option("--since", type=Moment(), metavar="WHEN", help="What was stored since: 1h, a date.")
@click.option("-f", "--follow", is_flag=True, help="After --since, go on with what comes.")
@click.option("--payloads", is_flag=True, help="Show what is in the events, too.")
@json_option
def tail(
    pattern: str, since: datetime | None, follow: bool, payloads: bool, as_json: bool
) -> None:  # fmt: skip
    """Show events as they are stored, until Ctrl-C; with --since, past ones.

    PATTERN is an event type or a subject: `message.received`, `message.*.whatsapp.>`.
    What is in the events is shown with --payloads only: chats are private.

    It goes on through a restart of the server. With --json one object a line.

    \b
    omni-worker tail message.received
    omni-worker tail 'custom.>' --since 1h --json --payloads | jq .payload

    Exit codes: 0 shown, also when there was nothing; 1 could not, 2 called wrongly, 130 Ctrl-C.
    """
    from .commands.tail import tail_command

    sys.exit(tail_command(pattern, since, follow, payloads, as_json))


@click.command(short_help="Show where an event is and what became of it.")
@click.argument("event", metavar="EVENT_ID")
@click.option(
    "--since", type=Moment(), metavar="WHEN", default=lambda: datetime.now(UTC) - A_DAY,
    help="How far back to look: 7d, a date. Without: 24h.",
)  # fmt: skip
@json_option
def trace(event: str, since: datetime, as_json: bool) -> None:
    """Show where an event is, who has had it, how it failed, and what it caused.

    Every stream is looked through from --since on. Of each consumer is said what its positions
    tell: settled; in flight or settled (it was delivered, and an older event is still open); not
    yet delivered. What it caused is found by the correlation id. Instead of an id a place will do,
    for what has no id or cannot be read.

    \b
    omni-worker trace 0f7e2c1a-9d0b-4a52-8d8e-6d0f6a1c2b3d
    omni-worker trace 'MESSAGE #8' --since 7d

    Exit codes: 0 found, 1 no such event, or could not; 2 called wrongly.
    """
    from .commands.trace import trace_command

    sys.exit(trace_command(event, since, as_json))


@click.command(short_help="Run past events through one handler again.")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--handler", required=True, metavar="NAME", help="Its durable, name or function.")
@click.option("--since", type=Moment(), required=True, metavar="WHEN", help="2h, 7d, a date.")
@click.option("--until", type=Moment(), metavar="WHEN", help="No younger ones.")
@click.option(
    "--where", multiple=True, metavar="KEY=VALUE",
    help="Only these; channel, instance, type, id, source or correlationId; may be repeated.",
)  # fmt: skip
@click.option("--rate", type=Rate(), metavar="N/s", help="No more than so many: 100/s, 30/m.")
@click.option("--dry-run", is_flag=True, help="Show what it would publish, and publish nothing.")
@click.option("--payloads", is_flag=True, help="With --dry-run: what is in these events, too.")
@yes_option
@json_option
def replay(
    target: str, handler: str, since: datetime, until: datetime | None, where: tuple[str, ...],
    rate: float | None, dry_run: bool, payloads: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run past events through one handler again.

    The handler runs here, in this process, with the app's lifespan and middlewares. Its consumer
    is not touched. ctx.replay is true. Each event runs once: what fails is told, not retried and
    no dead letter. --dry-run holds back what is published through the framework; what the
    handler does elsewhere, to a database or a service, it does.

    What it publishes has the ids of the first time: within two minutes the server keeps one
    copy, later it stores another. The command asks before that.

    \b
    omni-worker replay myapp:app --handler r1 --since 2h --dry-run
    omni-worker replay myapp:app --handler r1 --since 2h \\
        --where channel=whatsapp --rate 100/s

    Exit codes: 0 all were handled, 1 some failed, or could not; 2 called wrongly.
    """
    from .commands.replay import replay_command

    sys.exit(replay_command(
        target, handler, since, until, where, rate, dry_run, payloads, yes, as_json
    ))  # fmt: skip


@click.command(short_help="Say whether a server is fit, and what to do.")
@click.option("--monitor", metavar="URL", help="The server's monitoring, http://HOST:8222.")
@json_option
def doctor(monitor: str | None, as_json: bool) -> None:
    """Look whether a server is fit for the promises, and say what to do.

    Its version and features, streams, limits, this login's rights, both clocks; consumers that
    nobody reads, that are paused, full, or whose max_deliver strands events; events that die
    unread soon; and with --monitor how often the server flushes to disk. Nothing is changed.

    \b
    ok    as it should be
    note  it cannot be seen from here, or concerns others
    warn  something to look at
    FAIL  a promise cannot be kept like this

    \b
    omni-worker doctor --monitor http://localhost:8222

    Exit codes: 0 well, also with warnings; 1 something fails, or no answer; 2 called wrongly.
    """
    from .commands.doctor import doctor_command

    sys.exit(doctor_command(monitor, as_json))


@click.command(short_help="Write a completion script for your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Write a script with which Tab completes commands and options in your shell.

    \b
    omni-worker completion bash >> ~/.bashrc
    omni-worker completion zsh >> ~/.zshrc
    omni-worker completion fish > ~/.config/fish/completions/omni-worker.fish

    It takes effect in the next shell you open.
    """
    from click.shell_completion import get_completion_class

    from . import main

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "omni-worker", "_OMNI_WORKER_COMPLETE").source())
