"""Keeping: what a stream may lose of the dead letters, or waiting events, it stores. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..transports.infos import StreamConfig
from .streams import DAY

LETTERS = 1_000  # room for fewer is too little
LETTER_BYTES = 16_384  # of one letter, about
LARGE_LETTER = 65_536  # bytes of one with a long traceback and its event


@dataclass(frozen=True, slots=True)
class Risk:
    """Way in which a stream may lose what it stores, and what to do about it."""

    says: str
    advice: str


def letter_risks(config: StreamConfig) -> list[Risk]:
    """Return how this stream may lose dead letters; none for a stream made by us."""
    return [*_by_retention(config), *_by_limits(config)]


def waiting_risks(config: StreamConfig) -> Iterator[Risk]:
    """Return how our own stream may lose events that wait there: schedules, what is due, blocks.

    The stream's max_age is none for schedules: they have a time to live of their own.
    """
    if config.retention != "limits":
        yield Risk(
            f"retention {config.retention} keeps no schedule until it is due",
            "recreate it with retention limits",
        )
    if 0 < config.max_age < DAY:
        yield Risk(
            f"max_age {config.max_age:g} s drops a block that was not published by then",
            "raise max_age",
        )
    per_subject = int(config.raw.get("max_msgs_per_subject") or -1)
    if per_subject > 0:
        yield Risk(
            f"max_msgs_per_subject {per_subject} drops the first events of a longer block",
            "set max_msgs_per_subject -1",
        )
    if config.discard != "new":
        for limit, most in (("max_msgs", config.max_msgs), ("max_bytes", config.max_bytes)):
            if most > 0:
                yield Risk(f"{limit} {most}: when full, it drops the oldest", f"set {limit} -1")


def _by_retention(config: StreamConfig) -> Iterator[Risk]:
    if config.retention == "interest":
        yield Risk(
            "retention interest keeps no letter without a consumer, and with one none that it has"
            " acknowledged",
            "recreate it with retention limits",
        )
    elif config.retention != "limits":
        yield Risk(
            f"retention {config.retention} drops a letter that a consumer acknowledged",
            "recreate it with retention limits",
        )
    if config.raw.get("no_ack"):
        yield Risk("no_ack: a letter is never confirmed, and its event waits", "set no_ack false")
    if 0 < config.max_age < DAY:
        yield Risk(f"max_age {config.max_age:g} s drops a letter after that", "raise max_age")


def _by_limits(config: StreamConfig) -> Iterator[Risk]:
    drops = config.discard != "new"
    per_subject = int(config.raw.get("max_msgs_per_subject") or -1)
    if 0 < per_subject < LETTERS:
        # All letters have one subject.
        refuses = not drops and config.raw.get("discard_new_per_subject")
        what = "refuses more letters than that" if refuses else "keeps only the last letters"
        yield Risk(f"max_msgs_per_subject {per_subject} {what}", "raise max_msgs_per_subject")
    what = "drops the oldest letters" if drops else "refuses letters, and their events wait"
    if 0 < config.max_msgs < LETTERS:
        yield Risk(f"max_msgs {config.max_msgs}: when full, it {what}", "raise max_msgs")
    if 0 < config.max_bytes < LETTERS * LETTER_BYTES:
        yield Risk(f"max_bytes {config.max_bytes}: when full, it {what}", "raise max_bytes")
    size = int(config.raw.get("max_msg_size") or -1)
    if 0 < size < LARGE_LETTER:
        yield Risk(
            f"max_msg_size {size}: larger letters are kept without their event's body, or cut",
            "raise max_msg_size",
        )
