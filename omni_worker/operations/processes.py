"""Processes: every worker process on the server, as it answers `$SRV.STATS` (ADR-32) about itself.

Nothing is stored: a process that does not answer is not listed. The shapes of a NATS service are
written and read here; their numbers for people without this package (`nats service stats`) are
those of the protocol, everything else is in ``metadata`` and in the ``data`` of an endpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..transports.base import Transport
from ..transports.timestamps import iso

PREFIX = "$SRV"
SERVED = f"{PREFIX}.>"
ANSWER_WITHIN = 0.5  # seconds
MARK = "omni-worker"  # key of metadata that only our processes have: their version
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
_KIND = "io.nats.micro.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerActivity:
    """A handler in one process. Counts are those since the process started."""

    name: str
    function: str
    durable: str | None = None
    queue: str | None = None
    subjects: tuple[str, ...] = ()
    ordered: bool | None = None  # it has order_by; None: an older process does not say
    consumers: tuple[tuple[str, str], ...] = ()  # stream and consumer
    asking: tuple[tuple[str, str], ...] = ()  # those of them with an open request
    standby: tuple[tuple[str, str], ...] = ()  # those of them that serve another process for now
    one_active: bool | None = None  # they are to serve one at a time; None as for ``ordered``
    concurrency: int = 0
    adapts: bool = False  # it finds that number itself
    prefetch: int | None = None
    running: int = 0
    held: int = 0
    breaker_open: bool = False
    stalls: tuple[str, ...] = ()  # why it takes no events
    waits: tuple[str, ...] = ()  # for its rate or limit, as ordered
    counts: Mapping[str, int] = field(default_factory=dict)  # what became of its deliveries
    busy_seconds: float = 0.0  # of all its slots, with an event or a batch each

    @property
    def runs(self) -> int:
        """Runs that ended, well or not."""
        return self.counts.get("handled", 0) + self.errors

    @property
    def errors(self) -> int:
        """Runs that ended with a retry or a dead letter."""
        return self.counts.get("retried", 0) + self.counts.get("dead_lettered", 0)

    @property
    def mean_seconds(self) -> float:
        """Mean time an event has a slot, its answer included; of a batch its share of that."""
        return self.busy_seconds / self.runs if self.runs else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """A process that runs an app."""

    id: str
    app: str
    host: str
    pid: int
    number: int | None = None  # among the workers of one parent
    started: datetime
    version: str  # of omni-worker
    python: str = ""
    nats_server: str = ""  # that it is connected to
    loop_lag: float = 0.0  # seconds the event loop was late, at worst, in the last fifteen
    handlers: tuple[HandlerActivity, ...] = ()

    @property
    def slots(self) -> int:
        """Events it can run at once."""
        return sum(one.concurrency for one in self.handlers)

    @property
    def running(self) -> int:
        """Events it runs right now."""
        return sum(one.running for one in self.handlers)


async def processes(
    transport: Transport, *, app: str | None = None, within: float = ANSWER_WITHIN
) -> list[WorkerProcess]:
    """Ask every process that can be reached; ``app`` asks only those of one app.

    Sorted by app, host and pid. Raises PermissionDenied without the right to ask.
    """
    kind = "" if app is None else f".{service_name(app)}"
    answers = await transport.ask_all(f"{PREFIX}.STATS{kind}", within=within)
    found = {one.id: one for one in map(read_process, answers) if one is not None}
    chosen = [one for one in found.values() if app in (None, one.app)]
    return sorted(chosen, key=lambda one: (one.app, one.host, one.number or 0, one.pid))


def as_json(found: Sequence[WorkerProcess], now: datetime) -> dict[str, Any]:
    """Write processes for programs."""
    return {"time": iso(now), "processes": [process_json(one) for one in found]}


def process_json(process: WorkerProcess) -> dict[str, Any]:
    """Write one process for programs."""
    return {
        "id": process.id,
        "app": process.app,
        "host": process.host,
        "pid": process.pid,
        "worker": process.number,
        "started": iso(process.started),
        "versions": {
            "omni-worker": process.version,
            "python": process.python,
            "nats-server": process.nats_server,
        },
        "slots": process.slots,
        "running": process.running,
        "loopLagSeconds": process.loop_lag,
        "handlers": [{"handler": one.name, **_activity_json(one)} for one in process.handlers],
    }


# --- the protocol ---------------------------------------------------------------------------------


def service_name(app: str) -> str:
    """Return an app's name in the letters that the protocol allows."""
    return _NO_NAME.sub("_", app)


