"""`omni-worker dead-letters show`."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import click

from ....letters.read import DeadLetter, LetterState
from ....operations.dead_letters import CannotRetry, DeadLetters
from ....operations.handler_names import HandlerNames, handler_names
from ....operations.letter_json import as_json
from ....settings import Settings
from ....transports.base import Transport
from ... import say
from ...session import run_with_app
from ...tables import ago, facts, json_text, moment, printable, wrapped
from ...values import json_option
from .chosen import app_option, get, handlers_of, shown_handler

if TYPE_CHECKING:
    from ....app import App

DEEPEST = 16  # columns a line of a traceback is indented


@click.command("show")
@click.argument("letter")
@click.option("--body", is_flag=True, help="Only the event's bytes, as they were.")
@app_option
@json_option
def command(letter: str, body: bool, target: str | None, json: bool) -> int:
    """Show one dead letter: why, where, and how the handler failed.

    The event itself is shown only with --body: chats are private. A terminal gets it with control
    characters escaped, a file or a pipe byte by byte.

    \b
    omni-worker dead-letters show 12
    omni-worker dead-letters show 12 --body | jq .payload

    Exit codes: 0 shown, 1 failed, or its bytes are gone; 2 no such dead letter, or called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App | None) -> int:
        letters = DeadLetters(transport)
        [found] = await letters.with_doubts([await get(letters, letter)])
        if json:
            content = await letters.body(found) if body else None
            say(json_text(as_json(found, whole=True) | _body_json(content), indent=2))
        elif body:
            content = await letters.body(found)
            if content is None:
                raise CannotRetry(found.sequence, found.why_not)
            _write(content)
        else:
            say(_shown(found, await handler_names(transport.operators, handlers_of(app))))
        return 0

    return run_with_app(target, work)


def _shown(letter: DeadLetter, names: HandlerNames) -> list[str]:
    state = str(letter.state)
    if letter.state_time is not None:
        state += f" {ago(letter.state_time)} ago"
    origin = letter.origin
    lines = facts((
        ("dead letter", f"#{letter.sequence} in {letter.stream}"),
        ("id", letter.id),
        ("written", f"{moment(letter.time)} ({ago(letter.time)} ago)"),
        ("state", state),
        ("event", letter.event_id),
        ("type", letter.event_type),
        ("subject", letter.subject),
        ("stored as", f"{origin.stream} #{origin.sequence}" if origin else None),
        ("app", letter.app),
        ("handler", shown_handler(letter, names)),
        ("tries", letter.attempts or None),
        ("correlation", letter.correlation_id),
        ("trace", letter.trace_id),
        ("retry of", letter.retry_of),
        ("unverified", letter.doubt or None),
        ("error", letter.line),
        ("error class", _defined(letter.error_type)),
    ))  # fmt: skip
    if letter.traceback:
        lines += ["", *_traceback(letter.traceback)]
    lines.append("")
    if letter.why_not:
        lines += wrapped(f"It cannot be retried: {printable(letter.why_not)}.")
    elif letter.state is LetterState.RETRIED:
        lines += wrapped("It was sent back already. Send it once more with retry --again.")
    else:
        lines += _ways_on(letter)
    return lines


def _ways_on(letter: DeadLetter) -> list[str]:
    number = letter.sequence
    flag = " --unverified" if letter.doubt else ""
    see = f"See the event: omni-worker dead-letters show {number} --body"
    match letter.error_type if not letter.attempts else "":
        case "omni_worker.wire.Unreadable":
            fails = "No handler can read this message, so sending it back does not help."
            ask = (
                "Correct its sender, and publish the event again with an envelope (docs/events.md)."
            )
            aside = f"Put it aside:  omni-worker dead-letters discard {number}"
            return [*wrapped(f"{fails} {ask}"), aside, see]
        case "omni_worker.wire.SchemaMismatch" | "omni_worker.errors.InvalidPayload":
            fails = "Its payload does not fit the model, so it fails again if it is sent back now."
            ask = "First deploy a model that accepts it; then:"
            back = f"Send it back:  omni-worker dead-letters retry {number}{flag}"
            return [*wrapped(f"{fails} {ask}"), back, see]
    return [f"Send it back:  omni-worker dead-letters retry {number}{flag}", see]


def _defined(error_type: str) -> str | None:
    """Return the module and name of a class; None where the module says nothing."""
    module = error_type.rpartition(".")[0]
    return None if module in ("", "builtins") else error_type


def _traceback(text: str) -> list[str]:
    shown: list[str] = []
    is_wrapped = False
    for line in text.rstrip().split("\n"):
        if is_wrapped and not line.strip(" ^~"):
            continue  # marks under a line of code that is several lines here point nowhere
        indent = " " * min(DEEPEST, len(line) - len(line.lstrip()))
        wrapped_line = wrapped(printable(line), first=indent, rest=indent + "    ")
        is_wrapped = len(wrapped_line) > 1
        shown += wrapped_line
    return shown


def _write(content: bytes) -> None:
    """Write the bytes as they are; escaped on a terminal, which would obey what is in there."""
    if sys.stdout.isatty():
        say(content.decode("utf-8", "backslashreplace"))
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _body_json(content: bytes | None) -> dict[str, Any]:
    if content is None:
        return {}
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(content).decode()}
