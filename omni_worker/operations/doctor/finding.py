"""Findings: results of the doctor, one fact each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...errors import PermissionDenied


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"  # not visible from here, or about other programs
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check; ``advice`` says what to do about a problem."""

    level: Level
    what: str
    says: str
    advice: str = ""


def denied(what: str, error: PermissionDenied) -> Finding:
    """Make the finding of a missing right."""
    return Finding(Level.FAIL, what, str(error), "grant it; docs/operations.md lists them all")


def size(count: float) -> str:
    """Format a number of bytes: `11 KiB`, `1 MiB`."""
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
