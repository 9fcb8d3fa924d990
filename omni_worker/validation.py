"""Validation: pydantic asked for a verdict without an exception, and its errors in one line."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, cast

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, SchemaValidator
from pydantic_core.core_schema import with_default_schema

from .errors import ConfigError

_OF_FIELDS = BaseModel.__get_pydantic_core_schema__.__func__  # type: ignore[attr-defined]
MANY = 1_000  # errors of one payload; to list half a million of them takes a second


class _NoneOnError:
    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return with_default_schema(handler(source), default=None, on_error="default")


@lru_cache(maxsize=1_024)
def quiet(model: Any) -> SchemaValidator:
    """Build the validator of a model that returns None for what does not fit, whatever raised.

    Not one validator's error gets out, and none is made into Python, which takes 30 ms a megabyte
    for each missing key. What is no JSON still raises. Raises ConfigError for a model that names
    undefined types.
    """
    adapter = TypeAdapter(Annotated[model, _NoneOnError()])
    adapter.rebuild(raise_errors=False)  # of a model with defer_build; else there is nothing to do
    if not adapter.pydantic_complete:
        raise ConfigError(
            f"{model.__name__} names types that are not defined; define them in the module of the"
            " payload's model, or call its model_rebuild() before the app starts"
        )
    # Where a pydantic plugin is installed, it is one of that, with the same methods.
    return cast(SchemaValidator, adapter.validator)


def lacking(model: Any, payload: Any) -> list[str]:
    """Required fields of a model for which a payload read from JSON has no key.

    Empty also where only pydantic can tell: other code than the fields' own sees the payload first.
    """
    if not isinstance(payload, dict) or not _is_of_its_fields(model):
        return []
    return [
        field.alias or name
        for name, field in model.model_fields.items()
        if field.is_required() and payload.keys().isdisjoint({name, *_aliases(field)})
    ]


def never_sent(model: Any, sent: Any) -> list[str]:
    """Required keys of a model that a payload of the model ``sent`` does not have.

    Empty also where only pydantic can tell, and where ``sent`` lets further keys through.
    """
    if not _is_of_its_fields(sent) or sent.model_config.get("extra") == "allow":
        return []
    if sent.__pydantic_decorators__.model_serializers:
        return []
    fields = {**sent.model_fields, **sent.model_computed_fields}
    keys = [field.alias or name for name, field in fields.items()]
    keys += [field.serialization_alias for field in sent.model_fields.values()]
    return [str(key) for key in lacking(model, dict.fromkeys(keys))]


def _is_of_its_fields(model: Any) -> bool:
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return False
    if not model.__pydantic_complete__:  # its aliases are not known yet
        return False
    decorators = model.__pydantic_decorators__
    modes = [one.info.mode for one in decorators.model_validators.values()]
    modes += [one.info.mode for one in decorators.root_validators.values()]
    sees_first = any(mode != "after" for mode in modes)
    own_schema = model.__get_pydantic_core_schema__.__func__ is not _OF_FIELDS  # type: ignore[attr-defined]
    own_init = model.__init__ is not BaseModel.__init__
    return not (sees_first or own_schema or own_init or model.__pydantic_root_model__)


def _aliases(field: FieldInfo) -> list[str | int]:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [one.path[0] if isinstance(one, AliasPath) else one for one in choices if one]


def explain(error: Exception) -> str:
    """Reasons why a payload does not fit, in one line, without the values: chats are private."""
    if not isinstance(error, ValidationError):
        return f"a validator of its model raised {type(error).__name__}"
    if error.error_count() > MANY:
        return f"{error.error_count()} problems, too many to list"
    problems = error.errors(include_input=False, include_context=False, include_url=False)
    shown = [
        f"{'.'.join(str(step)[:64] for step in problem['loc']) or '(root)'}: {_message(problem)}"
        for problem in problems[:5]
    ]
    if len(problems) > 5:
        shown.append(f"and {len(problems) - 5} more")
    return "; ".join(shown)


def misnamed_keys(model: type[BaseModel], payload: object) -> str:
    """Continue ``explain`` for keys that are called as in Python, not as on the wire."""
    if not isinstance(payload, dict):
        return ""
    found = [
        f"{name} is {field.alias}"
        for name, field in model.model_fields.items()
        if field.alias not in (None, name) and name in payload and field.alias not in payload
    ]
    return f"; as a key, {', '.join(found[:5])}" if found else ""


def problems(error: ValidationError) -> list[tuple[str, str]]:
    """Path and message of each problem, without the values; places in lists are all `[]`."""
    if error.error_count() > MANY:
        return [("", "too many problems to list")]
    found = error.errors(include_input=False, include_context=False, include_url=False)
    return [(_path(problem["loc"]), _message(problem)) for problem in found]


def _path(steps: tuple[int | str, ...]) -> str:
    shown = "".join("[]" if isinstance(one, int) else f".{one[:64]}" for one in steps)
    return shown.removeprefix(".")


def _message(problem: ErrorDetails) -> str:
    # pydantic's own words repeat the value here.
    return "unknown tag" if problem["type"] == "union_tag_invalid" else problem["msg"]
