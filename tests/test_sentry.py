"""Sentry: by the real SDK and a transport that keeps what it would send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.scope import Scope
from sentry_sdk.transport import Transport

from omni_worker import App, Context, Event, Reject
from omni_worker.sentry import SentryExtension
from omni_worker.testing import TestWorker


class Kept(Transport):
    """Keeps what it would send."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(dict(event))


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """The events Sentry was sent."""
    kept = Kept()
    sentry_sdk.init(
        "https://key@sentry.example/1",
        transport=kept,
        default_integrations=False,
        integrations=[LoggingIntegration()],
    )
    yield kept.events
    Scope.get_global_scope().clear()
    Scope.get_global_scope().set_client(None)
    Scope.get_isolation_scope().clear()


def app_that(handle: Any, **options: Any) -> App:
    """An app with Sentry, whose only handler does this."""
    app = App("shop")
    app.use(SentryExtension())
    app.on("custom.order", durable="orders", **options)(handle)
    return app


def error_of(event: dict[str, Any]) -> tuple[str, str]:
    """Class and text of the exception that a report is about."""
    last = event["exception"]["values"][-1]
    return last["type"], last["value"]


async def test_the_last_attempt_is_reported_with_what_the_handler_noted_in_it(
    sent: list[dict[str, Any]],
) -> None:
    async def charge(event: Event[Any], ctx: Context) -> None:
        sentry_sdk.set_tag("customer", f"ana-{ctx.attempt}")
        sentry_sdk.add_breadcrumb(message=f"looked up {ctx.attempt}")
        raise KeyError("code")

    async with TestWorker(app_that(charge, max_retries=2)) as worker:
        published = await worker.publish(
            "custom.order", {}, channel="whatsapp", instance="wa-1", correlation_id="c-1"
        )
        await worker.settle()

    [event] = sent
    assert error_of(event) == ("KeyError", "'code'")
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "charge"
    assert event["transaction"] == "process custom.order"
    assert event["tags"] == {
        "handler": "orders", "function": "charge", "event_type": "custom.order",
        "channel": "whatsapp", "instance": "wa-1", "customer": "ana-3",
    }  # fmt: skip
    assert event["contexts"]["omni_worker"] == {
        "event": published.id, "correlation": "c-1", "stream": "CUSTOM",
        "sequence": published.sequence, "subject": "custom.order.whatsapp.wa-1", "attempt": 3,
    }  # fmt: skip
    letter = event["contexts"]["dead_letter"]
    assert (letter["number"], letter["attempts"], letter["of"]) == (1, 3, 3)
    assert letter["look"] == "omni-worker dead-letters show 1"
    assert [one["message"] for one in event["breadcrumbs"]["values"]] == ["looked up 3"]


async def test_an_attempt_that_is_tried_again_is_not_reported(sent: list[dict[str, Any]]) -> None:
    async def charge(event: Event[Any], ctx: Context) -> None:
        if ctx.attempt < 3:
            raise ConnectionError("the bank is away")

    app = app_that(charge, max_retries=5)
    async with TestWorker(app) as worker:
        await worker.publish("custom.order", {})
        await worker.settle()
        [handler] = app.handlers
        assert worker.attempts(handler.short) == 3

    assert sent == []


async def test_a_plain_def_that_rejects_is_reported_with_its_cause(
    sent: list[dict[str, Any]],
) -> None:
    def charge(event: Event[Any]) -> None:
        sentry_sdk.set_tag("thread", "yes")
        try:
            {}["code"]
        except KeyError as error:
            raise Reject("no such order") from error

    async with TestWorker(app_that(charge)) as worker:
        await worker.publish("custom.order", {})
        await worker.settle()

    [event] = sent
    assert [one["type"] for one in event["exception"]["values"]] == ["KeyError", "Reject"]
    assert event["tags"]["thread"] == "yes"


async def test_two_runs_at_once_have_a_scope_each(sent: list[dict[str, Any]]) -> None:
    async def charge(event: Event[Any]) -> None:
        sentry_sdk.set_tag("order", event.payload["order"])
        await asyncio.sleep(1)
        raise ValueError(event.payload["order"])

    async with TestWorker(app_that(charge, max_retries=0, concurrency=2)) as worker:
        await worker.publish("custom.order", {"order": "a"})
        await worker.publish("custom.order", {"order": "b"})
        await worker.settle()

    found = [(one["tags"]["order"], error_of(one)[1]) for one in sent]
    assert sorted(found) == [("a", "a"), ("b", "b")]


async def test_an_event_that_never_ran_is_reported(sent: list[dict[str, Any]]) -> None:
    async def charge(event: Event[int]) -> None:
        """Never runs: the payload is no number."""

    async with TestWorker(app_that(charge)) as worker:
        await worker.publish("custom.order", {"order": "secret"})
        await worker.settle()

    [event] = sent
    assert event["tags"]["handler"] == "orders"
    assert event["contexts"]["dead_letter"]["attempts"] == 0
    assert "secret" not in str(event)


async def test_an_event_that_kills_its_process_is_reported_without_an_exception(
    sent: list[dict[str, Any]],
) -> None:
    async def charge(event: Event[Any]) -> None:
        """Its process dies each time."""

    async with TestWorker(app_that(charge, max_retries=1)) as worker:
        worker.crash("charge", on_attempt=None, times=9)
        await worker.publish("custom.order", {})
        await worker.settle()

    [event] = sent
    assert "process died" in event["message"]
    assert event["level"] == "error"
    assert event["tags"]["event_type"] == "custom.order"


async def test_other_errors_that_are_logged_are_reported_as_ever(
    sent: list[dict[str, Any]],
) -> None:
    async def charge(event: Event[Any], ctx: Context) -> None:
        ctx.log.error("the bank is slow")

    async with TestWorker(app_that(charge)) as worker:
        await worker.publish("custom.order", {})
        await worker.settle()
    logging.getLogger("omni_worker.worker").error("connection lost")

    assert [one["logentry"]["message"] for one in sent] == ["the bank is slow", "connection lost"]
    assert sent[0]["tags"]["handler"] == "orders"
    assert "tags" not in sent[1]


async def test_nothing_is_kept_of_runs_that_are_over(sent: list[dict[str, Any]]) -> None:
    async def charge(event: Event[Any]) -> None:
        raise ValueError("no")

    app = App("shop")
    extension = app.use(SentryExtension())
    app.on("custom.order", durable="orders", max_retries=1)(charge)
    async with TestWorker(app) as worker:
        await worker.publish("custom.order", {})
        await worker.settle()

    assert len(sent) == 1
    assert len(extension._scopes) == 0


async def test_without_a_call_of_init_the_extension_does_nothing() -> None:
    async def charge(event: Event[Any]) -> None:
        raise ValueError("no")

    async with TestWorker(app_that(charge, max_retries=0)) as worker:
        await worker.publish("custom.order", {})
        await worker.settle()

        assert len(worker.dead_letters) == 1
