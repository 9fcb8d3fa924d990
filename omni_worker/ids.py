"""Ids: an event's id as text, random or derived. The UUIDs of the standard library, made faster.

`uuid.uuid4` and `uuid5` build an object of many checks for each; here every event needs one text.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

DRAWN_AT_ONCE = 256  # random ids: one question to the kernel for so many
DERIVED = 16  # ids of one message that are derived, as others may have taken them
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # RFC 9562: the top bits are 10
# The same for many at once: the bits that stay random, and those that are set.
_RANDOM = int("ffffffffffff0fff3fffffffffffffff" * DRAWN_AT_ONCE, 16)
_SET = int("00000000000040008000000000000000" * DRAWN_AT_ONCE, 16)

_drawn: list[str] = []  # ids to come
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_drawn.clear)


def random_id() -> str:
    """A UUID of version 4, different in every process and after every fork."""
    while True:
        try:
            return _drawn.pop()
        except IndexError:  # another thread took the last one
            _drawn.extend(_draw())


def _draw() -> list[str]:
    size = 16 * DRAWN_AT_ONCE
    bits = int.from_bytes(os.urandom(size)) & _RANDOM | _SET
    digits = bits.to_bytes(size).hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-{digits[at + 12 : at + 16]}"
        f"-{digits[at + 16 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, 2 * size, 32)
    ]


def derived_id(namespace: bytes, name: str) -> str:
    """UUID of version 5 of a name: the same name gives the same text everywhere."""
    digits = hashlib.sha1(namespace + name.encode(), usedforsecurity=False).hexdigest()
    return (
        f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}"
        f"-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
    )


def other_ids(id: str) -> Iterator[str]:
    """Ids to take, one after the other, where another message has ``id``, a UUID.

    UUIDv5 of it and 1, 2, …, equal in every process; then random ones, which no one can foresee.
    """
    namespace = bytes.fromhex(id.replace("-", ""))
    for number in range(1, DERIVED):
        yield derived_id(namespace, str(number))
    while True:
        yield random_id()
