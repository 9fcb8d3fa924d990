"""Injection: what `Depends` gives a handler, how it is cleaned up, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from omni_worker import App, ConfigError, Context, Depends, Event, Reject
from omni_worker.outcomes import DONE, Failed, Outcome, Rejected
from omni_worker.testing import TestWorker


class Order(BaseModel):
    amount: int = 1


@dataclass
class Session:
    """Stands for a database's, and remembers what became of it."""

    endings: list[str]
    rows: list[int]


SEEN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


async def session(ctx: Context[Any]) -> AsyncIterator[Session]:
    opened = Session(SEEN, [])
    try:
        yield opened
    except BaseException as error:
        SEEN.append(f"rollback: {type(error).__name__}")
        raise
    SEEN.append("commit")


class Orders:
    def __init__(self, session: Annotated[Session, Depends(session)], event: Event[Order]) -> None:
        self.session = session
        self.amount = event.payload.amount


async def run(app: App, **options: Any) -> TestWorker:
    """Publish one order to the app and wait for what becomes of it."""
    async with TestWorker(app, **options) as t:
        await t.publish("custom.order", Order())
        await t.settle()
    return t


async def test_a_handler_is_given_what_it_depends_on_made_once_for_each_run() -> None:
    app, given = App("shop"), []

    @app.on("custom.order", durable="d")
    async def handle(
        event: Event[Order],
        ctx: Context,
        db: Annotated[Session, Depends(session)],
        orders: Annotated[Orders, Depends()],
    ) -> None:
        given.append((db, orders, ctx.attempt, event.payload.amount))

    t = await run(app)

    [(db, orders, attempt, amount)] = given
    assert (orders.session is db, orders.amount, attempt, amount) == (True, 1, 1, 1)
    assert (t.outcomes(handle), SEEN) == ([DONE], ["commit"])


async def test_the_value_as_a_default_and_the_context_in_any_place_are_the_same() -> None:
    app, given = App("shop"), []

    def number() -> int:
        return 7

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], seven: int = Depends(number), *, ctx: Context) -> None:
        given.append((seven, ctx.attempt))

    await run(app)

    assert given == [(7, 1)]


async def ending(end: Callable[[Event[Order], Context], Any], **options: Any) -> Outcome:
    """How a handler's run ends, its session cleaned up after it."""
    app = App("shop")

    @app.on("custom.order", durable="d", max_retries=0, **options)
    async def handle(
        event: Event[Order], ctx: Context, db: Annotated[Session, Depends(session)]
    ) -> None:
        await end(event, ctx)

    return (await run(app)).outcomes(handle)[0]


async def test_clean_up_sees_that_the_handler_failed() -> None:
    async def fail(event: Event[Order], ctx: Context) -> None:
        raise ValueError("no")

    outcome = await ending(fail)

    assert (str(outcome), SEEN) == (str(Failed(ValueError("no"))), ["rollback: ValueError"])


async def test_clean_up_sees_a_rejection_and_a_timeout() -> None:
    async def reject(event: Event[Order], ctx: Context) -> None:
        raise Reject("no")

    async def hang(event: Event[Order], ctx: Context) -> None:
        await asyncio.Event().wait()

    outcomes = [await ending(reject), await ending(hang, timeout=1.0)]

    assert [type(one) for one in outcomes] == [Rejected, Failed]
    assert SEEN == ["rollback: Reject", "rollback: CancelledError"]


@pytest.mark.filterwarnings("ignore:coroutine")
async def test_clean_up_sees_a_publish_that_was_forgotten() -> None:
    async def forget(event: Event[Order], ctx: Context) -> None:
        ctx.publish("custom.done")

    outcome = await ending(forget)

    assert (type(outcome), SEEN) == (Failed, ["rollback: ConfigError"])


async def test_what_clean_up_raises_fails_the_run_and_the_others_are_cleaned_up() -> None:
    app = App("shop")

    async def commit() -> AsyncIterator[int]:
        yield 1
        raise OSError("the commit failed")

    @app.on("custom.order", durable="d", max_retries=0)
    async def handle(
        event: Event[Order],
        db: Annotated[Session, Depends(session)],
        one: Annotated[int, Depends(commit)],
    ) -> None:
        pass

    t = await run(app)

    assert str(t.outcomes(handle)[0]) == str(Failed(OSError("the commit failed")))
    assert SEEN == ["rollback: OSError"]


async def test_a_clean_up_that_hides_the_handlers_error_does_not_make_it_a_success() -> None:
    app = App("shop")

    async def hide() -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError:
            SEEN.append("hidden")

    @app.on("custom.order", durable="d", max_retries=0)
    async def handle(
        event: Event[Order],
        db: Annotated[Session, Depends(session)],
        one: Annotated[int, Depends(hide)],
    ) -> None:
        raise ValueError("no")

    t = await run(app)

    assert isinstance(t.outcomes(handle)[0], Failed)
    assert SEEN == ["hidden", "rollback: ValueError"]


