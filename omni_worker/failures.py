"""Failures: an exception as text: its class, its place, its cause, its traceback. Pure.

Bounded and without secrets. Nothing here raises, whatever an exception's class does.
"""

from __future__ import annotations

import contextlib
import os
import string
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

from pydantic import ValidationError

from .masking import bounded, without_secrets
from .outcomes import Reject, Retry
from .validation import explain

MAX_ERROR = 2_048  # characters of an exception's text
MAX_LINE = 300  # characters of it in a line for people
MAX_TRACEBACK = 8_192  # characters of a traceback
MAX_CHAIN = 1_000  # exceptions, causes and members of groups in all, whose traceback is formatted
MAX_MEMBERS = 3  # exceptions of a group that are named in a line
MAX_CAUSES = 2  # causes, each of the one before it, that are named in a line
MAX_PLACE = 120  # characters of a file's name, and of a function's

_OURS = str(Path(__file__).parent) + os.sep
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple(
    {_PATHS[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_WORD = string.ascii_letters + string.digits + "_"
INPUT = ", input_value="  # what pydantic was given follows


# --- one line ---------------------------------------------------------------------------------


def failure_line(error: BaseException) -> str:
    """Tell a failure in one line: `KeyError: 'amount' (app.py:12 in charge)`.

    Of a group the first exceptions follow, of a Retry or Reject what it was raised for.
    """
    try:
        return bounded(_told(error, MAX_CAUSES), 2 * MAX_ERROR, end=False)
    except BaseException:  # a line about a failure must not be one
        return type(error).__name__


def error_line(error: BaseException) -> str:
    """Name an exception and its text in one line: ``ValueError: the phone is off``."""
    text = error_text(error)
    return f"{type(error).__name__}: {text}"[:MAX_ERROR] if text else type(error).__name__


def whole_text(error: BaseException) -> str:
    """Return an exception's text, with the exceptions of a group and the cause of a Retry."""
    text = error_text(error) or type(error).__name__
    with contextlib.suppress(BaseException):
        text += _members(error) + _cause(error, MAX_CAUSES)
    return text[:MAX_ERROR]


def error_text(error: BaseException) -> str:
    """Return the text of an exception, bounded and without secrets, whatever its class does."""
    text = safe_str(error)
    return without_secrets(text[: 2 * MAX_ERROR])[:MAX_ERROR]


def safe_str(value: object) -> str:
    """Return the text of anything, also if its ``__str__`` raises."""
    try:
        if isinstance(value, ValidationError):
            return explain(value)  # pydantic's own text repeats the payload
        return str.__str__(str(value))  # no subclass, with methods of its own
    except BaseException as another:  # SystemExit as well: a text ends no worker
        return f"its text cannot be read: {type(another).__name__}"


def place_of(error: BaseException) -> str:
    """Return where an exception left the user's code: `app.py:12 in charge`, or nothing.

    Below it are only libraries and this framework.
    """
    found = _place(error.__traceback__)
    if found is None:
        return ""
    frame, line = found
    code = frame.f_code
    name = code.co_qualname.rpartition("<locals>.")[2]
    return f"{_short_path(code.co_filename)[-MAX_PLACE:]}:{line} in {name[:MAX_PLACE]}"


def was_meant(error: BaseException) -> bool:
    """Return True for a Retry or a Reject that no other exception led to: nothing is broken."""
    return isinstance(error, Retry | Reject) and _cause_of(error) is None


def one_line(text: str, longest: int = MAX_LINE) -> str:
    """Return text without line breaks, cut to a length."""
    text = " ".join(text[: 4 * longest].split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _told(error: BaseException, causes: int) -> str:
    place = place_of(error)
    where = f" ({place})" if place else ""
    notes = "".join(f"; {one_line(safe_str(one))}" for one in _notes_of(error)[:1])
    text = one_line(error_line(error)) + where
    return text + notes + _members(error) + _cause(error, causes)


def _notes_of(error: BaseException) -> list[object]:
    notes = getattr(error, "__notes__", None)
    return notes if isinstance(notes, list) else []


def _members(error: BaseException) -> str:
    """Name the first exceptions of a group, also of the groups in it."""
    if not isinstance(error, BaseExceptionGroup):
        return ""
    named: list[str] = []
    for one in members_of(error):
        if len(named) == MAX_MEMBERS:
            named.append("…")
            break
        place = place_of(one)
        named.append(one_line(error_line(one)) + (f" ({place})" if place else ""))
    return ": " + "; ".join(named)


def _cause(error: BaseException, causes: int) -> str:
    cause = _cause_of(error)
    return f", because of {_told(cause, causes - 1)}" if cause is not None and causes else ""


def _cause_of(error: BaseException) -> BaseException | None:
    """Return what an exception was raised for; of a Retry or Reject also what it came during."""
    if error.__cause__ is None and isinstance(error, Retry | Reject):
        return None if error.__suppress_context__ else error.__context__
    return error.__cause__


def members_of(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield every exception of a group, also of nested groups."""
    left: list[BaseException] = [group]  # no recursion: groups may be nested deeper than calls
    seen: set[int] = set()  # one may be in several groups: each once, or there are 2 ** depth
    while left:
        error = left.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            left.extend(reversed(error.exceptions))
        else:
            yield error


# --- its place --------------------------------------------------------------------------------


def _place(trace: TracebackType | None) -> tuple[FrameType, int] | None:
    """Find the last frame of the user's code.

    An app that is installed lies among the libraries: what is of the first frame's package counts.
    """
    found, package = None, None
    while trace is not None:
        frame = trace.tb_frame
        file = frame.f_code.co_filename
        if not file.startswith(_OURS):
            top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            package = top if package is None else package
            if top == package or not file.startswith(_LIBRARIES):
                found = frame, trace.tb_lineno
        trace = trace.tb_next
    return found


def _short_path(path: str) -> str:
    """Return a path below the current directory relative to it, of any other the file's name."""
    try:
        here = os.getcwd() + os.sep
    except OSError:  # the directory is gone
        here = ""
    if here and path.startswith(here) and not path.startswith(_LIBRARIES):
        return path[len(here) :]
    return os.path.basename(path)


# --- the traceback ----------------------------------------------------------------------------


def traceback_text(error: BaseException, *, whole: bool = False) -> str:
    """Return the traceback of an exception, without this framework's frames and payloads.

    ``whole`` keeps our frames. An exception that cannot be formatted is shown by its frames.
    """
    text = _formatted(error, whole)
    if INPUT in text:
        text = "\n".join(
            _without_input(line) if INPUT in line else line for line in text.split("\n")
        )
    return bounded(text.rstrip(), MAX_TRACEBACK)


def _formatted(error: BaseException, whole: bool) -> str:
    why = f"more than {MAX_CHAIN} exceptions in one"
    if not _is_large(error):
        try:
            shown = traceback.TracebackException.from_exception(error, compact=True)
            if not whole:
                _drop_our_frames(shown)
            return "".join(shown.format())
        except BaseException as another:  # groups nested too deep, a SyntaxError without its parts
            why = f"{type(another).__name__} while it was formatted"
    frames = "".join(traceback.format_list(_kept(traceback.extract_tb(error.__traceback__), whole)))
    shown_in_part = f"Traceback (most recent call last):\n{frames}{error_line(error)}"
    return f"{shown_in_part}\n(shown in part: {why})\n"


def _is_large(error: BaseException) -> bool:
    """Tell whether an exception takes long to format: Python looks at all that hangs on it."""
    left: list[BaseException | None] = [error]
    count = 0  # one that is in several groups is formatted for each of them
    while left and count <= MAX_CHAIN:
        one = left.pop()
        if one is None:
            continue
        count += 1
        left.append(one.__context__ if one.__cause__ is None else one.__cause__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions[: MAX_CHAIN + 1]
    return count > MAX_CHAIN


def _drop_our_frames(shown: traceback.TracebackException) -> None:
    left: list[traceback.TracebackException | None] = [shown]
    while left:
        one = left.pop()
        if one is None:
            continue
        one.stack[:] = _kept(one.stack, whole=False)
        left += (one.__cause__, one.__context__, *(one.exceptions or ()))


def _kept(frames: Iterable[traceback.FrameSummary], whole: bool) -> list[traceback.FrameSummary]:
    """Return the frames to show; all of them if none is the user's."""
    frames = list(frames)
    if whole:
        return frames
    kept = [one for one in frames if not one.filename.startswith(_OURS)]
    while kept and kept[0].filename == contextlib.__file__:  # a lifespan's way through it
        del kept[0]
    return kept or frames


def _without_input(line: str) -> str:
    """Remove from a line of pydantic's what it was given: chats are private."""
    # Without an expression, which looks through the rest of the line for each mark in it.
    before, _, rest = line.partition(INPUT)
    _, end, kind = rest.rpartition(", input_type=")
    return before + kind.lstrip(_WORD) if end else line
