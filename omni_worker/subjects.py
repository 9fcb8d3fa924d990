"""Subjects: the address of an event, `{type}.{channel}.{instance}`, built, parsed and compared.

Pure text. Which streams hold a subject is topology's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from .errors import InvalidSubject

MAX_TOKEN = 128  # characters
LONGEST_REMEMBERED = 256  # characters of a type; a long one would fill the memory of the cache
MAX_SUBJECT = 2048  # bytes; the server's control line ends at 4096 and carries a reply as well
SURELY_SHORT = MAX_SUBJECT // 4  # characters: no character has more than four bytes

# White space and control characters break the protocol line, lone surrogates cannot be encoded.
_ONE = r"[^\s.*>\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_TOKEN = re.compile(_ONE)
_INSTANCE = re.compile(rf"(?!\$){_ONE}(?:\.(?!\$){_ONE})*")


# How an event without channel and instance is addressed; newer programs never publish bare.
BARE = "bare"
Unaddressed = Literal["bare", "internal.global"]


class Address(NamedTuple):
    """A parsed subject; channel and instance are both None on a bare one."""

    type: str
    channel: str | None
    instance: str | None


def build_subject(type: str, channel: str | None = None, instance: str | None = None) -> str:
    """The subject an event is published on: `T.C.I`, or the bare type without the two.

    Raises InvalidSubject when only one of channel and instance is given, or when a token could
    address another subject or break the protocol.
    """
    try:
        head = _head.__wrapped__ if len(type) > LONGEST_REMEMBERED else _head
        if channel is None and instance is None:
            return head(type, None)
        if channel is not None and instance is not None:
            begin = head(type, channel)
            # An instance is checked each time: there may be one for every event.
            if len(instance) <= MAX_TOKEN and _INSTANCE.fullmatch(instance):
                subject = f"{begin}.{instance}"
                return subject if len(subject) <= SURELY_SHORT else _bounded(subject)
    except TypeError:  # what cannot be hashed or measured is no text
        pass
    return _built(type, channel, instance)


@lru_cache(maxsize=4096)
def _head(type: str, channel: str | None) -> str:
    check_type(type)
    if channel is None:
        return type
    check_channel(channel)
    return f"{type}.{channel}"


def _built(type: str, channel: str | None, instance: str | None) -> str:
    """Build the long way, which names what is wrong."""
    check_type(type)
    if channel is None or instance is None:
        given, missing = ("channel", "instance") if instance is None else ("instance", "channel")
        raise InvalidSubject(
            f"{type}: {given}= without {missing}=; they go together, give both or neither"
        )
    check_channel(channel)
    check_instance(instance)
    return _bounded(f"{type}.{channel}.{instance}")


def subject_on_the_wire(type: str, subject: str, unaddressed: str) -> str:
    """Return where an event goes: a bare subject is written as the setting says.

    ``unaddressed`` is `bare`, or the channel and instance of events that have none.
    """
    return subject if subject != type or unaddressed == BARE else f"{type}.{unaddressed}"


def ways_to_write(type: str, subject: str) -> tuple[str, ...]:
    """Return the subjects on which an event may be, whatever the setting says."""
    if subject != type:
        return (subject,)
    return tuple(subject_on_the_wire(type, subject, one) for one in get_args(Unaddressed))


def build_subscribe_pattern(
    type: str | None = None, channel: str | None = None, instance: str | None = None
) -> str:
    """Build one pattern for the events wanted; ``type`` may hold wildcards.

    `T.>`, `T.C.>`, `T.C.I`, `T.*.I`, `*.*.C.>` or `>`. Mind that `T.>` does not match the bare
    subject `T`: a handler for a type filters on both (``filters_for``). Raises InvalidSubject for
    any other combination.
    """
    if type is not None:
        check_type_pattern(type)
    if channel is not None:
        check_channel(channel)
    if instance is not None:
        check_instance(instance)
    match (type, channel, instance):
        case (None, None, None):
            return ">"
        case (None, str(), None):
            return f"*.*.{channel}.>"
        case (None, _, _):
            raise InvalidSubject(
                f"instance={instance!r} without a type: name the event types as well"
            )
        case (str(), None, None):
            return type if type.endswith(">") else f"{type}.>"
    if type is not None and type.endswith(">"):
        raise InvalidSubject(
            f"{type!r} with channel= or instance=: nothing can follow '>'; use '*' for each token"
        )
    return _bounded(f"{type}.{channel or '*'}.{instance or '>'}")


def filters_for(
    types: Iterable[str], channels: Iterable[str] = (), instance: str | None = None
) -> tuple[str, ...]:
    """Every filter a handler needs for these types, folded and sorted.

    Without channel and instance a type means its bare subject too: foreign programs publish there.
    """
    filters: list[str] = []
    every_channel = tuple(channels) or (None,)
    for type in types:
        for channel in every_channel:
            filters.append(build_subscribe_pattern(type, channel, instance))
            if channel is None and instance is None:
                filters.append(type)
    return fold(filters)


def parse_subject(subject: str, type: str | None = None) -> Address:
    """Parse a subject.

    The number of a type's tokens is not fixed, so the type comes from the envelope where there is
    one; without it two tokens are taken. Raises InvalidSubject when ``type`` is no prefix of the
    subject. A single token after the type is no address: channel and instance are both None.
    """
    if type is None:
        head = subject.split(".", 2)
        if len(head) < 2 or not all(head):
            raise InvalidSubject(f"{_shown(subject)} is no event subject: expected domain.action")
        type = f"{head[0]}.{head[1]}"
    if subject == type:
        return Address(type, None, None)
    if not subject.startswith(type + "."):
        raise InvalidSubject(f"type {_shown(type)} is no prefix of its subject {_shown(subject)}")
    channel, dot, instance = subject[len(type) + 1 :].partition(".")
    return Address(type, channel, instance) if dot else Address(type, None, None)


def matches(pattern: str, subject: str) -> bool:
    """Tell whether ``pattern`` matches ``subject``: `*` is one token, `>` one or more."""
    wanted, got = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return position < len(got)
        if position >= len(got) or (token != "*" and token != got[position]):
            return False
    return len(wanted) == len(got)


def prefixes_of(type: str, filters: Iterable[str]) -> tuple[str, ...]:
    """Return prefixes under which every subject of a type matches a filter.

    Not all that match have one: a filter that ends in a token, or has `*` after the type, gives
    none.
    """
    head = type.split(".")
    found = []
    for one in filters:
        *fixed, last = one.split(".")
        more = fixed[len(head) :]
        begins = all(want in ("*", got) for want, got in zip(fixed, head, strict=False))
        if last == ">" and begins and "*" not in more:
            found.append(".".join([*head, *more, ""]))
    return tuple(found)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every subject ``narrow`` can match is matched by ``wide``."""
    return intersection(wide, narrow) == narrow


