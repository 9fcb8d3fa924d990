"""Browsing: a real chromium, and servers with much or hostile things on them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from omni_worker import EventBus
from omni_worker.transports.base import Message
from tests.dashboard.support import EVIL

EVENTS, LETTERS = 50_000, 1_000
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing of ours is looked up elsewhere, and no profile stays.
ARGUMENTS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# One as long as a browser is open: a worker that is started by a thread ends with it. None stays:
# the test kit waits for real time where another thread could go on.
_threads: list[ThreadPoolExecutor] = []


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser that the system has; without one a test is skipped, in CI it fails."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        said = "no chromium here: apt-get install chromium"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
            while _threads:
                _threads.pop().shutdown()


class Watched:
    """A page whose every complaint is kept: errors, refusals of the policy, dialogs."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self._complain(line.text))
        page.on("dialog", lambda dialog: (self._complain(dialog.message), dialog.dismiss()))

    def _complain(self, text: str) -> None:
        if "status of 404" not in text:  # of the page that was asked for
            self.complaints.append(text)


def run(work: Coroutine[Any, Any, object]) -> None:
    """Run on a loop of its own: playwright's is running in this thread."""
    if not _threads:
        _threads.append(ThreadPoolExecutor(1))
    _threads[0].submit(asyncio.run, work).result()


async def fill(url: str, events: int = EVENTS, letters: int = LETTERS) -> None:
    """Store events and dead letters as workers and other programs do."""
    async with EventBus(url, name="filler") as bus:
        for first in range(0, events, 5_000):
            numbers = range(first, min(events, first + 5_000))
            await bus.transport.publish_many(map(event, numbers), timeout=60)
        await bus.transport.publish_many(map(letter, range(letters)), timeout=60)


async def fill_with_evil(url: str) -> None:
    """Store what a hostile program may: ids, types, sources, errors and payloads that are HTML."""
    async with EventBus(url, name="filler") as bus:
        body: dict[str, Any] = {
            "id": EVIL, "type": f"custom.{EVIL}", "payload": {EVIL: EVIL}, "timestamp": 1,
            "metadata": {"source": EVIL, "correlationId": EVIL, "causationId": EVIL},
        }  # fmt: skip
        payload = {
            "originalEventId": EVIL, "originalEventType": EVIL, "error": EVIL, "errorType": EVIL,
            "handler": EVIL, "subject": EVIL, "stream": "CUSTOM", "sequence": 1, "body": EVIL,
            "retryCount": 3, "traceback": EVIL, "retryOf": EVIL, "headers": {EVIL: [EVIL]},
        }  # fmt: skip
        evil = body | {"id": f"{EVIL}2", "type": "system.dead_letter", "payload": payload}
        await bus.transport.publish(
            Message("custom.evil", json.dumps(body).encode(), ""), timeout=10
        )
        await bus.transport.publish(
            Message("system.dead_letter", json.dumps(evil).encode(), ""), timeout=10
        )
        await bus.transport.operators.create_consumer("CUSTOM", {
            "durable_name": "evil", "name": "evil", "ack_policy": "explicit",
            "filter_subject": "custom.>", "metadata": {"omni-worker.app": EVIL},
        })  # fmt: skip


def event(number: int) -> Message:
    """Write an ordinary event."""
    id = f"event-{number}"
    body = {"id": id, "type": "message.received", "payload": {"text": "hello " * 20},
            "timestamp": 1, "metadata": {"source": "other", "correlationId": id}}  # fmt: skip
    subject = f"message.received.whatsapp.wa-{number % 50}"
    return Message(subject, json.dumps(body).encode(), id)


def letter(number: int) -> Message:
    """Write a dead letter."""
    id = f"letter-{number}"
    payload = {
        "originalEventId": f"event-{number}", "originalEventType": "message.received",
        "error": f"no such chat {number}", "errorType": "app.NoSuchChat", "retryCount": 3,
        "timestamp": time.time_ns() // 1_000_000, "stream": "MESSAGE", "sequence": number + 1,
        "subject": "message.received.whatsapp.wa-1", "handler": f"handler-{number % 5}",
        "body": "{}", "traceback": "  File x, line 1\n" * 40,
    }  # fmt: skip
    body = {"id": id, "type": "system.dead_letter", "payload": payload, "timestamp": 1,
            "metadata": {"source": "shop", "correlationId": f"event-{number}"}}  # fmt: skip
    return Message("system.dead_letter", json.dumps(body).encode(), id)
