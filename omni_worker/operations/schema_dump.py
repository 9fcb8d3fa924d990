"""Schema dump: the models of an app as JSON schemas, to be kept and compared with later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..handlers import Handler
from ..schemas import SchemaRegistry
from .json_schemas import json_schema, own_types, payload_of
from .schema_changes import refused_now

FORMAT = 1  # of the file


def dump(app: str, handlers: Sequence[Handler], registry: SchemaRegistry) -> dict[str, Any]:
    """Return the schema of each handler's payload, and of each type the app registers."""
    own = own_types(registry.list(), SchemaRegistry().list())
    return {
        "omniWorkerSchemas": FORMAT,
        "app": app,
        "handlers": {
            one.name: {"types": list(one.types), "payload": _schema(payload_of(one))}
            for one in handlers
        },
        "types": {one.type: _schema(one.model) for one in own},
    }


def changes(old: Any, new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, path and change of all that ``new`` refuses and ``old`` took.

    Raises ConfigError for an ``old`` that is no dump of this format.
    """
    if not isinstance(old, dict) or old.get("omniWorkerSchemas") != FORMAT:
        raise ConfigError("it is no file that `omni-worker schemas dump` wrote")
    found = []
    for name, facts in new["handlers"].items():
        before = old["handlers"].get(name)
        if before is not None:
            found += _changed(name, before["payload"], facts["payload"])
    for type, schema in new["types"].items():
        if type in old["types"]:
            found += _changed(f"type {type}", old["types"][type], schema)
    return found


def _changed(name: str, old: Any, new: Any) -> list[tuple[str, str, str]]:
    if new is None:  # any payload is taken
        return []
    return [(name, path, what) for path, what in refused_now(old or {}, new)]


def _schema(model: Any) -> Any:
    return None if model is None else json_schema(model)
