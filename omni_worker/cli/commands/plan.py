"""`omni-worker plan`: compare what an app needs with the server; change it with --apply only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import click

from ...app import App
from ...errors import ConfigError, OmniWorkerError, TopologyError
from ...handler_consumers import planned_consumers
from ...handlers import Handler, both_names, find_handlers
from ...operations.drift import Needs, apply, find_drift
from ...operations.recreate import Remaking, look_at_remaking, remake
from ...operations.recreate import as_json as remaking_json
from ...operations.steps import Action, Kind, Step, by_handler
from ...operations.steps import as_json as step_json
from ...settings import Settings
from ...topology import UpdateConsumer, UpdateStream
from ...transports.base import Transport
from .. import CALLED_WRONGLY, FAILED, complain, say
from ..named_target import named
from ..session import CalledWrongly, confirmed, run_for_app
from ..tables import counted, json_text, table, wrapped
from ..values import json_option, verbose_option, yes_option

DRIFT = 3
TO_DO = (Action.CREATE, Action.UPDATE, Action.LATER)
UPDATES = (UpdateStream, UpdateConsumer)


@click.command("plan")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--check", is_flag=True, help="Exit with code 3 when there is drift.")
@click.option("--apply", "do_apply", is_flag=True, help="Create and update what it shows.")
@click.option(
    "--recreate", metavar="HANDLER",
    help="Delete and create the consumer of this handler, at its ack floor.",
)  # fmt: skip
@yes_option
@verbose_option
@json_option
def command(
    target: str,
    check: bool,
    do_apply: bool,
    recreate: str | None,
    yes: bool,
    verbose: bool,
    json: bool,
) -> int:
    """Show what an app needs on the server and how the server differs.

    \b
    create    missing
    update    ours and different, or a stream that lacks a subject
    conflict  not ours to change: a person has to decide
    later     done by a worker when it is first needed; --apply does it now
    foreign   another program's, and it covers what is needed: no drift
    orphaned  a consumer of this app that no handler reads any longer, or a cron

    Only the first three are drift. Nothing is changed without --apply, which creates what is
    missing, adds subjects, updates options and narrows filters. It deletes nothing but orphaned
    crons.

    --recreate deletes one consumer and creates it again, for changes that the server does not
    allow. It is refused while workers read the consumer, and shows how many events come again. A
    consumer that has to take over from a handler's second one begins at the first unsettled event.

    \b
    omni-worker plan myapp:app --check   # in CI
    omni-worker plan myapp:app --apply   # when the old version is gone
    omni-worker plan myapp:app --recreate r1

    Exit codes: 0 done, 1 failed, or a conflict remains; 2 called wrongly; 3 drift (with --check).
    """
    if sum((check, do_apply, recreate is not None)) > 1:
        complain("--check, --apply and --recreate: give one of them")
        return CALLED_WRONGLY

    async def work(transport: Transport, settings: Settings, app: App) -> int:
        if recreate is not None:
            return await _recreate(transport, app, settings, recreate, yes=yes, json=json)
        needs = Needs(
            app=app.name, handlers=app.handlers, registry=app.registry, settings=settings
        )  # fmt: skip
        steps = [_named(one, target) for one in await find_drift(transport, needs)]
        if do_apply:
            return await _apply(transport, needs, steps, target, json=json)
        say(
            json_text([step_json(one) for one in steps], indent=2)
            if json
            else _shown(steps, target, verbose)
        )
        return DRIFT if check and any(one.is_drift for one in steps) else 0

    def adapt(settings: Settings) -> Settings:
        # With PROVISION=off workers create nothing; --apply does.
        return settings.model_copy(update={"provision": "on"}) if do_apply else settings

    return run_for_app(target, work, adapt=adapt)


def _named(step: Step, target: str) -> Step:
    return replace(step, says=named(step.says, target))


async def _apply(
    transport: Transport, needs: Needs, steps: list[Step], target: str, *, json: bool
) -> int:
    """Do all that can be done and report each step; then compare again."""
    done: list[dict[str, Any]] = []
    for step in steps:
        if step.action not in TO_DO and step.kind is not Kind.CRON:
            continue
        error = ""
        try:
            await apply(transport, step)
        except OmniWorkerError as failure:
            error = str(failure)
            complain(f"{step.kind} {_name(step)}: {error}")
        else:
            if not json:
                verb = "updated" if isinstance(step.change, UPDATES) else "created"
                verb = "removed" if step.kind is Kind.CRON else verb
                say(f"{verb} {step.kind} {_name(step)}")
        done.append(step_json(step) | {"done": not error, "error": error or None})
    left = [_named(one, target) for one in await find_drift(transport, needs) if one.is_drift]
    is_whole = not left and all(one["done"] for one in done)
    if json:
        say(json_text({"steps": done, "left": [step_json(one) for one in left]}, indent=2))
    elif is_whole:
        say("The server is as the app needs it.")
    elif left:
        say(["", "To be resolved by hand:", *_table(by_handler(left))])
    return 0 if is_whole else FAILED


async def _recreate(
    transport: Transport, app: App, settings: Settings, name: str, *, yes: bool, json: bool
) -> int:
    standing = [info.config for info in await transport.operators.streams()]
    for handler in _durable_handlers(app, name):
        shown = handler.shown
        wanted = planned_consumers(handler, app.registry, settings, standing)
        if not wanted.specs:
            raise TopologyError(f"no stream stores what {shown} reads: plan --apply creates it")
        # All are looked at first: one that is read refuses before another is changed.
        looked = [
            (one.stream, [await look_at_remaking(transport, spec) for spec in one.specs])
            for one in wanted.consumers
        ]
        for stream, remakings in looked:
            for remaking in remakings if not json else ():
                say(_what_it_means(remaking))
            if not await confirmed(f"Recreate {shown} on {stream}?", yes=yes):
                say("Nothing was changed.", err=True)
                return FAILED
            for remaking in remakings:
                await remake(transport, remaking)
                if json:
                    say(json_text(remaking_json(remaking)))
                else:
                    say(f"Consumer {remaking.spec.name} on {stream} is recreated.")
    return 0


def _durable_handlers(app: App, name: str) -> list[Handler]:
    """Find the handlers of this name that have a durable. Raises CalledWrongly for none."""
    durable = [one for one in app.handlers if one.options.durable]
    try:
        return find_handlers(durable, name)
    except ConfigError as error:
        raise CalledWrongly(f"--recreate {name}: among handlers with a durable, {error}") from None


def _what_it_means(remaking: Remaking) -> list[str]:
    spec = remaking.spec
    start = f"Consumer {spec.name} on {spec.stream} would start at #{remaking.start}"
    takes = f", and take over from {remaking.absorbs}, which is deleted" if remaking.absorbs else ""
    lines = wrapped(f"{start}{takes}.")
    lines += wrapped(
        f"{counted(remaking.waiting, 'event')} not delivered yet, and"
        f" {counted(remaking.unacked, 'event')} not acknowledged yet: they come in any case."
    )
    lines += wrapped(
        f"{counted(remaking.repeated, 'event')} acknowledged above"
        f" {'that place' if remaking.absorbs else 'its ack floor'}:"
        f" {'it' if remaking.repeated == 1 else 'they'} would come again."
    )
    if remaking.unacked:
        lines += wrapped(
            "A worker may still hold the unacknowledged events: make sure that none runs."
        )
    return lines


def _shown(every: list[Step], target: str, verbose: bool) -> list[str]:
    steps = every if verbose else by_handler(every)
    lines = _table(steps)
    return [*lines, *([""] if lines else []), *_advice(steps, target)]


def _table(steps: list[Step]) -> list[str]:
    rows = [
        [one.action, one.kind, _name(one), one.says]
        for one in steps
        if one.action is not Action.FINE
    ]
    return table(["ACTION", "KIND", "NAME", "WHY"], rows) if rows else []


def _name(step: Step) -> str:
    name = both_names(step.function, step.name)
    return f"{name} on {step.stream}" if step.stream else name


def _advice(steps: list[Step], target: str) -> list[str]:
    counts = Counter(one.action for one in steps)
    found = [
        f"{counts[action]} {words}"
        for action, words in (
            (Action.CREATE, "to create"), (Action.UPDATE, "to update"),
            (Action.CONFLICT, "in conflict"),
        )
        if counts[action]
    ]  # fmt: skip
    if not found:
        fine = sum(one.action in (Action.FINE, Action.FOREIGN) for one in steps)
        return wrapped(f"No drift: all {fine} streams and consumers it needs are there.")
    lines = wrapped(", ".join(found) + ".")
    if counts[Action.CREATE] or counts[Action.UPDATE]:
        lines.append(f"Do it:  omni-worker plan {target} --apply")
    if counts[Action.CONFLICT]:
        lines += wrapped(
            "A conflict is never resolved for you: it is about what other programs own, or events"
            " that would be lost or repeated."
        )
    return lines
