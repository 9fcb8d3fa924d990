"""Ports: where a process answers HTTP, and whether it counts for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from ..app import App
from ..errors import ConfigError
from ..metrics import NEEDS, PATH, Metrics, check_installed, is_installed
from ..routes import Routes, parse_key
from ..settings import Settings
from .router import Router

log = logging.getLogger("omni_worker.worker")

LOOPBACK = "127.0.0.1"
Wanted = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of a process; None: it has no such port. ``metrics`` is one for `/metrics` alone.

    ``at_parent``: the parent of this process has them, and asks here.
    """

    host: str
    health: int | None
    metrics: int | None
    at_parent: bool = False

    @property
    def is_any(self) -> bool:
        """True if something can be asked of this process."""
        return self.health is not None or self.metrics is not None or self.at_parent

    @classmethod
    def of(cls, settings: Settings) -> Ports:
        """Return what the settings say."""
        return cls(
            host=settings.health_host, health=settings.health_port, metrics=settings.metrics_port
        )


def wants_metrics(wanted: Wanted, ports: Ports, routes: Routes) -> bool:
    """Decide whether a process counts for Prometheus. Raises ConfigError for a contradiction.

    `auto`: if there is a port to ask at, prometheus-client is installed, and the app has no
    `/metrics` of its own.
    """
    if wanted == "off" and ports.metrics is not None:
        raise ConfigError("OMNI_WORKER_METRICS is off: leave out --metrics-port")
    if wanted == "on" or ports.metrics is not None:
        check_installed()
        return True
    if wanted == "off":
        return False
    is_taken = any(parse_key(key)[1] == PATH for key in routes)
    return ports.is_any and is_installed() and not is_taken


def use_metrics(app: App, settings: Settings, ports: Ports) -> Metrics | None:
    """Return the metrics of an app, its own or new ones; None if there are none.

    Raises ConfigError where they are wanted and prometheus-client is not installed.
    """
    own = next((one for one in app.all_extensions() if isinstance(one, Metrics)), None)
    if own is not None or not wants_metrics(settings.metrics, ports, app.routes()):
        return own
    return app.use(Metrics(route=ports.metrics is None))


@contextmanager
def serving(ports: Ports, router: Router, metrics: Router) -> Iterator[None]:
    """Answer at the ports while this is entered. Raises ConfigError for a port that is taken."""
    router.explain(PATH, _why_no_metrics(ports))
    with ExitStack() as stack:
        for option, port, routes in (
            ("health", ports.health, router),
            ("metrics", ports.metrics, metrics),
        ):
            if port is None:
                continue
            from .http import HttpServer  # the standard HTTP server; most workers do without

            server = HttpServer(ports.host, port, routes, option=f"--{option}-port")
            stack.callback(server.close)
            log.info("%s on %s", option, server.url)
        yield


def _why_no_metrics(ports: Ports) -> str:
    if not is_installed():
        return NEEDS
    if ports.metrics is not None:
        return "metrics are answered at --metrics-port"
    return "metrics are off: OMNI_WORKER_METRICS=on"
