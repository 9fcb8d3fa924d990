"""Session: an operator's command connects, works, and ends with advice. Creates nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..errors import ConfigError, OmniWorkerError
from ..listeners.configuration import set_up_logging
from ..operations.letter_lookup import NoSuchLetter
from ..settings import Settings
from ..tasks import own
from ..threads import DaemonThreads
from ..transports.base import Transport
from ..transports.jetstream import JetStreamTransport
from ..transports.jetstream.loggers import LINK, PULLS, RIGHTS, SERVER
from ..urls import server_urls
from . import CALLED_WRONGLY, FAILED, INTERRUPTED, complain
from .common_options import given
from .connection import connect, for_a_person, with_advice
from .environment import warn_of_unknown_variables
from .tables import grouped, wrapped

if TYPE_CHECKING:  # a command without MODULE:APP needs none of it
    from ..app import App

NAME = "omni-worker-cli"
SHOW_AFTER = 0.5  # seconds of work until progress is shown
SHOW_EVERY = 0.1

Work = Callable[[Transport, Settings], Coroutine[Any, Any, int]]
WorkForApp = Callable[[Transport, Settings, "App"], Coroutine[Any, Any, int]]
WorkWithApp = Callable[[Transport, Settings, "App | None"], Coroutine[Any, Any, int]]


class CalledWrongly(Exception):
    """You must act: the command line contradicts itself; the message says what to write."""


def run_operation(work: Work, *, stays: bool = False) -> int:
    """Connect, run ``work`` and disconnect. Return the exit code.

    Work that ``stays`` until Ctrl-C survives any outage once it had a connection.
    """
    return _ending(lambda: asyncio.run(_connected(work, given_settings(), stays=stays)))


def run_for_app(
    target: str,
    work: WorkForApp,
    *,
    stays: bool = False,
    adapt: Callable[[Settings], Settings] = lambda settings: settings,
) -> int:
    """Run ``work`` with the app of MODULE:APP, on the server of that app's settings."""

    def run() -> int:
        app = loaded(target)
        settings = adapt(given_settings(app))

        async def for_app(transport: Transport, settings: Settings) -> int:
            return await work(transport, settings, app)

        return asyncio.run(_connected(for_app, settings, stays=stays))

    return _ending(run)


def run_with_app(target: str | None, work: WorkWithApp, *, stays: bool = False) -> int:
    """Run ``work`` with the app of MODULE:APP, or with None where no target is given."""
    if target is not None:
        return run_for_app(target, work, stays=stays)

    async def alone(transport: Transport, settings: Settings) -> int:
        return await work(transport, settings, None)

    return run_operation(alone, stays=stays)


def loaded(target: str) -> App:
    """Load the App of MODULE:APP. Raises CalledWrongly."""
    from .app_loader import CannotLoad, load_app

    try:
        return load_app(target, given().app_dir)
    except (CannotLoad, ConfigError) as error:
        raise CalledWrongly(str(error)) from None


def given_settings(app: App | None = None) -> Settings:
    """Return the app's settings, or the environment's, with the server of the command line."""
    return settings_of(app, given().server)


def settings_of(app: App | None, server: str | None = None) -> Settings:
    """Return the settings of an app, or of the environment; ``server`` wins. Raises ConfigError."""
    settings = (app and app.settings) or Settings()
    return settings if server is None else settings.model_copy(update={"urls": server_urls(server)})


def _ending(run: Callable[[], int]) -> int:
    """Run a command; turn every way it may end into an exit code."""
    set_up_logging("pretty", "warning")
    # A person who read that the connection was lost also reads when it is back.
    logging.getLogger(LINK).setLevel(logging.INFO)
    # A denied right ends the command in the same words; only our own scans pull.
    for name in (RIGHTS, SERVER, PULLS):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warn_of_unknown_variables()
    try:
        return run()
    except (ConfigError, CalledWrongly, NoSuchLetter) as error:
        complain(str(error))
        return CALLED_WRONGLY
    except OmniWorkerError as error:
        complain(with_advice(error))
        return FAILED
    except KeyboardInterrupt:
        if sys.stderr.isatty():  # behind the ^C
            click.echo(err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _connected(work: Work, settings: Settings, *, stays: bool) -> int:
    transport = JetStreamTransport(for_a_person(settings))
    await connect(transport, NAME)
    try:
        if stays:
            await transport.close()
            endless = settings.model_copy(update={"reconnect_max_retries": None})
            transport = JetStreamTransport(endless)
            await connect(transport, NAME)
        return await work(transport, settings)
    finally:
        with suppress(OmniWorkerError):
            await transport.close()


class Progress:
    """Progress of a scan: on a terminal only, once it takes longer than a moment."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shows = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown_at = 0.0

    def __call__(self, done: int, total: int = 0) -> None:
        """Report progress: ``done`` of ``total`` (0: total unknown)."""
        now = time.monotonic()
        if not self._shows or now - self._began < SHOW_AFTER or now - self._shown_at < SHOW_EVERY:
            return
        self._shown_at = now
        of = f" of {grouped(total)} ({100 * min(done, total) // total} %)" if total else ""
        click.echo(f"\r\x1b[K{self._what} {grouped(done)}{of}", nl=False, err=True)

    def clear(self) -> None:
        """Clear the line."""
        if self._shown_at:
            self._shown_at = 0.0
            click.echo("\r\x1b[K", nl=False, err=True)


class Above:
    """Standard output that clears the line of progress before it prints."""

    def __init__(self, output: TextIO, progress: Progress) -> None:
        self._output = output
        self._progress = progress

    def write(self, text: str) -> int:
        """Clear the line, then write."""
        self._progress.clear()
        return self._output.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)


async def confirmed(question: str, *, yes: bool) -> bool:
    """Ask whether to continue. Raises CalledWrongly, naming `--yes`, without a terminal."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise CalledWrongly(f"{question} There is no terminal to ask on: add --yes")
    asked = "\n".join(wrapped(f"{question}\N{NO-BREAK SPACE}[y/N]"))
    click.echo(asked.replace("\N{NO-BREAK SPACE}", " ") + " ", nl=False, err=True)
    # A daemon thread and a plain read: Ctrl-C must not wait for the Enter that never comes.
    answers = DaemonThreads(1, own("answer"))
    typed: bytes = await answers.run(lambda: os.read(sys.stdin.fileno(), 1024))
    answers.close()
    return typed.strip().lower() in (b"y", b"yes")
