"""Signals: every listener hears its kinds, and none can disturb the engine."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from omni_worker.signals import BreakerClosed, BreakerOpened, Connected, Listener, Signal, Signals


def test_every_listener_hears_in_the_order_of_registration() -> None:
    heard: list[str] = []
    signals = Signals([Listener(lambda _: heard.append("first"))])
    signals.add(Listener(lambda _: heard.append("second")))

    signals.emit(Connected(server="a"))

    assert heard == ["first", "second"]


def test_a_listener_hears_only_its_kinds() -> None:
    heard: list[Signal] = []
    signals = Signals([Listener(heard.append, (BreakerOpened, BreakerClosed))])

    signals.emit(Connected(server="a"))

    assert heard == []
    assert signals.emitter(Connected) is None
    assert signals.emitter(BreakerOpened) is not None


def test_a_listener_that_fails_is_logged_and_the_others_hear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Signal] = []

    def fail(signal: Any) -> None:
        raise RuntimeError("boom")

    signals = Signals([Listener(fail), Listener(heard.append)])
    with caplog.at_level(logging.ERROR, "omni_worker.signals"):
        signals.emit(Connected(server="a"))

    assert heard == [Connected(server="a")]
    assert "a listener failed on Connected" in caplog.text
