"""Handlers: a declaration becomes a record, or is refused where it is written."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import pytest
from pydantic import BaseModel
from pydantic.errors import PydanticUserError
from typing_extensions import TypeAliasType

from omni_worker.batches import Batch
from omni_worker.context import Context
from omni_worker.errors import ConfigError
from omni_worker.events import Event
from omni_worker.handlers import (
    Handler,
    complete,
    declare,
    find_handler,
    find_handlers,
    with_settings,
)
from omni_worker.injection import Depends
from omni_worker.payloads import MessageReceivedEvent, MessageReceivedPayload
from omni_worker.retry import RetryPolicy
from omni_worker.schemas import check_name
from omni_worker.settings import Settings

if TYPE_CHECKING:
    from somewhere import Foreign


class Model(BaseModel):
    a: int


class Sent(BaseModel):
    b: int


class Refused:
    """Model that pydantic refuses, naming what to write: on Python 3.11 a `typing.TypedDict`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise PydanticUserError("Please use another one.\n\nFor further information", code=None)


async def handle(event: Event[Any]) -> None:
    """A handler."""


def declared(call: Callable[..., Any] = handle, *types: str, **given: Any) -> Handler:
    """What `@app.on(…)` makes of it."""
    address = {key: given.pop(key) for key in ("subject", "channel", "instance") if key in given}
    if not types and "subject" not in address:
        types = ("message.received",)
    return declare(call, app="router", types=types, options=given, **address)


# --- names ---------------------------------------------------------------------------------


def test_a_durable_is_the_handlers_name() -> None:
    assert declared(durable="r1", queue="q").name == "r1"


def test_a_queue_shares_by_app_queue_and_filters_whatever_the_function_is_called() -> None:
    async def other(event: Event[Any]) -> None: ...

    one, two = declared(handle, queue="q"), declared(other, queue="q")

    assert one.name == two.name
    assert one.name.startswith("router-q-")
    assert one.name != declared(handle, "message.sent", queue="q").name
    check_name(one.name, "name")


def test_without_both_the_name_is_app_module_function_and_filters() -> None:
    name = declared().name

    assert name.startswith("router.tests.test_handlers.handle-")
    assert name == declared(concurrency=3).name
    assert name != declared(handle, "message.sent").name


def test_people_call_a_handler_by_its_function_with_the_durable_where_it_differs() -> None:
    assert declared().short == declared().shown == "handle"
    assert declared(durable="handle").shown == "handle"
    assert declared(queue="q").shown == "handle"
    assert declared(durable="r1").short == "handle"
    assert declared(durable="r1").shown == "handle (r1)"


@pytest.mark.parametrize(
    "name", ["r1", "handle", "handle (r1)", "tests.test_handlers.handle"],
)  # fmt: skip
def test_a_handler_is_found_by_every_name_it_is_shown_under(name: str) -> None:
    wanted, other = declared(durable="r1"), declared(takes_event, durable="r2")

    assert find_handler([other, wanted], name) is wanted


def test_a_handler_of_a_queue_is_found_by_its_consumer() -> None:
    wanted = declared(queue="q")

    assert find_handler([declared(durable="q"), wanted], wanted.name) is wanted


