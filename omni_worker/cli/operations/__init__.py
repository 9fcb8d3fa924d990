"""The operators' commands: what they take and what `--help` says; the work is in the other files.

Each file's work is imported when its command is called, so that `--help` answers at once.
"""

from __future__ import annotations

from .letters import dead_letters
from .questions import completion, doctor, plan, replay, show, status, tail, trace
from .values import json_option

__all__ = ["COMMANDS", "json_option"]

COMMANDS = (show, plan, status, tail, trace, dead_letters, replay, doctor, completion)
