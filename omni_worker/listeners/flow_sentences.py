"""Flow sentences: log lines about how many events a handler takes, and who or what decides it."""

from __future__ import annotations

from ..signals import HandlerSignal, Limited, LimitEnded, Paused, Resumed, Scaled, Tuned
from .sentence import DEBUG, INFO, WARNING, Sentence


def flow_sentence(signal: HandlerSignal) -> Sentence | None:
    """The log line of an order, of a limit that holds events up, and of a tried concurrency."""
    fields = {"handler": signal.handler.name}
    match signal:
        case Paused(reason=reason):
            level, text = WARNING, f"is {reason}"
        case Resumed():
            level, text = INFO, "is resumed"
        case Scaled(reason="", adapts=True):
            level, text = INFO, f"adapts again how many run at once, now {signal.declared}"
        case Scaled(reason=""):
            level, text = INFO, f"runs {signal.declared} at once again, as declared"
        case Scaled():
            declared = "it adapts itself" if signal.adapts else f"declared: {signal.declared}"
            level, text = WARNING, f"is {signal.reason} ({declared})"
        case Tuned():
            level, text = DEBUG, f"runs {signal.concurrency} at once, not {signal.before}"
        case Limited():
            level, text = INFO, f"has events that wait for {signal.option}, as intended"
        case LimitEnded():
            level, text = INFO, f"has no events any longer that wait for {signal.option}"
        case _:
            return None
    return Sentence(level, f"{signal.handler.shown} {text}", fields)