def test_a_name_of_several_handlers_is_refused_and_each_can_still_be_named() -> None:
    one, two = declared(durable="r1"), declared(durable="r2")

    with pytest.raises(ConfigError) as refused:
        find_handler([one, two], "handle")

    assert str(refused.value) == (
        f"handle is the name of several handlers: handle (r1) at {one.where}, handle (r2) at"
        f" {two.where}; give the durable, or module and function"
    )
    assert find_handlers([one, two], "handle") == [one, two]
    assert find_handler([one, two], "r2") is two


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("handel", "did you mean handle (r1)? The handlers are handle (r1), takes_event"),
        ("r11", "did you mean handle (r1)? The handlers are handle (r1), takes_event"),
        ("zzz", "the handlers are handle (r1), takes_event"),
    ],
)
def test_a_name_of_no_handler_is_refused_with_those_that_exist(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        find_handler([declared(durable="r1"), declared(takes_event)], name)

    assert str(refused.value) == f"no handler is called {name}; {said}"


def test_without_any_handler_a_name_is_refused_as_well() -> None:
    with pytest.raises(ConfigError, match="no handler is called r1; none is declared"):
        find_handler([], "r1")


# --- what it listens to --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "given", "expected"),
    [
        (("message.received",), {}, ("message.received", "message.received.>")),
        (("message.received",), {"channel": "x"}, ("message.received.x.>",)),
        (("message.received",), {"channel": ["y", "x"]},
         ("message.received.x.>", "message.received.y.>")),
        (("message.received",), {"channel": iter(["y", "x"])},
         ("message.received.x.>", "message.received.y.>")),
        (("message.*",), {"channel": "x", "instance": "i.j"}, ("message.*.x.i.j",)),
        (("message.received",), {"instance": "wa-001"}, ("message.received.*.wa-001",)),
        ((), {"subject": "message.*.x.>"}, ("message.*.x.>",)),
        (("custom.>",), {}, ("custom.>",)),
    ],
)  # fmt: skip
def test_filters_are_those_of_the_declaration(
    types: tuple[str, ...], given: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert expected == declared(handle, *types, **given).filters


def test_channels_read_once_are_kept() -> None:
    assert declared(handle, channel=iter(["x", "y"])).channels == ("x", "y")


@pytest.mark.parametrize(
    ("types", "given", "hint"),
    [
        (("message",), {}, "domain.action"),
        (("message..received",), {}, "empty token in subject"),
        (("Message.Received",), {}, "lowercase"),
        (("*",), {}, "two tokens"),
        (("message.>.x",), {}, "last token"),
        ((5,), {}, "event type 5"),
        ((["message.received"],), {}, "expected a string"),
        (("message.received",), {"channel": ""}, "channel '': empty"),
        (("message.received",), {"channel": "a b"}, "channel 'a b'"),
        (("message.received",), {"channel": ["x", "a.b"]}, r"channel 'a\.b'"),
        (("message.received",), {"channel": []}, "names no channel"),
        (("message.received",), {"channel": 5}, "channel=5"),
        (("message.received",), {"channel": [5]}, "channel 5"),
        (("message.received",), {"channel": {"x": 1}}, "channel="),
        (("message.received",), {"channel": b"x"}, "channel="),
        (("message.received",), {"instance": ""}, "instance ''"),
        (("message.received",), {"instance": "a..b"}, r"instance 'a\.\.b'"),
        (("message.received",), {"instance": 5}, "instance 5"),
        (("custom.>",), {"channel": "x"}, "nothing can follow"),
        ((), {"subject": "$JS.API.>"}, "server's own"),
        ((), {"subject": "a..b"}, "empty token"),
        ((), {"subject": "message.>", "channel": "x"}, "subject= replaces"),
        ((), {"subject": "message.>", "instance": ""}, "subject= replaces"),
        (("message.received",), {"subject": "message.>"}, "subject= replaces"),
    ],
)
def test_a_bad_type_pattern_or_token_is_refused(
    types: tuple[Any, ...], given: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        declared(handle, *types, **given)


def test_no_type_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no event type"):
        declare(handle, app="router", options={})


# --- options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("durable", ""), ("durable", "a.b"), ("durable", "a b"), ("durable", "a*"),
        ("durable", "a/b"), ("durable", "a\\b"), ("durable", ">"), ("durable", "$a"),
        ("durable", "x" * 129), ("durable", 5), ("durable", "a\n"), ("queue", "a.b"), ("queue", 5),
        ("queue", ""), ("queue", "x" * 128),
        ("start_from", "now"), ("start_from", None), ("start_from", 5),
        ("start_from", datetime(2026, 1, 1)),
        ("schema", dict), ("schema", Model(a=1)), ("schema", "Model"), ("schema", Event[Model]),
        ("schema", MessageReceivedEvent), ("validate", "yes"), ("validate", 1),
        ("concurrency", 0), ("concurrency", 1.5), ("concurrency", True), ("concurrency", "10"),
        ("prefetch", -1), ("prefetch", 1_000_000), ("prefetch", 2.5),
        ("timeout", 0), ("timeout", -1), ("timeout", float("nan")), ("timeout", float("inf")),
        ("timeout", "5"), ("timeout", True),
        ("ack_wait", 0), ("ack_wait", 0.01), ("ack_wait", float("inf")),
        ("max_retries", -1), ("max_retries", 1.5), ("max_retries", "3"),
        ("retry_delay", -1), ("retry_delay", float("nan")),
        ("retry", 3), ("retry", "often"),
        ("reject_on", ValueError()), ("reject_on", "ValueError"), ("reject_on", [int]),
        ("reject_on", None),
    ],
)  # fmt: skip
def test_an_option_that_cannot_work_is_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{option}="):
        declared(**{option: value})


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("durabel", "unknown option durabel=; did you mean durable="),
        ("chanel", "unknown option chanel=; did you mean channel="),
        ("retries_max", "unknown option retries_max=; did you mean max_retries="),
        ("deliver_group", "unknown option deliver_group=; known: durable, queue"),
    ],
)
def test_an_unknown_option_is_answered_with_the_right_one(option: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        declared(**{option: 5})


@pytest.mark.parametrize("option", ["max_retries", "retry_delay"])
def test_a_retry_policy_beside_its_short_forms_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="retry= together with max_retries= or retry_delay="):
        declared(**{option: 1, "retry": RetryPolicy()})


