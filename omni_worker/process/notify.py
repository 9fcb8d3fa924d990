"""Notify: reports to the parent of this process that it is ready, alive or stopping.

PM2 over its IPC channel, systemd over its notify socket, our own parent over our own channel; each
only when its environment variable is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress

from ..forks import let_go_in_forks
from .channel import ParentChannel
from .health import Report, report_fact

log = logging.getLogger("omni_worker.worker")

Environment = MutableMapping[str, str]
Ask = Callable[[str], None]

PM2_KILL_TIMEOUT = 1.6  # seconds, unless the app's kill_timeout says otherwise
REPORT_EVERY = 1.0  # seconds


class Notify:
    """PM2, systemd and our parent at once. Their variables leave the environment: not for children.

    ``ready`` and ``stopping`` are called on the loop, ``alive`` from the watchdog's thread.
    """

    def __init__(self, environment: Environment | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.pm2 = Pm2.found(environment)
        self._systemd = Systemd.found(environment)
        self.parent = ParentChannel.found(environment)
        self._reported: tuple[object, object] | None = None
        self._report_at = 0.0

    def listen(self, ask: Ask) -> None:
        """Take PM2's `shutdown` and the end of our parent as the request to stop."""
        loop = asyncio.get_running_loop()
        if self.pm2 is not None:
            self.pm2.listen(loop, ask)
        if self.parent is not None:
            self.parent.open(lambda: ask("the parent is gone"))

    def ready(self) -> None:
        """Every consumer is bound."""
        if self.pm2 is not None:
            self.pm2.ready()
        if self._systemd is not None:
            self._systemd.say("READY=1")

    def stopping(self) -> None:
        """Handlers may finish, nothing new begins."""
        if self._systemd is not None:
            self._systemd.say("STOPPING=1")

    def alive(self, report: Report) -> None:
        """Called several times a second, with the latest report."""
        if self._systemd is not None and not report.not_alive:
            self._systemd.alive()
        if self.parent is not None:
            self._report(self.parent, report)

    def close(self) -> None:
        """Stop listening."""
        if self.pm2 is not None:
            self.pm2.close()
        if self.parent is not None:
            self.parent.close()

    def _report(self, parent: ParentChannel, report: Report) -> None:
        """Send it at once when something changed, else every second."""
        reasons = (report.not_alive, report.not_ready)
        now = time.monotonic()
        if reasons != self._reported or now >= self._report_at:
            self._reported, self._report_at = reasons, now + REPORT_EVERY
            parent.fact("health", report_fact(report))


class Pm2:
    """PM2's IPC channel: one JSON value a line, both ways."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        let_go_in_forks(self, lambda one: [one._channel.fileno()])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read = b""

    @classmethod
    def found(cls, environment: Environment) -> Pm2 | None:
        """Return the IPC channel of our parent, if there is one."""
        number = environment.pop("NODE_CHANNEL_FD", "")
        if not number.isdigit():
            return None
        try:
            os.set_inheritable(int(number), False)
            channel = socket.socket(fileno=int(number))
            channel.setblocking(False)
        except OSError as error:  # the variable came down from a grandparent, the channel did not
            log.debug("NODE_CHANNEL_FD=%s is no channel: %s", number, error)
            return None
        return cls(channel)

    def ready(self) -> None:
        """For `wait_ready: true`."""
        with suppress(OSError):
            self._channel.send(b'"ready"\n')

    def listen(self, loop: asyncio.AbstractEventLoop, ask: Ask) -> None:
        """Hear `shutdown`, which PM2 sends with `shutdown_with_message: true`."""
        self._loop = loop
        loop.add_reader(self._channel, self._on_readable, ask)

    def close(self) -> None:
        """Stop hearing. The channel itself ends with the process: to PM2 that is our end."""
        self._listen_no_more()
        self._channel.detach()

    def _listen_no_more(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._channel)
            self._loop = None

    def _on_readable(self, ask: Ask) -> None:
        try:
            data = self._channel.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            log.warning("PM2 is gone; this worker goes on without it")
            self._listen_no_more()
            self._channel.close()
            return
        *lines, self._read = (self._read + data).split(b"\n")
        if b'"shutdown"' in (line.strip() for line in lines):
            ask("PM2's shutdown")


class Systemd:
    """The service manager's notify socket, and its watchdog if it wants to be fed."""

    def __init__(self, address: str, feed_every: float | None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._feed_every = feed_every
        self._feed_at = 0.0

    @classmethod
    def found(cls, environment: Environment) -> Systemd | None:
        """Return the notify socket and watchdog that systemd set for this process, if any."""
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return None
        for_us = interval.isdigit() and pid in ("", str(os.getpid()))
        return cls(address, int(interval) / 2e6 if for_us else None)

    def alive(self) -> None:
        """Feed the watchdog, twice as often as it asks for."""
        now = time.monotonic()
        if self._feed_every is not None and now >= self._feed_at:
            self._feed_at = now + self._feed_every
            self.say("WATCHDOG=1")

    def say(self, state: str) -> None:
        """Send one datagram; it may be lost."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.setblocking(False)
                one.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("could not notify systemd of %s: %s", state, error)


def pm2_kill_timeout(environment: Mapping[str, str]) -> float | None:
    """Seconds PM2 waits between SIGINT and SIGKILL; None when we do not run under PM2.

    PM2 hands an app's options down as environment variables; one left at its default is not there.
    """
    if "pm_id" not in environment:
        return None
    for name in ("kill_timeout", "PM2_KILL_TIMEOUT"):
        if environment.get(name, "").isdigit():
            return int(environment[name]) / 1000
    return PM2_KILL_TIMEOUT
