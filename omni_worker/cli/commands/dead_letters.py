"""`omni-worker dead-letters`: the work of list, show, retry and discard."""

from __future__ import annotations

import base64
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...letters.read import DeadLetter, LetterState
from ...operations.dead_letters import CannotRetry, DeadLetters
from ...settings import Settings
from ...topology import retry_consumer
from ...transports.base import Transport
from .. import FAILED, say
from ..session import CalledWrongly, Progress, confirmed, run_operation
from ..tables import ago, as_json, counted, facts, grouped, iso, moment, printable, table, wrapped


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters are meant: named ones, or those that fit the filters."""

    names: tuple[str, ...]
    wanted: Mapping[str, Any]
    every: bool


def list_command(wanted: Mapping[str, Any], limit: int, json: bool) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        progress = Progress("letters read:")
        found = DeadLetters(transport).list(**wanted, progress=progress)
        shown: deque[DeadLetter] = deque(maxlen=limit or None)
        count = 0
        async for letter in found:
            count += 1
            if json and not limit:
                progress.clear()
                say(as_json(letter_json(letter)))
            else:
                shown.append(letter)
        progress.clear()
        if json:
            for letter in shown:
                say(as_json(letter_json(letter)))
        else:
            say(_listing(list(shown), count, wanted, settings))
        return 0

    return run_operation(work)


def show_command(name: str, body: bool, json: bool) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        letters = DeadLetters(transport)
        letter = await _get(letters, name)
        if json:
            content = await letters.body(letter) if body else None
            say(as_json(letter_json(letter, whole=True) | _body_json(content), indent=2))
        elif body:
            content = await letters.body(letter)
            if content is None:
                raise CannotRetry(letter, letter.why_not)
            _write(content)
        else:
            say(_shown(letter))
        return 0

    return run_operation(work)


def retry_command(chosen: Chosen, again: bool, yes: bool, json: bool) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        letters = DeadLetters(
            transport, create=settings.provision == "on", replicas=settings.replicas
        )
        apps: set[str] = set()

        async def retry(letter: DeadLetter) -> tuple[DeadLetter, str]:
            retried = await letters.retry(letter, again=again)
            apps.add(letter.app or "")
            if retried.before:
                when = ago(retried.letter.state_time)
                return retried.letter, f"was sent back {when} ago; --again sends it once more"
            return retried.letter, f"on its way back to {letter.handler} of {letter.app}"

        code = await _for_each(letters, chosen, retry, "Send back", yes=yes, json=json)
        if not json:
            for app in sorted(apps):
                await _say_who_reads(transport, app)
        return code

    return run_operation(work)


def discard_command(chosen: Chosen, yes: bool, json: bool) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        letters = DeadLetters(transport, create=settings.provision == "on")

        async def discard(letter: DeadLetter) -> tuple[DeadLetter, str]:
            return await letters.discard(letter), "put aside"

        return await _for_each(letters, chosen, discard, "Put aside", yes=yes, json=json)

    return run_operation(work)


def letter_json(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """A letter for programs; ``whole`` with its traceback."""
    origin = letter.origin
    return {
        "number": letter.sequence,
        "id": letter.id,
        "stream": letter.stream,
        "time": iso(letter.time),
        "state": letter.state,
        "stateTime": iso(letter.state_time),
        "type": letter.event_type,
        "eventId": letter.event_id,
        "subject": letter.subject,
        "origin": {"stream": origin.stream, "sequence": origin.sequence} if origin else None,
        "app": letter.app,
        "handler": letter.handler,
        "attempts": letter.attempts,
        "error": letter.error,
        "errorType": letter.error_type,
        "correlationId": letter.correlation_id,
        "traceId": letter.trace_id,
        "retryOf": letter.retry_of,
        "cannotRetry": letter.why_not or None,
    } | ({"traceback": letter.traceback} if whole else {})


async def _get(letters: DeadLetters, name: str) -> DeadLetter:
    progress = Progress("letters read:")
    try:
        return await letters.get(name, progress=progress)
    finally:
        progress.clear()


def _write(content: bytes) -> None:
    """Byte by byte into a file or a pipe; a terminal would obey what is in there."""
    if sys.stdout.isatty():
        say(content.decode("utf-8", "backslashreplace"))
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


async def _for_each(
    letters: DeadLetters,
    chosen: Chosen,
    act: Callable[[DeadLetter], Awaitable[tuple[DeadLetter, str]]],
    verb: str,
    *,
    yes: bool,
    json: bool,
) -> int:
    """Do it to every letter that is meant, one line each; returns the exit code."""
    _check(chosen)
    if not chosen.names:
        count = await _count(letters, chosen)
        if not count:
            say("There is no open dead letter of that kind.", err=json)
            return 0
        if not await confirmed(f"{verb} {counted(count, 'dead letter')}?", yes=yes):
            say("Nothing was done.", err=True)
            return FAILED
    code = 0
    async for letter in _meant(letters, chosen):
        try:
            done, said = await act(letter)
        except CannotRetry as error:
            code = FAILED
            done, said = letter, error.reason
        if json:
            say(as_json(letter_json(done) | {"said": said}))
        else:
            say(wrapped(printable(said), first=f"#{letter.sequence}  "))
    return code


def _check(chosen: Chosen) -> None:
    filters = any(value is not None for value in chosen.wanted.values())
    if sum((bool(chosen.names), filters, chosen.every)) != 1:
        raise CalledWrongly(
            "which letters? Give numbers of omni-worker dead-letters list, or filters such as"
            " --handler, or --every; not several of these"
        )


async def _count(letters: DeadLetters, chosen: Chosen) -> int:
    progress = Progress("letters read:")
    count = 0
    async for _ in letters.list(**chosen.wanted, progress=progress):
        count += 1
    progress.clear()
    return count


async def _meant(letters: DeadLetters, chosen: Chosen) -> AsyncIterator[DeadLetter]:
    if chosen.names:
        # All of them first: a typing error in the last must not leave half of them done.
        for letter in [await _get(letters, name) for name in chosen.names]:
            yield letter
        return
    async for letter in letters.list(**chosen.wanted):
        yield letter


async def _say_who_reads(transport: Transport, app: str) -> None:
    spec = retry_consumer(app)
    info = await transport.operators.consumer_info(spec.stream, spec.name)
    if info is not None and not info.num_waiting:
        text = (
            f"No worker of {app!r} reads them right now: one that runs looks every ten seconds,"
            " one that starts looks at once."
        )
        say(wrapped(text))


def _listing(
    shown: list[DeadLetter], count: int, wanted: Mapping[str, Any], settings: Settings
) -> list[str]:
    everything = bool(wanted["all"])
    filtered = any(value for key, value in wanted.items() if key != "all")
    if not shown:
        kind = "such dead letter" if filtered else "dead letter"
        more = "" if everything else "; --all shows those retried or discarded"
        return wrapped(f"No {'' if everything else 'open '}{kind} on {settings.shown_urls}{more}.")
    head = ["#", "AGE", "TYPE", "HANDLER", "TRIES", "ERROR"]
    rows = [
        [one.sequence, ago(one.time), one.event_type or "-", one.handler or "-",
         one.attempts or "-", one.error or "-"]
        for one in shown
    ]  # fmt: skip
    if everything:
        head.insert(2, "STATE")
        for row, one in zip(rows, shown, strict=True):
            row.insert(2, one.state)
    lines = table(head, rows, right=(0, 4 + everything))
    if count > len(shown):
        lines += wrapped(
            f"The last {len(shown)} of {grouped(count)}; --limit 0 shows all,"
            " --handler, --type, --error and --since choose."
        )
    last = shown[-1].sequence
    return [*lines, "", f"Look into one:  omni-worker dead-letters show {last}"]


def _shown(letter: DeadLetter) -> list[str]:
    state = str(letter.state)
    if letter.state_time is not None:
        state += f" {ago(letter.state_time)} ago"
    origin = letter.origin
    lines = facts((
        ("letter", f"#{letter.sequence} in {letter.stream}"),
        ("id", letter.id),
        ("written", f"{moment(letter.time)} ({ago(letter.time)} ago)"),
        ("state", state),
        ("event", letter.event_id),
        ("type", letter.event_type),
        ("subject", letter.subject),
        ("stored as", f"{origin.stream} #{origin.sequence}" if origin else None),
        ("app", letter.app),
        ("handler", letter.handler),
        ("tries", letter.attempts or None),
        ("correlation", letter.correlation_id),
        ("trace", letter.trace_id),
        ("retry of", letter.retry_of),
        ("error", letter.error),
        ("error type", letter.error_type),
    ))  # fmt: skip
    if letter.traceback:
        lines.append("")
        for line in letter.traceback.rstrip().split("\n"):
            indent = " " * (len(line) - len(line.lstrip()))
            lines += wrapped(printable(line), first=indent, rest=indent + "    ")
    lines.append("")
    if letter.why_not:
        lines += wrapped(f"It cannot be retried: {printable(letter.why_not)}.")
    elif letter.state is LetterState.RETRIED:
        lines += wrapped("It was sent back already. Send it once more with retry --again.")
    else:
        lines.append(f"Send it back:  omni-worker dead-letters retry {letter.sequence}")
        lines.append(f"See the event: omni-worker dead-letters show {letter.sequence} --body")
    return lines


def _body_json(content: bytes | None) -> dict[str, Any]:
    if content is None:
        return {}
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(content).decode()}
