"""`omni-worker plan`: what an app needs beside what stands; done only where it is said."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from ...app import App
from ...errors import OmniWorkerError
from ...operations.drift import Action, Kind, Needs, Step, apply, find_drift
from ...operations.recreate import look_at_remaking, remake
from ...operations.wanted import wanted_consumers
from ...settings import Settings
from ...transports.base import Transport
from .. import CALLED_WRONGLY, FAILED, complain
from .running import CalledWrongly, confirmed, grouped, loaded, run_operation
from .tables import as_json, wrapped

DRIFT = 3
TO_DO = (Action.CREATE, Action.UPDATE, Action.LATER)


def plan_command(
    target: str, check: bool, do_apply: bool, recreate: str | None, yes: bool, json: bool
) -> int:
    """Returns the exit code."""
    if sum((check, do_apply, recreate is not None)) > 1:
        complain("--check, --apply and --recreate: give one of them")
        return CALLED_WRONGLY

    async def work(transport: Transport, settings: Settings) -> int:
        app = loaded(target)
        if recreate is not None:
            return await _recreate(transport, app, settings, recreate, yes=yes)
        needs = Needs(
            app=app.name, handlers=app.handlers, registry=app.registry,
            settings=app.settings or settings,
        )  # fmt: skip
        steps = await find_drift(transport.operators, needs)
        if json and not do_apply:
            click.echo(as_json([_json(one) for one in steps], indent=2))
        else:
            _print(_lines(steps))
        if do_apply:
            return await _apply(transport, needs, steps)
        if not json:
            _print(_advice(steps, target))
        return DRIFT if check and any(one.is_drift for one in steps) else 0

    # With PROVISION=off workers create nothing; who says --apply does.
    settings = _settings()
    if settings is not None and do_apply:
        settings = settings.model_copy(update={"provision": "on"})
    return run_operation(work, settings)


def _settings() -> Settings | None:
    try:
        return Settings()
    except OmniWorkerError:
        return None  # said when it is read again


async def _apply(transport: Transport, needs: Needs, steps: list[Step]) -> int:
    failed = 0
    for step in steps:
        if step.action not in TO_DO:
            continue
        try:
            await apply(transport, step)
        except OmniWorkerError as error:
            failed += 1
            complain(f"{step.kind} {_name(step)}: {error}")
        else:
            done = "updated" if step.action is Action.UPDATE else "created"
            click.echo(f"{done} {step.kind} {_name(step)}")
    left = [one for one in await find_drift(transport.operators, needs) if one.is_drift]
    if left or failed:
        _print(["Still to be settled by hand:", *_lines(left)])
        return FAILED
    click.echo("The server is as the app needs it.")
    return 0


async def _recreate(
    transport: Transport, app: App, settings: Settings, name: str, *, yes: bool
) -> int:
    standing = [info["config"] for info in await transport.operators.streams()]
    specs = [
        spec
        for handler in app.handlers
        for spec in wanted_consumers(
            handler, app.registry, app.settings or settings, standing
        ).specs
        if spec.name == name
    ]
    if not specs:
        names = sorted({h.options.durable for h in app.handlers if h.options.durable})
        raise CalledWrongly(
            f"--recreate {name}: no handler of {app.name} has this durable;"
            f" there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"
        )
    for spec in specs:
        remaking = await look_at_remaking(transport, spec)
        for line in (
            f"Consumer {spec.name} on {spec.stream} would start at #{remaking.start}.",
            f"{grouped(remaking.waiting)} events wait, {grouped(remaking.unacked)} are not"
            " answered yet: they come in any case.",
            f"{grouped(remaking.repeated)} were acknowledged above its ack floor and would come"
            " again.",
        ):
            click.echo("\n".join(wrapped(line)))
        if not await confirmed(f"Make {spec.name} on {spec.stream} anew?", yes=yes):
            return FAILED
        await remake(transport, remaking)
        click.echo(f"Consumer {spec.name} on {spec.stream} is made anew.")
    return 0


def _print(lines: list[str]) -> None:
    if lines:
        click.echo("\n".join(lines) + "\n")


def _name(step: Step) -> str:
    return f"{step.name} on {step.stream}" if step.stream else step.name


def _lines(steps: list[Step]) -> list[str]:
    shown = [one for one in steps if one.action is not Action.FINE]
    names = [_name(one) for one in shown]
    width = min(34, max((len(name) for name in names), default=0))
    lines = []
    for step, name in zip(shown, names, strict=True):
        first = f"{step.action:8}  {step.kind:8}  {name:{width}}  "
        if len(name) > width:  # its own line, so that the columns stay where they are
            lines.append(first.rstrip())
            first = " " * (8 + 2 + 8 + 2 + width + 2)
        lines += wrapped(step.says, first=first)
    return lines


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
        return wrapped(f"No drift: all {fine} streams and consumers it needs stand.")
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
