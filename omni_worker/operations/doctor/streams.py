"""The streams: check that each event type has one, and that none is nearly full."""

from __future__ import annotations

from collections.abc import Sequence

from ...events import DEAD_LETTER
from ...topology import (
    OWN_STREAM,
    STREAMS,
    Conflict,
    Lacking,
    Missing,
    Standing,
    holds_events,
    letter_risks,
    plan_stream,
    route,
    waiting_risks,
)
from ...transports.infos import StreamConfig, StreamInfo
from .finding import Finding, Level, size
from .server import FULL


def stream_findings(configs: Sequence[StreamConfig]) -> list[Finding]:
    """Return one finding for each of our seven streams."""
    found = []
    for spec in STREAMS:
        match plan_stream(spec, configs):
            case Missing():
                found.append(
                    Finding(
                        Level.WARN, spec.name, "missing",
                        "the first worker creates it; so does omni-worker plan --apply",
                    )
                )  # fmt: skip
            case Standing(name=name, differences=differences):
                says = "exists" if name == spec.name else f"its subjects are held by {name}"
                found.append(Finding(Level.OK, spec.name, "; ".join((says, *differences))))
            case Lacking(missing=missing):
                found.append(
                    Finding(
                        Level.FAIL, spec.name, f"does not store {', '.join(missing)}",
                        "omni-worker plan --apply adds the subject",
                    )
                )  # fmt: skip
            case Conflict(other=other, overlap=overlap):
                found.append(
                    Finding(
                        Level.FAIL, spec.name, f"{other} holds {overlap}, so it cannot be created",
                        f"take {overlap} out of {other}, or let {other} hold all of"
                        f" {', '.join(spec.subjects)}",
                    )
                )  # fmt: skip
    names = route([DEAD_LETTER], configs)
    for config in configs:
        for risk in letter_risks(config) if config.name in names else ():
            says = f"may lose dead letters: {risk.says}"
            found.append(Finding(Level.WARN, config.name, says, risk.advice))
        for risk in waiting_risks(config) if config.name == OWN_STREAM.name else ():
            says = f"may lose events that wait there: {risk.says}"
            found.append(Finding(Level.WARN, config.name, says, risk.advice))
    return found


def full_streams(streams: Sequence[StreamInfo]) -> list[Finding]:
    """Return streams near a limit, where events are dropped early or refused."""
    found = []
    for info in streams:
        config, state = info.config, info.state
        if not holds_events(config):
            continue
        loses = "refuses new events" if config.discard == "new" else "drops its oldest events"
        for limit, used, most in (
            ("max_bytes", state.bytes, config.max_bytes),
            ("max_msgs", state.messages, config.max_msgs),
        ):
            if 0 < most * FULL <= used:
                shown = f"{size(used)} of {size(most)}" if limit == "max_bytes" else (
                    f"{used} of {most} events"
                )  # fmt: skip
                found.append(
                    Finding(
                        Level.WARN, config.name, f"{shown} used; when full, it {loses}",
                        f"raise its {limit}: nats stream edit {config.name}"
                        f" --{limit.replace('_', '-')}=…; or lower its max_age",
                    )
                )  # fmt: skip
    return found
