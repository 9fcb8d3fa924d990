"""Findings: what the doctor says, one thing each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...errors import PermissionDenied


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # it cannot be seen from here, or concerns others
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``advice`` says what to do where it is not well."""

    level: Level
    what: str
    says: str
    advice: str = ""


def denied(what: str, error: PermissionDenied) -> Finding:
    """A right that is missing."""
    return Finding(Level.FAIL, what, str(error), "grant it; docs/operations.md lists them all")


def size(count: float) -> str:
    """`11 KiB`, `1 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count % 1 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def as_json(finding: Finding) -> dict[str, Any]:
    """Write a finding for programs."""
    return {
        "level": finding.level,
        "what": finding.what,
        "says": finding.says,
        "advice": finding.advice or None,
    }
