"""Schema changes: what a model of today refuses that one of before took. Pure.

Both are JSON schemas, as `schemas dump` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
Problem = tuple[str, str]  # path, what changed

# Keyword: whether the new bound takes everything that the old one took.
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda old, new: new <= old,
    "exclusiveMinimum": lambda old, new: new <= old,
    "minLength": lambda old, new: new <= old,
    "minItems": lambda old, new: new <= old,
    "maximum": lambda old, new: new >= old,
    "exclusiveMaximum": lambda old, new: new >= old,
    "maxLength": lambda old, new: new >= old,
    "maxItems": lambda old, new: new >= old,
    "pattern": lambda old, new: bool(new == old),
    "format": lambda old, new: bool(new == old),
}
NO_BOUND = object()


def refused_now(old: Schema, new: Schema, path: str = "payload") -> list[Problem]:
    """Return every place where ``new`` refuses what ``old`` took, as far as schemas can tell."""
    compare = _Compare(old.get("$defs", {}), new.get("$defs", {}))
    return list(dict.fromkeys(compare.problems(old, new, path)))


class _Compare:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self._seen: set[tuple[str, str]] = set()  # pairs of names: models may hold themselves

    def problems(self, old: Schema, new: Schema, path: str) -> Iterator[Problem]:
        """Yield the problems of two schemas, the old one's cases one by one."""
        names = old.get("$ref", ""), new.get("$ref", "")
        if all(names):
            if names in self._seen:
                return
            self._seen.add(names)
        olds, news = _cases(old, self._old), _cases(new, self._new)
        for case in olds:
            tried = [list(self._of_case(case, one, path)) for one in news]
            if tried and all(tried):
                yield from self._nearest(case, news, tried, path)

    def _nearest(
        self, case: Schema, news: list[Schema], tried: list[list[Problem]], path: str
    ) -> list[Problem]:
        """Return the problems with the new case of the same kind; else name the kind."""
        same = [
            found for one, found in zip(news, tried, strict=True)
            if _kinds(one) & _kinds(case) or not _kinds(one)
        ]  # fmt: skip
        if same:
            return min(same, key=len)
        now = " or ".join(sorted({kind for one in news for kind in _kinds(one)}))
        return [(path, f"{_shown(case)} is refused now; expected {now or 'another value'}")]

    def _of_case(self, old: Schema, new: Schema, path: str) -> Iterator[Problem]:
        if missing := _kinds(old) - _widened(_kinds(new)) if _kinds(new) else set():
            yield path, f"{' and '.join(sorted(missing))} is refused now"
            return
        if _kinds(new) and not _kinds(old):
            yield path, f"any value was taken, now only {' or '.join(sorted(_kinds(new)))}"
            return
        yield from _values(old, new, path)
        yield from _bounds(old, new, path)
        yield from self._properties(old, new, path)
        if isinstance(new.get("items"), dict) and isinstance(old.get("items", {}), dict):
            yield from self.problems(old.get("items", {}), new["items"], f"{path}[]")

    def _properties(self, old: Schema, new: Schema, path: str) -> Iterator[Problem]:
        before, now = old.get("properties", {}), new.get("properties", {})
        for name in new.get("required", ()):
            if name not in old.get("required", ()):
                yield f"{path}.{name}", "required now"
        for name, schema in now.items():
            if name in before:
                yield from self.problems(before[name], schema, f"{path}.{name}")
        if new.get("additionalProperties") is False:
            for name in before.keys() - now.keys():
                yield f"{path}.{name}", "unknown now, and unknown keys are refused"
        elif isinstance(more := new.get("additionalProperties"), dict):
            less = old.get("additionalProperties", {})
            yield from self.problems(less if isinstance(less, dict) else {}, more, f"{path}.*")


def _cases(schema: Schema, named: Schema) -> list[Schema]:
    """Return the alternatives of a schema, references resolved."""
    while (name := schema.get("$ref", "").rpartition("/")[2]) in named:
        schema = named[name]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return [case for one in schema[several] for case in _cases(one, named)]
    if len(only := schema.get("allOf", ())) == 1:
        return _cases(only[0], named)
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": one} for one in schema["type"]]
    return [schema]


def _kinds(schema: Schema) -> set[str]:
    if "type" in schema:
        return {str(schema["type"])}
    if "const" in schema or "enum" in schema:
        return {"value"}
    return set()


def _widened(kinds: set[str]) -> set[str]:
    return kinds | {"integer"} if "number" in kinds else kinds


def _values(old: Schema, new: Schema, path: str) -> Iterator[Problem]:
    now, before = _allowed(new), _allowed(old)
    if now is None:
        return
    if before is None:
        yield path, f"only {_listed(now)} is taken now"
    elif gone := [one for one in before if one not in now]:
        yield path, f"{_listed(gone)} is refused now"


def _allowed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _bounds(old: Schema, new: Schema, path: str) -> Iterator[Problem]:
    for keyword, takes_all in BOUNDS.items():
        bound = new.get(keyword, NO_BOUND)
        if bound is NO_BOUND:
            continue
        before = old.get(keyword, NO_BOUND)
        if before is NO_BOUND or not takes_all(before, bound):
            was = "" if before is NO_BOUND else f", was {before}"
            yield path, f"{keyword} {bound}{was}"


def _listed(values: list[Any]) -> str:
    return ", ".join(map(repr, values[:5])) + (" …" if len(values) > 5 else "")


def _shown(schema: Schema) -> str:
    allowed = _allowed(schema)
    return _listed(allowed) if allowed is not None else " or ".join(_kinds(schema)) or "any value"