def intersection(one: str, other: str) -> str | None:
    """The pattern of the subjects that match both, or None when there is none."""
    a, b = one.split("."), other.split(".")
    shared: list[str] = []
    for position in range(max(len(a), len(b))):
        if position >= len(a) or position >= len(b):
            return None
        x, y = a[position], b[position]
        if x == ">":
            return ".".join(shared + b[position:])
        if y == ">":
            return ".".join(shared + a[position:])
        if x != y and "*" not in (x, y):
            return None
        shared.append(y if x == "*" else x)
    return ".".join(shared)


def fold(filters: Iterable[str]) -> tuple[str, ...]:
    """Drop every filter that a wider one contains; return the rest, sorted, each once.

    JetStream refuses a consumer whose filters contain each other (error 10138).
    """
    unique = sorted(set(filters))
    return tuple(
        one for one in unique if not any(one != other and covers(other, one) for other in unique)
    )


def check_type(type: str) -> str:
    """Refuse an invalid event type: two or more lowercase tokens, `domain.action`."""
    if len(_tokens(type, "event type")) < 2:
        raise InvalidSubject(f"event type {_shown(type)}: expected domain.action, two tokens")
    if type != type.lower():
        raise InvalidSubject(
            f"event type {_shown(type)}: expected lowercase, {_shown(type.lower())}"
        )
    _bounded(type)
    return type


