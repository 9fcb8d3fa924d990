"""Environment: a word about variables that look like settings of ours and are none."""

from __future__ import annotations

import logging
import os

from ..process.channel import PARENT_FD
from ..process.supervisor import COUNT, NUMBER
from ..settings import unknown_variables

log = logging.getLogger("omni_worker.settings")

# Read by commands and between our own processes, not by Settings.
OTHERS = (
    "OMNI_WORKER_WORKERS", "OMNI_WORKER_HEALTH_HOST", "OMNI_WORKER_HEALTH_PORT",
    COUNT, NUMBER, PARENT_FD,
)  # fmt: skip


def unknown() -> list[str]:
    """One line each: a misspelt setting would pass in silence."""
    return unknown_variables(os.environ, OTHERS)


def warn_of_unknown_variables() -> None:
    """The same as warnings in the log."""
    for line in unknown():
        log.warning("%s", line)
