"""Dead letter: why one event was given up, and what to do about it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

from pydantic_core import from_json

from ...letters.read import DeadLetter, LetterState
from ...operations.dead_letters import CannotRetry
from ...operations.letter_json import as_json
from ...operations.letter_lookup import NoSuchLetter
from ...operations.letter_search import OPEN
from ..page import Ask, Facts, Page, of_letters
from ..states import error_of
from .action import Form, Problem, Redirect
from .letters import notice

log = logging.getLogger("omni_worker.dashboard")

LARGEST = 256 * 1024  # bytes of a body that is shown


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show one dead letter; the event's bytes only if asked for."""
    letters = ask.services.letters
    try:
        found = await letters.get(ask.text("number") or "0")
    except NoSuchLetter as error:
        yield {"letter": None, "why": str(error), "status": 404, "json": {"error": str(error)}}
        return
    [letter] = await letters.with_doubts([found])
    wants_body = bool(ask.text("body")) and ask.services.access.payloads
    body, why_not = await _body(ask, letter) if wants_body else ("", "")
    yield {
        "letter": letter,
        "error": error_of(letter),
        "is_open": letter.state in OPEN,
        "is_retried": letter.state is LetterState.RETRIED,
        "shows_body": wants_body,
        "body": body,
        "why_no_body": why_not,
        "notice": notice(ask),
        "json": as_json(letter, whole=True) | ({"body": body} if wants_body else {}),
    }


async def _body(ask: Ask, letter: DeadLetter) -> tuple[str, str]:
    try:
        content = await ask.services.letters.body(letter)
    except (CannotRetry, NoSuchLetter) as error:
        return "", getattr(error, "reason", str(error))
    if content is None:
        return "", letter.why_not or "its bytes were not kept"
    return pretty(content), ""


def pretty(content: bytes) -> str:
    """Lay out JSON; other bytes are shown escaped."""
    cut = f"\n… {len(content) - LARGEST} more bytes" if len(content) > LARGEST else ""
    try:
        if not cut:
            read: Any = from_json(content)
            return json.dumps(read, ensure_ascii=False, indent=2)
    except ValueError:
        pass
    return content[:LARGEST].decode("utf-8", "backslashreplace") + cut


async def retry(ask: Ask, form: Form) -> Redirect | Problem:
    """Send the event back to the handler it failed in."""
    letters = ask.services.letters
    again, unverified = bool(form.text("again")), bool(form.text("unverified"))
    try:
        letter = await letters.get(form.text("number") or "0")
        done = await letters.retry(letter, again=again, unverified=unverified)
    except NoSuchLetter as error:
        return Problem("There is no such dead letter", str(error), "/letters", 404)
    except CannotRetry as error:
        back = f"/letter?number={error.letter}"
        return Problem(f"Dead letter #{error.letter} was not retried", error.reason, back)
    log.info("%s: retry of dead letter #%d", ask.user, letter.sequence)
    return _shown(form, "before" if done.before else "retry", letter)


async def discard(ask: Ask, form: Form) -> Redirect | Problem:
    """Put a dead letter aside; it stays stored."""
    letters = ask.services.letters
    try:
        letter = await letters.get(form.text("number") or "0")
        await letters.discard(letter)
    except NoSuchLetter as error:
        return Problem("There is no such dead letter", str(error), "/letters", 404)
    except CannotRetry as error:
        back = f"/letter?number={error.letter}"
        return Problem(f"Dead letter #{error.letter} was not discarded", error.reason, back)
    log.info("%s: discarded dead letter #%d", ask.user, letter.sequence)
    return _shown(form, "discard", letter)


def _shown(form: Form, done: str, letter: DeadLetter) -> Redirect:
    """Lead back to the list it came from, with its filters, or to the letter itself."""
    values: dict[str, object] = {"done": done, "number": letter.sequence}
    if form.text("from") != "list":
        return Redirect("/letter", values)
    names = ("handler", "type", "error", "since", "until", "all")
    return Redirect("/letters", {name: form.text(name) for name in names} | values)


PAGE = Page(
    path="/letter",
    name="letter",
    title="Dead letter",
    facts=facts,
    version=of_letters,
    parent="letters",
)
