"""Running: connect, do the work, and end in words that say what to do next. Creates nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import click

from ...app import App
from ...errors import ApiError, ConfigError, OmniWorkerError, PermissionDenied, TransportError
from ...logs import set_up_logging
from ...operations.dead_letters import NoSuchLetter
from ...settings import Settings
from ...transports.base import Transport
from ...transports.jetstream import JetStreamTransport
from .. import CALLED_WRONGLY, FAILED, complain
from ..loading import CannotLoad, load_app

TRIES = 2  # retries to connect: a person waits, so less than a worker's
INTERRUPTED = 130
SHOW_AFTER = 0.5  # seconds of work until progress is shown
SHOW_EVERY = 0.1

Work = Callable[[Transport, Settings], Coroutine[Any, Any, int]]


class CalledWrongly(Exception):
    """What was asked for cannot be meant; the message says what to write instead."""


def run_operation(work: Work, settings: Settings | None = None) -> int:
    """Connect, run ``work`` and disconnect; returns the exit code."""
    set_up_logging("pretty", "warning")
    # A right that is missing ends the command with the same words.
    logging.getLogger("omni_worker.transport").addFilter(
        lambda record: not str(record.msg).startswith("permission denied")
    )
    try:
        settings = settings or Settings()
        return asyncio.run(_connected(work, settings))
    except (ConfigError, CalledWrongly, CannotLoad, NoSuchLetter) as error:
        complain(str(error))
        return CALLED_WRONGLY
    except OmniWorkerError as error:
        complain(_with_advice(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def loaded(target: str) -> App:
    """The App of MODULE:APP. Raises CalledWrongly."""
    try:
        return load_app(target)
    except (CannotLoad, ConfigError) as error:
        raise CalledWrongly(str(error)) from None


async def _connected(work: Work, settings: Settings) -> int:
    tries = min(TRIES, settings.reconnect_max_retries or TRIES)
    patient = settings.model_copy(update={"reconnect_max_retries": tries})
    transport = JetStreamTransport(patient)
    try:
        await transport.open("omni-worker-cli")
    except TransportError as error:
        raise CannotConnect(str(error)) from error
    try:
        return await work(transport, settings)
    finally:
        with suppress(OmniWorkerError):
            await transport.close()


class CannotConnect(TransportError):
    """No server answers there."""


def _with_advice(error: OmniWorkerError) -> str:
    if isinstance(error, CannotConnect):
        return f"{error}. NATS_URL says where the server is; omni-worker server starts one."
    if isinstance(error, PermissionDenied):
        return (
            f"{error}. Grant it to the user this command logs in as; what each command needs is in"
            " docs/operations.md."
        )
    if isinstance(error, ApiError) and error.err_code in (10076, 10039):
        return f"{error}. omni-worker doctor looks closer."
    return str(error)


class Progress:
    """How far a scan is, on a terminal only, once it takes longer than a moment."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shows = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are done."""
        now = time.monotonic()
        if not self._shows or now - self._began < SHOW_AFTER or now - self._shown_at < SHOW_EVERY:
            return
        self._shown_at = now
        share = f" ({100 * done // total} %)" if total else ""
        click.echo(f"\r\x1b[K{self._what} {grouped(done)} of {grouped(total)}{share}", nl=False,
                   err=True)  # fmt: skip

    def clear(self) -> None:
        """Leave the line as it was found."""
        if self._shown_at:
            self._shown_at = 0.0
            click.echo("\r\x1b[K", nl=False, err=True)


def grouped(number: int) -> str:
    """`100 000`."""
    return f"{number:,}".replace(",", " ")


async def confirmed(question: str, *, yes: bool) -> bool:
    """Whether to go on. Without a terminal nobody can say so: CalledWrongly names `--yes`."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise CalledWrongly(f"{question} Nobody is there to ask: add --yes")
    return await asyncio.to_thread(click.confirm, question, err=True)


Ask = Callable[..., Awaitable[bool]]