def test_good_options_are_kept() -> None:
    options = declared(
        queue="q", durable="d", start_from=datetime(2026, 1, 1, tzinfo=UTC), schema=Model,
        concurrency=1, prefetch=0, timeout=0.5, ack_wait=1, reject_on=ValueError,
    ).options  # fmt: skip

    assert options.reject_on == (ValueError,)
    assert options.start_from == datetime(2026, 1, 1, tzinfo=UTC)


def test_an_option_wins_over_its_setting() -> None:
    settings = Settings(
        concurrency=3, prefetch=7, timeout=9, ack_wait=11, max_retries=5, retry_delay=60
    )

    filled = with_settings(declared(concurrency=2, max_retries=0).options, settings)

    assert (filled.concurrency, filled.prefetch, filled.timeout, filled.ack_wait) == (2, 7, 9, 11)
    # Who asks for a minute does not mean the cap's half of one.
    assert filled.retry == RetryPolicy(retries=0, delay=60, cap=60)


def test_by_default_a_handler_retries_three_times_from_one_second_on() -> None:
    assert with_settings(declared().options, Settings()).retry == RetryPolicy()


def test_a_retry_policy_is_taken_as_it_is() -> None:
    policy = RetryPolicy(retries=9, delay=3)

    assert with_settings(declared(retry=policy).options, Settings(max_retries=1)).retry is policy


# --- the function --------------------------------------------------------------------------


def takes_event(event: Event[Any]) -> None: ...
def takes_context(event: Event[Any], ctx: Context) -> None: ...
def takes_optional_context(event: Event[Any], ctx: Context | None = None) -> None: ...
def takes_default(event: Event[Any], retries: int = 3) -> None: ...
def takes_any(*args: Any) -> None: ...
def takes_second(event: Event[Any], second: Any) -> None: ...


class Callable_:
    async def __call__(self, event: Event[Model], ctx: Context) -> None: ...

    async def method(self, event: Event[Model]) -> None: ...