async def test_a_clean_up_may_say_better_what_went_wrong() -> None:
    app = App("shop")

    def translated() -> Iterator[int]:
        try:
            yield 1
        except KeyError as error:
            raise Reject("this order can never work") from error

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], one: Annotated[int, Depends(translated)]) -> None:
        raise KeyError("amount")

    t = await run(app)

    assert str(t.outcomes(handle)) == str([Rejected(Reject("this order can never work"))])


async def test_a_dependency_that_cannot_be_made_fails_the_run_and_what_was_open_is_left() -> None:
    app = App("shop")

    def broken() -> int:
        raise OSError("no database")

    @app.on("custom.order", durable="d", max_retries=0)
    async def handle(
        event: Event[Order],
        db: Annotated[Session, Depends(session)],
        one: Annotated[int, Depends(broken)],
    ) -> None:
        raise AssertionError("not to be reached")

    t = await run(app)

    assert str(t.outcomes(handle)[0]) == str(Failed(OSError("no database")))
    assert SEEN == ["rollback: OSError"]


async def test_what_a_lifespan_opened_is_shared_and_not_closed_by_a_run() -> None:
    class Client:
        entered = 0

        async def __aenter__(self) -> Client:
            Client.entered += 1
            return self

        async def __aexit__(self, *facts: object) -> None:
            SEEN.append("closed")

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[Client]:
        async with Client() as opened:
            yield opened
        SEEN.append("over")

    def client(ctx: Context[Client]) -> Client:
        return ctx.state

    app, used = App("shop", lifespan=lifespan), []

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], http: Annotated[Client, Depends(client)]) -> None:
        used.append((http, list(SEEN)))

    await run(app)

    assert ([seen for _, seen in used], Client.entered) == ([[]], 1)
    assert SEEN == ["closed", "over"]


async def test_the_dependencies_of_a_plain_def_live_in_its_thread() -> None:
    app, threads = App("shop"), []

    def connection() -> Iterator[str]:
        threads.append(threading.get_ident())
        try:
            yield "open"
        except ValueError:
            threads.append(threading.get_ident())
            raise

    @app.on("custom.order", durable="d", max_retries=0)
    def handle(event: Event[Order], db: Annotated[str, Depends(connection)], ctx: Context) -> None:
        threads.append(threading.get_ident())
        raise ValueError(f"{db} {ctx.attempt}")

    t = await run(app)

    assert str(t.outcomes(handle)[0]) == str(Failed(ValueError("open 1")))
    assert (len(threads), len(set(threads))) == (3, 1)
    assert threads[0] != threading.get_ident()


async def test_a_middleware_hands_to_the_handler_by_ctx_local() -> None:
    app, seen = App("shop"), []

    @app.middleware
    async def tenant(ctx: Context, event: Event[Any], call_next: Any) -> None:
        ctx.local["tenant"] = event.payload.amount
        await call_next(ctx, event)

    def current(ctx: Context) -> int:
        found: int = ctx.local["tenant"]
        return found

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], tenant: Annotated[int, Depends(current)]) -> None:
        seen.append(tenant)

    async with TestWorker(app) as t:
        for amount in (1, 2):
            await t.publish("custom.order", Order(amount=amount))
        await t.settle()

    assert seen == [1, 2]


async def test_a_test_replaces_dependencies_by_functions_and_values() -> None:
    app, seen = App("shop"), []

    def engine() -> str:
        raise AssertionError("the real one")

    def table(engine: Annotated[str, Depends(engine)]) -> str:
        return f"table of {engine}"

    async def fake_session(ctx: Context) -> AsyncIterator[Session]:
        yield Session(SEEN, [ctx.attempt])
        SEEN.append("fake left")

    @app.on("custom.order", durable="d")
    async def handle(
        event: Event[Order],
        db: Annotated[Session, Depends(session)],
        table: Annotated[str, Depends(table)],
    ) -> None:
        seen.append((db.rows, table))

    await run(app, overrides={session: fake_session, engine: "a fake"})

    assert (seen, SEEN) == ([([1], "table of a fake")], ["fake left"])


async def test_an_override_that_nothing_depends_on_is_refused() -> None:
    app = App("shop")

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], db: Annotated[Session, Depends(session)]) -> None: ...

    with pytest.raises(ConfigError, match=r"no handler depends on run; they depend on session$"):
        await run(app, overrides={run: session})


async def test_a_test_replaces_the_lifespan_or_what_it_yields() -> None:
    @asynccontextmanager
    async def real(app: App) -> AsyncIterator[str]:
        raise AssertionError("the real database")
        yield ""

    @asynccontextmanager
    async def fake(app: App) -> AsyncIterator[str]:
        yield f"fake of {app.name}"

    app, states = App("shop", lifespan=real), []

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], ctx: Context[str]) -> None:
        states.append(ctx.state)

    await run(app, lifespan=fake)
    await run(app, state="a value")

    assert states == ["fake of shop", "a value"]
    with pytest.raises(ConfigError, match=r"give lifespan= or state=, not both"):
        TestWorker(app, lifespan=fake, state="both")


