"""Service: this process as a NATS service (ADR-32), found by `nats service ls` and the dashboard.

It answers `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` with what it knows of itself at that moment.
Nothing is stored anywhere, and nothing is spent until a request comes.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

from .bus import EventBus
from .operations.processes import SERVED, HandlerActivity, WorkerProcess, answer_to
from .settings import NUMBER
from .subscription import Subscription

log = logging.getLogger("omni_worker.worker")


@contextmanager
def service(bus: EventBus) -> Iterator[None]:
    """Answer for a connected bus, unless the settings say not to."""
    if bus.settings.service == "off":
        yield
        return
    started = datetime.now(UTC)

    def answer(subject: str) -> bytes | None:
        return answer_to(subject, describe(bus, started))

    stop = bus.transport.serve(SERVED, answer, on_denied=_report_denied)
    try:
        yield
    finally:
        stop()


def describe(bus: EventBus, started: datetime) -> WorkerProcess:
    """Describe this process as it is now."""
    number = os.environ.get(NUMBER, "")
    return WorkerProcess(
        id=bus.id,
        app=bus.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        number=int(number) if number.isdigit() else None,
        started=started,
        version=version("omni-worker"),
        python=platform.python_version(),
        nats_server=".".join(map(str, bus.transport.server_version)),
        loop_lag=bus.loop_lag.worst,
        handlers=tuple(map(activity, bus.subscriptions)),
    )


def activity(subscription: Subscription) -> HandlerActivity:
    """Describe what a handler does right now."""
    handler = subscription.handler
    options = handler.options
    return HandlerActivity(
        name=handler.name,
        function=handler.function,
        durable=options.durable,
        queue=options.queue,
        subjects=handler.filters,
        ordered=options.order_by is not None,
        consumers=tuple((one.stream, one.consumer) for one in subscription.sources),
        asking=tuple((one.stream, one.consumer) for one in subscription.sources if one.outstanding),
        standby=tuple(
            (one.stream, one.consumer) for one in subscription.sources if not one.is_served
        ),
        one_active=handler.one_active,
        concurrency=subscription.scaling.concurrency,
        adapts=subscription.scaling.adapts,
        prefetch=options.prefetch,
        running=subscription.running,
        held=subscription.held,
        breaker_open=subscription.is_on_trial,
        stalls=tuple(subscription.stalls),
        waits=tuple(one.reason for one in subscription.flow.waits if one.reason),
        counts=asdict(subscription.counts),
        busy_seconds=subscription.busy_seconds,
    )


def _report_denied(error: Exception) -> None:
    log.info(
        "`nats service` and the dashboard do not see this process: %s (OMNI_WORKER_SERVICE=off"
        " does without)", error,
    )  # fmt: skip