async def with_database(database: str, event: Event[Model]) -> None: ...


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (takes_event, False), (takes_context, True), (takes_optional_context, True),
        (takes_default, False), (takes_any, False), (takes_second, True), (Callable_(), True),
        (Callable_().method, False), (lambda event: None, False),
        (functools.partial(with_database, "db"), False),
    ],
)  # fmt: skip
def test_a_handler_takes_its_event_and_where_it_asks_the_context(
    call: Callable[..., Any], expected: bool
) -> None:
    assert expected is declared(call).wants_context


def takes_nothing() -> None: ...
def takes_three(event: Any, ctx: Any, more: Any) -> None: ...
def takes_keyword(event: Any, *, database: Any) -> None: ...
def takes_self(self: Any, event: Any) -> None: ...
def yields(event: Any) -> Iterator[int]:
    yield 1


async def yields_async(event: Any) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (takes_nothing, r"takes_nothing\(\) .*: a handler takes \(event\) or \(event, ctx\)"),
        (takes_three, "takes_three.*a handler takes"),
        (takes_keyword, "takes_keyword.*a handler takes"),
        (takes_self, r"takes_self.*app\.on\(…\)\(object\.method\)"),
        (yields, "yields holds a yield.*; take the yield out"),
        (yields_async, "yields_async holds a yield"),
        ("handle", "is not a function"),
        (5, "is not a function"),
    ],
)
def test_a_function_that_is_no_handler_is_refused(call: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        declared(call)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (handle, True), (takes_event, False), (Callable_(), True), (Callable_().method, True),
        (functools.partial(with_database, "db"), True),
        (functools.wraps(handle)(lambda event: handle(event)), True),
    ],
)  # fmt: skip
def test_a_plain_function_is_told_from_a_coroutine_function(call: Any, expected: bool) -> None:
    assert expected is declared(call).is_async


def test_a_partial_is_called_as_its_function() -> None:
    assert declared(functools.partial(with_database, "db")).function.endswith(".with_database")


class HasId(Protocol):
    id: str


def takes_payload(payload: Model) -> None: ...
@functools.wraps(takes_payload)
def given_the_payload(event: Event[Any]) -> None:
    takes_payload(event.payload)


def any_event(event: Event[Any]) -> None: ...
def bare_event(event: Event) -> None: ...  # type: ignore[type-arg]
def no_annotation(event): ...  # type: ignore[no-untyped-def]
def event_of_model(event: Event[Model]) -> None: ...
def optional_event(event: Event[Model] | None) -> None: ...
def annotated_event(event: Annotated[Event[Model], "the event"]) -> None: ...
def either_event(event: Event[Model] | Event[Sent]) -> None: ...
def any_or_one(event: Event[Model] | Event[Any]) -> None: ...
def event_of_dict(event: Event[dict[str, int]]) -> None: ...
def named_event(event: MessageReceivedEvent) -> None: ...
def anything(event: Any) -> None: ...
def an_object(event: object) -> None: ...
def somebodys_protocol(event: HasId) -> None: ...
def foreign_context(event: Event[Model], ctx: Foreign) -> Foreign: ...


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (any_event, Any), (bare_event, Any), (no_annotation, Any), (event_of_model, Model),
        (optional_event, Model), (annotated_event, Model), (either_event, Model | Sent),
        (any_or_one, Any), (event_of_dict, dict[str, int]), (foreign_context, Model),
        (anything, Any), (an_object, Any), (somebodys_protocol, Any), (given_the_payload, Any),
        (named_event, MessageReceivedPayload), (Callable_(), Model), (Callable_().method, Model),
        (functools.partial(with_database, "db"), Model),
    ],
)  # fmt: skip
def test_the_annotation_says_what_the_payload_is(call: Any, expected: Any) -> None:
    assert expected == declared(call).model.model_fields["payload"].annotation