async def needs_places(x: int, /) -> None: ...


def needs_url(url: str) -> None: ...
async def needs_other(event: Event[int]) -> None: ...
async def needs_any(event: Event[Any]) -> None: ...
async def needs_either(event: Event[Order] | Event[int]) -> None: ...
async def needs_unseen(event: Event[Unseen]) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def refused(call: Any) -> str:
    """The words with which a handler is refused."""
    with pytest.raises(ConfigError) as raised:
        App("shop").on("custom.order", durable="d")(call)
    return str(raised.value)


def test_a_parameter_that_nothing_provides_is_named_where_it_is_declared() -> None:
    async def handle(event: Event[Order], url: Annotated[None, Depends(needs_url)]) -> None: ...

    said = refused(handle)

    assert "needs_url: nothing provides its parameter 'url': mark it Annotated[…, Depends" in said
    assert "test_injection.py:" in said


def test_dependencies_that_cannot_work_are_refused_with_what_to_write() -> None:
    async def uncalled(event: Event[Order], x: Annotated[int, Depends]) -> None: ...
    async def no_function(event: Event[Order], x: Annotated[int, Depends(5)]) -> None: ...  # type: ignore[arg-type]
    async def other(event: Event[Order], x: Annotated[None, Depends(needs_other)]) -> None: ...
    async def first(db: Annotated[int, Depends(needs_url)], event: Event[Order]) -> None: ...
    async def unmarked(event: Event[Order], ctx: Context, db: Session) -> None: ...
    async def only_db(event: Event[Order], db: Session) -> None: ...
    def plain(event: Event[Order], db: Annotated[Session, Depends(session)]) -> None: ...
    async def by_place(event: Event[Order], x: Annotated[int, Depends(needs_places)]) -> None: ...

    said = [
        refused(one)
        for one in (uncalled, no_function, other, first, unmarked, only_db, plain, by_place)
    ]

    expected = [
        "has Depends without (…): write Depends(function)",
        "Depends is given a int; give it a function or a class, uncalled",
        "needs_other takes event: Event[int], and",
        "the event comes first, then what Depends provides",
        "more that is marked Annotated[…, Depends(…)]",
        "write db: Annotated[Session, Depends(…)]",
        "plain def and runs in a thread, where its dependency session cannot be awaited",
        "needs_places: its parameter 'x' is positional-only, and values are given by name; take",
    ]
    assert [part for part, text in zip(expected, said, strict=True) if part not in text] == []


def test_a_dependency_takes_the_event_of_any_handler_or_of_several() -> None:
    async def any_one(event: Event[Order], x: Annotated[None, Depends(needs_any)]) -> None: ...
    async def either(event: Event[Order], x: Annotated[None, Depends(needs_either)]) -> None: ...

    app = App("shop")

    app.on("custom.order", durable="d1")(any_one)
    app.on("custom.order", durable="d2")(either)

    assert [one.short for one in app.handlers] == ["any_one", "either"]


def test_annotations_of_dependencies_that_cannot_be_read_are_refused() -> None:
    async def unseen(event: Event[Order], x: Annotated[None, Depends(needs_unseen)]) -> None: ...
    async def itself(event: Event[Order], db: Depends(session)) -> None: ...  # type: ignore[valid-type]
    async def of_dict(event: Event[Order], db: dict[str, int]) -> None: ...

    said = [refused(one) for one in (unseen, itself, of_dict)]

    expected = [
        "needs_unseen: the annotation Event[Unseen] of 'event' cannot be read here",
        "itself: the annotation of 'db' is Depends(…) itself; write db: Annotated[",
        "of_dict: its second parameter is given the context, not dict[str, int]; write db:",
    ]
    assert [part for part, text in zip(expected, said, strict=True) if part not in text] == []


def egg(hen: Any) -> None: ...
def hen(egg: Annotated[Any, Depends(egg)]) -> None: ...


egg.__annotations__["hen"] = Annotated[Any, Depends(hen)]


def test_a_circle_of_dependencies_is_refused_with_its_members() -> None:
    async def handle(event: Event[Order], x: Annotated[Any, Depends(egg)]) -> None: ...

    assert "dependencies go round in a circle: egg → hen → egg" in refused(handle)


def test_the_library_is_imported_with_the_first_depends_only() -> None:
    import subprocess
    import sys

    code = "import sys, omni_worker; print('taskiq_dependencies' in sys.modules)"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert ended.stdout == "False\n"


def test_a_dependency_marked_for_fastapi_is_one_for_handlers_too() -> None:
    class Depends:  # as FastAPI's class is called
        def __init__(self, dependency: Callable[..., Any]) -> None:
            self.dependency = dependency

    def number() -> int:
        return 1

    def web(one: Annotated[int, Depends(number)]) -> int:
        return one

    app = App("shop")

    @app.on("custom.order", durable="d")
    async def handle(event: Event[Order], one: Annotated[int, Depends(web)]) -> None: ...

    assert app.handlers[0].injected is not None
    assert app.handlers[0].injected.replaceable == {number, web}