def answer_to(subject: str, process: WorkerProcess) -> bytes | None:
    """Answer a request on `$SRV.VERB[.NAME[.ID]]`; None if it is not for this process."""
    _, verb, *to = subject.split(".")
    if to and to not in ([service_name(process.app)], [service_name(process.app), process.id]):
        return None
    match verb:
        case "PING":
            answer: dict[str, Any] = {}
        case "INFO":
            endpoints = [_endpoint_info(one) for one in process.handlers]
            answer = {"description": "omni-worker", "endpoints": endpoints}
        case "STATS":
            endpoints = [_endpoint_stats(one) for one in process.handlers]
            answer = {"started": _started(process.started), "endpoints": endpoints}
        case _:
            return None
    return json.dumps(
        {
            "type": f"{_KIND}.{verb.lower()}_response",
            "name": service_name(process.app),
            "id": process.id,
            "version": process.version,
            "metadata": _metadata(process),
            **answer,
        }
    ).encode()


def read_process(answer: bytes) -> WorkerProcess | None:
    """Read an answer to STATS; None if another program sent it, or if it cannot be read."""
    try:
        said = json.loads(answer)
        about = said["metadata"]
        return WorkerProcess(
            id=str(said["id"]),
            app=str(about["app"]),
            host=str(about["host"]),
            pid=int(about["pid"]),
            number=int(about["worker"]) if "worker" in about else None,
            started=datetime.fromisoformat(said["started"]),
            version=str(about[MARK]),
            python=str(about.get("python", "")),
            nats_server=str(about.get("nats-server", "")),
            loop_lag=float(about.get("loop-lag", 0)),
            handlers=tuple(_read_activity(one["data"]) for one in said["endpoints"]),
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _metadata(process: WorkerProcess) -> dict[str, str]:
    """Everything about the process, as text: the protocol allows nothing else here."""
    number = {} if process.number is None else {"worker": str(process.number)}
    return {
        MARK: process.version,
        "app": process.app,
        "host": process.host,
        "pid": str(process.pid),
        **number,
        "python": process.python,
        "nats-server": process.nats_server,
        "slots": str(process.slots),
        "running": str(process.running),
        "loop-lag": f"{process.loop_lag:.6f}",
    }


def _endpoint(activity: HandlerActivity) -> dict[str, Any]:
    return {
        "name": _NO_NAME.sub("_", activity.name),
        "subject": ",".join(activity.subjects),
        "queue_group": activity.durable or activity.queue or "",
    }


def _endpoint_info(activity: HandlerActivity) -> dict[str, Any]:
    about = {"function": activity.function, "concurrency": str(activity.concurrency)}
    return {**_endpoint(activity), "metadata": about}


def _endpoint_stats(activity: HandlerActivity) -> dict[str, Any]:
    return {
        **_endpoint(activity),
        "num_requests": activity.runs,
        "num_errors": activity.errors,
        "last_error": "",
        "processing_time": round(activity.busy_seconds * 1e9),
        "average_processing_time": round(activity.mean_seconds * 1e9),
        "data": {"name": activity.name, **_activity_json(activity)},
    }


def _activity_json(activity: HandlerActivity) -> dict[str, Any]:
    return {
        "function": activity.function,
        "durable": activity.durable,
        "queue": activity.queue,
        "subjects": list(activity.subjects),
        "ordered": activity.ordered,
        "oneActive": activity.one_active,
        "consumers": [
            {
                "stream": key[0],
                "consumer": key[1],
                "asking": key in activity.asking,
                "standby": key in activity.standby,
            }
            for key in activity.consumers
        ],
        "concurrency": activity.concurrency,
        "adapts": activity.adapts,
        "prefetch": activity.prefetch,
        "running": activity.running,
        "held": activity.held,
        "breakerOpen": activity.breaker_open,
        "stalls": list(activity.stalls),
        "waits": list(activity.waits),
        "counts": dict(activity.counts),
        "busySeconds": round(activity.busy_seconds, 6),
    }


def _read_activity(data: Mapping[str, Any]) -> HandlerActivity:
    prefetch, ordered, one_active = data["prefetch"], data.get("ordered"), data.get("oneActive")
    consumers = [(str(one["stream"]), str(one["consumer"])) for one in data["consumers"]]
    said = list(zip(consumers, data["consumers"], strict=True))
    return HandlerActivity(
        name=str(data["name"]),
        function=str(data["function"]),
        durable=_text(data["durable"]),
        queue=_text(data["queue"]),
        subjects=tuple(map(str, data["subjects"])),
        ordered=ordered if isinstance(ordered, bool) else None,
        consumers=tuple(consumers),
        asking=tuple(key for key, one in said if one.get("asking") is True),
        standby=tuple(key for key, one in said if one.get("standby") is True),
        one_active=one_active if isinstance(one_active, bool) else None,
        concurrency=int(data["concurrency"]),
        adapts=data.get("adapts") is True,
        prefetch=None if prefetch is None else int(prefetch),
        running=int(data["running"]),
        held=int(data["held"]),
        breaker_open=bool(data["breakerOpen"]),
        stalls=tuple(map(str, data["stalls"])),
        waits=tuple(map(str, data.get("waits", ()))),
        counts={str(name): int(count) for name, count in data["counts"].items()},
        busy_seconds=float(data["busySeconds"]),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _started(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"
