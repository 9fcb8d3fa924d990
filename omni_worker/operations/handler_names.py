"""Handler names: the function and the durable of each handler, as the server's consumers tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import TransportError
from ..handlers import Handler, both_names
from ..topology import app_of, function_of, handler_of, holds_events
from ..transports.base import Operators


@dataclass(frozen=True, slots=True)
class HandlerNames:
    """Functions of handlers, by app and by the name that dead letters and consumers have."""

    functions: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def shown(self, app: str | None, name: str) -> str:
        """Name a handler for people: its function, with the durable where they differ."""
        return both_names(self.functions.get((app or "", name), ""), name)

    def meant(self, word: str) -> set[str]:
        """Return the names of the handlers that a person means: by their name or function.

        What is the name of one is not taken for the function of another.
        """
        if any(word == name for _, name in self.functions):
            return {word}
        named = {
            name
            for (_, name), function in self.functions.items()
            if word in (function, both_names(function, name))
        }
        return named or {word}


async def handler_names(operators: Operators, handlers: Iterable[Handler] = ()) -> HandlerNames:
    """Read the names of all handlers from their consumers; those of a known app are added.

    Without the right to read consumers only these are known.
    """
    functions: dict[tuple[str, str], str] = {}
    try:
        streams = [one.name for one in await operators.streams() if holds_events(one.config)]
        for consumers in await asyncio.gather(*map(operators.consumers, streams)):
            for info in consumers:
                if app := app_of(info.config):
                    functions[app, handler_of(info.config)] = function_of(info.config)
    except TransportError:
        pass
    functions |= {(one.app, one.name): one.short for one in handlers}
    return HandlerNames(functions)
