"""Results as a run would leave them, with figures one can follow in the head."""

from __future__ import annotations

from benchmarks.results import Measurement, Results, Row


def row(*seconds: float, events: int = 1000, **figures: float) -> Row:
    """One round per number of seconds; 10 µs of CPU and 5 of the server per event."""
    usual = {"cpu": events / 1e5, "server_cpu": events / 2e5, "others": 0.0}
    return Row(events, [{**usual, "seconds": each, **figures} for each in seconds])


def measurement(base: str = "omni-worker", shape: str = "rate", **rows: Row) -> Measurement:
    """A case with these rows; `omni_worker` stands for `omni-worker`."""
    return Measurement(
        title="Drain",
        group="drain",
        shape=shape,
        base=base,
        commit="abc1234",
        when="2026-01-02",
        rows={label.replace("_", "-"): each for label, each in rows.items()},
    )


def results(**cases: Measurement) -> Results:
    """Cases on some machine; `publish_many` stands for `publish-many`."""
    machine = {"processor": "A CPU", "cores": "2", "memory": "8 GB", "system": "Linux 6"}
    named = {name.replace("_", "-"): case for name, case in cases.items()}
    return Results(machine, {"Python": "3.11.7", "nats-server": "2.15.1"}, named)
