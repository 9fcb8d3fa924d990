"""Loggers: a name for each kind of line here, so that a command may leave one out."""

from __future__ import annotations

LINK = "omni_worker.transport"  # lost, connected again; the others are below it
RIGHTS = "omni_worker.transport.rights"  # what the server denies us
SERVER = "omni_worker.transport.server"  # what its version cannot do well
PULLS = "omni_worker.transport.pulls"  # a consumer's trouble
