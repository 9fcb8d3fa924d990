"""Environment: warn about unknown OMNI_WORKER_* and NATS_* variables."""

from __future__ import annotations

import logging
import os

from ..settings import COUNT, NUMBER, PARENT_FD, unknown_variables

log = logging.getLogger("omni_worker.settings")

DASHBOARD_FD = "OMNI_WORKER_DASHBOARD_FD"  # the socket that dev's dashboard is given

# Read by commands and between our own processes, not by Settings.
OTHERS = (
    "OMNI_WORKER_WORKERS", "OMNI_WORKER_DASHBOARD_USER", DASHBOARD_FD, COUNT, NUMBER, PARENT_FD,
)  # fmt: skip


def unknown() -> list[str]:
    """Return a line for each: a misspelled setting would pass in silence."""
    return unknown_variables(os.environ, OTHERS)


def warn_of_unknown_variables() -> None:
    """Log a warning for each."""
    for line in unknown():
        log.warning("%s", line)
