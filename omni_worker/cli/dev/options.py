"""Options of `omni-worker dev`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common_options import Given


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """Options of the command line."""

    target: str
    watch: tuple[Path, ...]
    payloads: bool
    port: int
    ephemeral: bool
    use_running: bool
    log_level: str
    only: tuple[str, ...]
    without: tuple[str, ...]
    dashboard: bool
    given: Given  # the options that every command has
