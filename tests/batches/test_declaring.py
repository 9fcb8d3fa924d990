"""Declaring `@app.on_batch`: accepted and refused options, named by line, and `show`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from omni_worker import App, Batch, ConfigError, Context, Depends, Event
from omni_worker.cli.commands.show import _handler_lines
from omni_worker.handler_consumers import planned_consumers
from omni_worker.operations.declared import as_json
from omni_worker.settings import Settings
from omni_worker.topology import SEVEN


class Row(BaseModel):
    n: int


def session() -> int:
    return 1


async def good(batch: Batch[Row]) -> None: ...
async def of_any(batch: Batch) -> None: ...
async def unannotated(batch): ...  # type: ignore[no-untyped-def]
async def of_event(batch: Event[Row]) -> None: ...
async def of_list(batch: list[Row]) -> None: ...
async def with_context(batch: Batch[Row], ctx: Context) -> None: ...
async def of_nothing() -> None: ...
async def depending(batch: Batch[Row], db: Annotated[int, Depends(session)]) -> None: ...
async def yielding(batch: Batch[Row]) -> Any:
    yield 1


def declared(call: Callable[..., Any], **given: Any) -> Any:
    app = App("rows")
    app.on_batch("custom.row", durable="rows", **given)(call)
    return app.handlers[0]


@pytest.mark.parametrize("call", [good, of_any, unannotated])
def test_what_is_accepted(call: Any) -> None:
    handler = declared(call)

    expected = Event[Row] if call is good else Event[Any]
    assert handler.model is expected
    assert (handler.batch.size, handler.batch.wait, handler.options.concurrency) == (500, 1.0, 1)


def test_a_schema_stands_in_for_the_annotation() -> None:
    assert declared(of_any, schema=Row).model is Event[Row]


@pytest.mark.parametrize(
    ("call", "given", "says"),
    [
        (good, {"size": 0}, "size=0: expected a whole number, 1 to 10000"),
        (good, {"size": 1.5}, "size=1.5: expected a whole number"),
        (good, {"wait": -1}, "wait=-1: expected seconds, 0 to 86400"),
        (good, {"order_by": lambda e: e.id}, "use @app.on with order_by="),
        (good, {"size": 10_000, "concurrency": 11}, "size=10000 × concurrency=11: expected 100000"),
        (good, {"schema": 3}, "schema=3: expected a pydantic model class"),
        (of_event, {}, "is given a Batch, not Event[Row]; write batch: Batch[Model]"),
        (of_list, {}, "is given a Batch, not list["),
        (with_context, {}, "takes (batch); the context of an event is batch.context(event)"),
        (of_nothing, {}, "takes (batch)"),
        (Row, {}, "Row is a class, and an event would only make an object of it"),
        (depending, {}, "'db' is marked Depends: open it in the lifespan"),
        (yielding, {}, "would never run; take the yield out"),
        (3, {}, "is not a function"),
    ],
)
def test_what_is_refused_and_where(call: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as refused:
        declared(call, **given)

    assert "@app.on_batch('custom.row'): " in str(refused.value)
    assert "test_declaring.py" in str(refused.value)


def test_without_parentheses_it_says_how_it_is_written() -> None:
    with pytest.raises(ConfigError, match=re.escape('write @app.on_batch("custom.row")')):
        App("rows").on_batch(good)  # type: ignore[arg-type]


def test_two_handlers_of_one_durable_are_refused() -> None:
    app = App("rows")
    app.on_batch("custom.row", durable="rows")(good)

    with pytest.raises(ConfigError, match="rows"):
        app.on("custom.row", durable="rows")(lambda event: None)


def test_an_included_batch_handler_keeps_its_batches() -> None:
    part, app = App("part"), App("whole")
    part.on_batch("custom.row", durable="rows", size=7)(good)

    app.include(part, prefix="eu-")

    [handler] = app.handlers
    assert (handler.name, handler.batch.size, handler.app) == ("eu-rows", 7, "whole")  # type: ignore[union-attr]


def test_show_says_how_large_its_batches_are() -> None:
    app = App("rows")
    app.on_batch("custom.row", durable="rows", size=200, wait=0.5)(good)
    [handler] = app.handlers
    planned = planned_consumers(handler, app.registry, Settings(), SEVEN)

    lines = list(_handler_lines(planned, verbose=False))
    [shown] = as_json("rows", [planned], app.registry)["handlers"]

    assert "    batches   at most 200 events, 0.5 s after the first" in lines
    assert shown["batch"] == {"size": 200, "wait": 0.5, "by": False, "quiet": None}
