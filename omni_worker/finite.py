"""Finite: whether a model can hold NaN or infinity, told by its pydantic core schema.

JSON has neither, pydantic's parser takes both, and other programs end on them. Looking for the
words in a body costs more than its validation from 64 KB on, and most models hold no float at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

# Schemas whose values are no floats, whatever the JSON says.
_LEAVES = frozenset({
    "str", "int", "bool", "none", "literal", "enum", "bytes", "uuid", "url", "multi-host-url",
    "date", "time", "datetime", "timedelta", "never",
})  # fmt: skip
# Schemas that hold what the schemas in them hold. After a validator of the user's the value is that
# of the inner schema; any other validator sees the JSON first.
_HOLDERS = frozenset({
    "model", "model-fields", "model-field", "dataclass", "dataclass-args", "dataclass-field",
    "typed-dict", "typed-dict-field", "default", "nullable", "list", "tuple", "set", "frozenset",
    "dict", "union", "tagged-union", "definitions", "definition-ref", "function-after",
    "lax-or-strict",
})  # fmt: skip
_NO_SCHEMAS = frozenset(
    {"serialization", "metadata", "ref", "config", "function", "computed_fields", "cls"}
)


def payload_is_finite(model: type[BaseModel]) -> bool:
    """Return True if no payload of an event model can hold NaN or infinity.

    False also where only running the model could tell, and for models with further fields.
    """
    schema: Any = model.__pydantic_core_schema__
    if schema.get("type") == "invalid":
        return False
    definitions: dict[str, Any] = {}
    if schema["type"] == "definitions":
        definitions = {one["ref"]: one for one in schema["definitions"]}
        schema = schema["schema"]
    while schema["type"] in ("definition-ref", "model"):
        schema = definitions[schema["schema_ref"]] if "schema_ref" in schema else schema["schema"]
    if schema["type"] != "model-fields":
        return False
    fields = dict(schema["fields"])
    payload = fields.pop("payload")
    others = fields.keys() - {"id", "type", "timestamp", "metadata"}
    return not others and _is_finite(payload, definitions, set())


def _is_finite(schema: Any, definitions: Mapping[str, Any], seen: set[str]) -> bool:
    kind = schema["type"]
    if kind in _LEAVES:
        return True
    if kind == "float":
        return schema.get("allow_inf_nan") is False
    if kind not in _HOLDERS or _keeps_unknown_keys(schema):
        return False
    if kind == "definition-ref":
        ref = schema["schema_ref"]
        if ref in seen:
            return True  # it is being looked at
        seen.add(ref)
        return ref in definitions and _is_finite(definitions[ref], definitions, seen)
    return all(_is_finite(one, definitions, seen) for one in _schemas_in(schema))


def _keeps_unknown_keys(schema: Mapping[str, Any]) -> bool:
    config = schema.get("config") or {}
    allows = "allow" in (schema.get("extra_behavior"), config.get("extra_fields_behavior"))
    bare_dict = schema["type"] == "dict" and not {"keys_schema", "values_schema"} <= schema.keys()
    bare_items = schema["type"] in ("list", "set", "frozenset") and "items_schema" not in schema
    return allows or bare_dict or bare_items


def _schemas_in(value: Any) -> list[Any]:
    """Return the schemas directly inside a schema, wherever its type keeps them."""
    found: list[Any] = []
    left = [one for key, one in value.items() if key not in _NO_SCHEMAS]
    while left:
        one = left.pop()
        if isinstance(one, Mapping) and isinstance(one.get("type"), str):
            found.append(one)
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
    return found
