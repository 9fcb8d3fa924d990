"""Base of the core payloads: how they are written and read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = ["Payload"]


def wire_name(name: str) -> str:
    """Return a field's key on the wire: ``chat_id`` is chatId, ``from_`` is from."""
    return to_camel(name.removesuffix("_"))


class Payload(BaseModel):
    """A core payload: snake_case here, camelCase on the wire, None fields are not written."""

    # By a generator, not by Field(alias=…): type checkers would take the alias for the argument's
    # name, and `from` cannot be one.
    model_config = ConfigDict(extra="allow", populate_by_name=True, alias_generator=wire_name)
