"""Loggers: a name for each kind of line here, so that a command may leave one out."""

from __future__ import annotations

LINK = "omni_worker.transport"  # connection lost and restored; the other loggers are below it
RIGHTS = "omni_worker.transport.rights"  # rights the server denies us
SERVER = "omni_worker.transport.server"  # limits of the server's version
PULLS = "omni_worker.transport.pulls"  # problems with a consumer
