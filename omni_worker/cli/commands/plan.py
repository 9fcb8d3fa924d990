"""`omni-worker plan`: what an app needs beside what stands; done only where it is said."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...app import App
from ...errors import OmniWorkerError, TopologyError
from ...handler_consumers import planned_consumers
from ...operations.drift import Action, Kind, Needs, Step, apply, find_drift
from ...operations.recreate import Remaking, look_at_remaking, remake
from ...settings import Settings
from ...transports.base import Transport
from .. import CALLED_WRONGLY, FAILED, complain, say
from ..session import CalledWrongly, confirmed, run_for_app
from ..tables import as_json, counted, table, wrapped

DRIFT = 3
TO_DO = (Action.CREATE, Action.UPDATE, Action.LATER)


def plan_command(
    target: str, check: bool, do_apply: bool, recreate: str | None, yes: bool, json: bool
) -> int:
    """Returns the exit code."""
    if sum((check, do_apply, recreate is not None)) > 1:
        complain("--check, --apply and --recreate: give one of them")
        return CALLED_WRONGLY

    async def work(transport: Transport, settings: Settings, app: App) -> int:
        if recreate is not None:
            return await _recreate(transport, app, settings, recreate, yes=yes, json=json)
        needs = Needs(
            app=app.name, handlers=app.handlers, registry=app.registry, settings=settings
        )  # fmt: skip
        steps = await find_drift(transport.operators, needs)
        if do_apply:
            return await _apply(transport, needs, steps, json=json)
        say(as_json([_json(one) for one in steps], indent=2) if json else _shown(steps, target))
        return DRIFT if check and any(one.is_drift for one in steps) else 0

    def adapt(settings: Settings) -> Settings:
        # With PROVISION=off workers create nothing; who says --apply does.
        return settings.model_copy(update={"provision": "on"}) if do_apply else settings

    return run_for_app(target, work, adapt=adapt)


async def _apply(transport: Transport, needs: Needs, steps: list[Step], *, json: bool) -> int:
    """Do all that can be done, and say of each whether it was; then look again."""
    done: list[dict[str, Any]] = []
    for step in steps:
        if step.action not in TO_DO:
            continue
        error = ""
        try:
            await apply(transport, step)
        except OmniWorkerError as failure:
            error = str(failure)
            complain(f"{step.kind} {_name(step)}: {error}")
        else:
            if not json:
                verb = "updated" if step.action is Action.UPDATE else "created"
                say(f"{verb} {step.kind} {_name(step)}")
        done.append(_json(step) | {"done": not error, "error": error or None})
    left = [one for one in await find_drift(transport.operators, needs) if one.is_drift]
    is_whole = not left and all(one["done"] for one in done)
    if json:
        say(as_json({"steps": done, "left": [_json(one) for one in left]}, indent=2))
    elif is_whole:
        say("The server is as the app needs it.")
    elif left:
        say(["", "Still to be settled by hand:", *_table(left)])
    return 0 if is_whole else FAILED


async def _recreate(
    transport: Transport, app: App, settings: Settings, name: str, *, yes: bool, json: bool
) -> int:
    standing = [info.config for info in await transport.operators.streams()]
    found = [planned_consumers(one, app.registry, settings, standing) for one in app.handlers]
    specs = [spec for wanted in found for spec in wanted.specs if spec.name == name]
    if not specs:
        raise _nothing_to_recreate(app, name)
    for spec in specs:
        remaking = await look_at_remaking(transport, spec)
        if not json:
            say(_what_it_means(remaking))
        if not await confirmed(f"Make {name} on {spec.stream} anew?", yes=yes):
            say("Nothing was changed.", err=True)
            return FAILED
        await remake(transport, remaking)
        if json:
            say(as_json(_remaking_json(remaking)))
        else:
            say(f"Consumer {name} on {spec.stream} is made anew.")
    return 0


def _nothing_to_recreate(app: App, name: str) -> Exception:
    names = sorted({one.options.durable for one in app.handlers if one.options.durable})
    if name in names:
        return TopologyError(f"no stream stores what {name} reads: plan --apply makes it")
    there = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"
    return CalledWrongly(f"--recreate {name}: no handler of {app.name} has this durable; {there}")


def _what_it_means(remaking: Remaking) -> list[str]:
    spec = remaking.spec
    lines = [f"Consumer {spec.name} on {spec.stream} would start at #{remaking.start}."]
    lines += wrapped(
        f"{counted(remaking.waiting, 'event')} not delivered yet, and"
        f" {counted(remaking.unacked, 'event')} not answered yet: they come in any case."
    )
    lines += wrapped(
        f"{counted(remaking.repeated, 'event')} acknowledged above its ack floor:"
        f" {'it' if remaking.repeated == 1 else 'they'} would come again."
    )
    if remaking.unacked:
        lines += wrapped("Somebody may hold what is not answered yet: be sure that no worker runs.")
    return lines


def _remaking_json(remaking: Remaking) -> dict[str, Any]:
    return {
        "stream": remaking.spec.stream,
        "consumer": remaking.spec.name,
        "start": remaking.start,
        "waiting": remaking.waiting,
        "unacked": remaking.unacked,
        "repeated": remaking.repeated,
    }


def _shown(steps: list[Step], target: str) -> list[str]:
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
    return f"{step.name} on {step.stream}" if step.stream else step.name


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
        lines += wrapped("A conflict is never settled for you: what is in the way is not ours.")
    return lines


def _json(step: Step) -> dict[str, Any]:
    return {
        "action": step.action,
        "drift": step.is_drift,
        "kind": step.kind,
        "name": step.name,
        "stream": step.stream or (step.name if step.kind is Kind.STREAM else None),
        "says": step.says,
    }
