"""Forks: a child that the user's code forks lets go of the sockets that only this process may hold.

A child that outlives us would keep the server's pulls, our port and our parent's channel open.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

Owner = TypeVar("Owner")

_held: weakref.WeakKeyDictionary[Any, Callable[[Any], Iterable[int]]] = weakref.WeakKeyDictionary()


def let_go_in_forks(owner: Owner, descriptors: Callable[[Owner], Iterable[int]]) -> None:
    """Let go of an owner's descriptors in each child forked while the owner exists.

    ``descriptors`` is called in the child and must not keep the owner; a negative one is closed.
    """
    _held[owner] = descriptors


def _let_go() -> None:
    # Each descriptor stays taken: an object the child inherited may still close it by its number.
    nothing = os.open(os.devnull, os.O_RDWR)
    for owner, descriptors in list(_held.items()):
        with suppress(Exception):  # what raises here is printed into the child's output
            for number in descriptors(owner):
                if number >= 0:
                    os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_let_go)