def test_either_of_two_payloads_is_read_as_the_one_it_is() -> None:
    model = declared(either_event).model
    body = b'{"id":"1","type":"a.b","timestamp":1,"metadata":{},"payload":{"b":2}}'

    assert model.model_validate_json(body).payload == Sent(b=2)


def test_a_schema_wins_over_the_annotation() -> None:
    assert declared(any_event, schema=Model).model is Event[Model]
    assert declared(event_of_model, schema=Sent).model is Event[Sent]


def test_a_model_nobody_can_see_is_refused_rather_than_ignored() -> None:
    def unseen(event: Event[Foreign]) -> None: ...

    with pytest.raises(ConfigError, match=r"unseen: the annotation Event\[Foreign\].*schema="):
        declared(unseen)

    assert declared(unseen, schema=Model).model is Event[Model]


def test_a_model_beside_the_function_is_found_by_the_names_given() -> None:
    class Local(BaseModel):
        a: int

    def local(event: Event[Local]) -> None: ...

    record = declare(local, app="a", types=("custom.x",), options={}, names=locals())

    assert record.model is Event[Local]


def test_a_payload_that_pydantic_refuses_is_refused_in_its_words() -> None:
    async def take(event: Event[Refused]) -> None: ...

    with pytest.raises(ConfigError) as caught:
        declared(take)

    assert str(caught.value).endswith(
        "take: Event[Refused]: Please use another one; expected the payload's type: a pydantic"
        " model, a dataclass, or a type such as dict[str, int]"
    )


class Plain: ...


class NotForModels(Protocol): ...


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (Plain, "Event[Plain]: Unable to generate"),
        (NotForModels, "Event[NotForModels]: Unable to generate"),
        (list[Plain], "Plain]]: Unable to generate"),
        (5, "Event[5]: Unable to generate"),
        (handle, "Event[handle]: a function is no type"),
        (Event[Model], "Event[Event[Model]]: it is the whole event's type"),
        ((int, str), "Event[int, str]: Too many arguments"),
    ],
)
def test_what_no_payload_can_be_is_refused_where_it_is_written(payload: Any, shown: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(shown) + r".*expected the payload's type"):
        Event[payload]


def takes_model(event: Model) -> None: ...
def takes_context_first(event: Context) -> None: ...
def takes_batch(event: Batch[Model]) -> None: ...
def takes_number(event: 5) -> None: ...  # type: ignore[valid-type]
def takes_depends(event: Depends(handle)) -> None: ...  # type: ignore[valid-type]
def takes_unseen(event: Foreign) -> None: ...


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (takes_model, "given the event, not Model; write Event[Model], and take event.payload"),
        (takes_context_first, "given the event, not Context; the event comes first"),
        (takes_batch, "given the event, not Batch; use @app.on_batch"),
        (takes_number, "given the event, not 5; write Event[Model]"),
        (takes_depends, "the annotation of 'event' is Depends(…) itself"),
        (takes_unseen, "the annotation Foreign cannot be read here"),
    ],
)
def test_an_annotation_that_is_no_event_is_answered_with_what_to_write(
    call: Any, expected: str
) -> None:
    with pytest.raises(ConfigError, match=f"{call.__name__}: .*{re.escape(expected)}"):
        declared(call)


Placed = TypeAliasType("Placed", Event[Model])


def takes_alias(event: Placed) -> None: ...
def takes_later(event: Event["Later"]) -> None: ...  # noqa: UP037
def takes_never(event: Event["Never"]) -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


class Later(BaseModel):
    b: int


def test_an_alias_of_an_event_is_read() -> None:
    assert declared(takes_alias).model is Event[Model]


def test_a_model_defined_below_its_handler_is_found_when_the_app_starts() -> None:
    record = declared(takes_later)

    complete(record)

    assert record.model.model_fields["payload"].annotation is Later
    with pytest.raises(
        ConfigError, match=r"takes_never.*: Event\[Never\] names types.*handlers\.py"
    ):
        complete(declared(takes_never))