def check_type_pattern(pattern: str) -> str:
    """Like ``check_type``, with `*` for a token and `>` for the rest."""
    if not isinstance(pattern, str) or not is_wild(pattern):
        return check_type(pattern)
    tokens = _pattern_tokens(pattern, "pattern")
    if tokens == ["*"]:
        # It would take every event and run for none.
        raise InvalidSubject("pattern '*': a type has two tokens or more; '*.*' or '>' is any")
    if pattern != pattern.lower():
        raise InvalidSubject(
            f"pattern {_shown(pattern)}: expected lowercase, {_shown(pattern.lower())}"
        )
    return _bounded(pattern)


def check_subject_pattern(pattern: str) -> str:
    """Refuse a raw ``subject=`` the server would refuse, or that reaches into its own subjects."""
    _pattern_tokens(pattern, "subject")
    return _bounded(pattern)


def check_channel(channel: str) -> str:
    """Refuse a channel that is not exactly one token."""
    check_token(channel, f"channel {_shown(channel)}")
    return channel


def check_instance(instance: str) -> str:
    """Refuse an instance id that is no valid end of a subject; it may contain dots."""
    if isinstance(instance, str) and len(instance) > MAX_TOKEN:
        raise InvalidSubject(
            f"instance of {len(instance)} characters ({instance[:20]!r}…): at most {MAX_TOKEN}"
        )
    _tokens(instance, "instance")
    return instance


def check_token(token: str, where: str) -> None:
    """Refuse text that is not exactly one token; ``where`` begins the message."""
    if not isinstance(token, str):
        raise InvalidSubject(f"{where}: expected a string")
    if not token:
        raise InvalidSubject(f"{where}: empty token in subject")
    if len(token) > MAX_TOKEN:
        raise InvalidSubject(
            f"{where[:80]}…: a token of {len(token)} characters, at most {MAX_TOKEN}"
        )
    if token.startswith("$"):
        raise InvalidSubject(f"{where}: a token cannot start with '$', the server's own prefix")
    if not _TOKEN.fullmatch(token):
        raise InvalidSubject(
            f"{where}: a token cannot hold '.', '*', '>', white space or control characters"
        )


def is_wild(pattern: str) -> bool:
    """Tell whether a pattern can match more than one subject."""
    return "*" in pattern or ">" in pattern


def _tokens(text: str, what: str) -> list[str]:
    where = f"{what} {_shown(text)}"
    if not isinstance(text, str):
        raise InvalidSubject(f"{where}: expected a string")
    tokens = text.split(".")
    for token in tokens:
        check_token(token, where)
    return tokens


def _pattern_tokens(pattern: str, what: str) -> list[str]:
    where = f"{what} {_shown(pattern)}"
    if not isinstance(pattern, str):
        raise InvalidSubject(f"{where}: expected a string")
    tokens = pattern.split(".")
    if ">" in tokens[:-1]:
        raise InvalidSubject(f"{where}: '>' can only be the last token")
    for token in tokens:
        if token not in ("*", ">"):
            check_token(token, where)
    return tokens


def _bounded(subject: str) -> str:
    if len(subject) > SURELY_SHORT and len(subject.encode()) > MAX_SUBJECT:
        raise InvalidSubject(
            f"subject {subject[:60]!r}…: {len(subject.encode())} bytes, at most {MAX_SUBJECT}"
        )
    return subject


def _shown(text: object) -> str:
    """Text for an error message, cut if it is long: subjects come from any publisher."""
    shown = repr(text)
    return shown if len(shown) <= MAX_TOKEN + 2 else f"{shown[:MAX_TOKEN]}…"
