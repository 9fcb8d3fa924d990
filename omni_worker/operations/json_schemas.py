"""JSON schemas: the models of an app's payloads as JSON Schema, for documents. No server is needed.

Only keywords that draft-07 has are written, since AsyncAPI knows no newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ..events import Event
from ..handlers import Handler
from ..schemas import Schema

REFERENCE = "#/components/schemas/{model}"
Models = dict[str, Any]  # by a key of the caller's


def payload_of(handler: Handler) -> Any | None:
    """Return the model of a handler's payload; None if any payload is accepted."""
    payload = handler.model.model_fields["payload"].annotation
    return None if handler.model is Event[Any] or payload in (None, Any) else payload


def name_of(model: Any) -> str:
    """Name a model, for people."""
    return getattr(model, "__name__", None) or str(model)


def json_schemas(
    models: Models, *, reference: str = REFERENCE
) -> tuple[dict[str, JsonSchemaValue], dict[str, JsonSchemaValue]]:
    """Return the schema of each model by its key, and the named schemas that they refer to."""
    wanted = [(key, "validation", TypeAdapter(model).core_schema) for key, model in models.items()]
    found, named = _Portable(ref_template=reference).generate_definitions(wanted)  # type: ignore[arg-type]
    payloads = {str(key): schema for (key, _), schema in found.items()}
    return payloads, {str(name): schema for name, schema in named.items()}


def json_schema(model: Any) -> JsonSchemaValue:
    """Return the schema of one model, with those it refers to in its `$defs`."""
    return TypeAdapter(model).json_schema(schema_generator=_Portable)


def own_types(schemas: Iterable[Schema], core: Iterable[Schema]) -> list[Schema]:
    """Return the schemas that an app registered itself."""
    known = {one.type: one for one in core}
    return [one for one in schemas if known.get(one.type) != one]


class _Portable(GenerateJsonSchema):
    """Schemas without what newer drafts added, and without a refusal."""

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """Write the items of a tuple as draft-07 does."""
        made = super().tuple_schema(schema)
        if "prefixItems" in made:
            rest = made.pop("items", None)
            made["items"] = made.pop("prefixItems")
            made["additionalItems"] = rest if rest is not None else "maxItems" not in made
        return made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Leave the discriminator out: AsyncAPI's is a text and means something else."""
        made = super().tagged_union_schema(schema)
        made.pop("discriminator", None)
        return made

    def handle_invalid_for_json_schema(
        self, schema: CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        """Accept anything where JSON Schema has no word for a type of the model's."""
        return {"description": "Checked by the program; JSON Schema cannot express it."}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Write no warning: a default that is no JSON is left out."""
