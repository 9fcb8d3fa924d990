"""Action: the form that asks for one, and the two ways it may end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Form:
    """Fields that a browser sent."""

    fields: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        """Return a field, empty if it is not there."""
        return self.fields.get(name, ("",))[0].strip()

    def number(self, name: str) -> int | None:
        """Return a whole number, None if it is not one."""
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Result of an action that was done: the page that shows it."""

    path: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason why an action was not done."""

    title: str
    text: str
    back: str = "/"
    status: int = 409
