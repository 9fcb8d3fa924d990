"""Payloads: the core event types' models, and the names people use for them.

Enumerations are open strings and extra keys are kept: a newer Omni must not break an old worker.
A key that other programs write as null may be missing, since we leave out what is None.
"""

from __future__ import annotations

from . import agent, chat, identity, instance, job, media, message, reaction, voice
from .agent import *
from .base import Payload
from .chat import *
from .identity import *
from .instance import *
from .job import *
from .media import *
from .message import *
from .reaction import *
from .voice import *

__all__ = ["Payload"]  # and the models, without the table: these are public names
__all__ += agent.__all__
__all__ += chat.__all__
__all__ += identity.__all__
__all__ += instance.__all__
__all__ += job.__all__
__all__ += media.__all__
__all__ += message.__all__
__all__ += reaction.__all__
__all__ += voice.__all__

CORE_PAYLOADS: dict[str, type[Payload]] = {
    **message.PAYLOADS,
    **reaction.PAYLOADS,
    **media.PAYLOADS,
    **identity.PAYLOADS,
    **instance.PAYLOADS,
    **job.PAYLOADS,
    **chat.PAYLOADS,
    **agent.PAYLOADS,
    **voice.PAYLOADS,
}

# Core types whose payload is any object.
UNTYPED = (
    "agent.a2a.task_received",
    "agent.a2a.task_updated",
    "agent.a2a.task_completed",
    "agent.a2a.task_failed",
    "agent.internal.forwarded",
)
