"""omni-worker: event workers on NATS JetStream. The public names; this is the map of the house.

Events in: transports → subscription → dispatch → your handler → settle → transports.
Events out: app, bus or context → publisher → schemas, subjects, wire → transports.
"""

from importlib import import_module as _import
from typing import TYPE_CHECKING

from . import payloads

if TYPE_CHECKING:
    from . import signals
    from .adaptive import Auto
    from .app import App
    from .batches import Batch
    from .bus import EventBus
    from .context import Context
    from .dispatch import CallNext, Middleware
    from .errors import (
        ApiError,
        ConfigError,
        EventTooLarge,
        InvalidEvent,
        InvalidPayload,
        InvalidSubject,
        NoStream,
        NotConnected,
        OmniWorkerError,
        PermissionDenied,
        PublishError,
        TopologyError,
        TransportError,
        UnknownEventType,
    )
    from .events import Event, Metadata, Published
    from .extensions import Extension
    from .handlers import Handler
    from .injection import Depends
    from .options import HandlerOptions, StartFrom
    from .outcomes import (
        Done,
        Failed,
        GivenUp,
        HandBack,
        Kept,
        Outcome,
        Reject,
        Rejected,
        Retry,
        Skip,
    )
    from .payloads.agent import *
    from .payloads.base import *
    from .payloads.chat import *
    from .payloads.identity import *
    from .payloads.instance import *
    from .payloads.job import *
    from .payloads.media import *
    from .payloads.message import *
    from .payloads.reaction import *
    from .payloads.voice import *
    from .publisher import Draft, PublishManyError, PublishMiddleware, PublishNext
    from .retry import RetryPolicy
    from .routes import Answer, Request, Routes
    from .schedules.atomic import Atomic, Committed
    from .schedules.messages import Scheduled
    from .schemas import Invalid, SchemaRegistry, Valid
    from .settings import Settings
    from .signals import Signal
    from .subjects import build_subject, build_subscribe_pattern, matches, parse_subject
    from .subscription import Subscription
    from .subscription.gates import Gate, Go
    from .subscription.run import Run

__all__ = [
    "Answer",
    "ApiError",
    "App",
    "Atomic",
    "Auto",
    "Batch",
    "CallNext",
    "Committed",
    "ConfigError",
    "Context",
    "Depends",
    "Done",
    "Draft",
    "Event",
    "EventBus",
    "EventTooLarge",
    "Extension",
    "Failed",
    "Gate",
    "GivenUp",
    "Go",
    "HandBack",
    "Handler",
    "HandlerOptions",
    "Invalid",
    "InvalidEvent",
    "InvalidPayload",
    "InvalidSubject",
    "Kept",
    "Metadata",
    "Middleware",
    "NoStream",
    "NotConnected",
    "OmniWorkerError",
    "Outcome",
    "PermissionDenied",
    "PublishError",
    "PublishManyError",
    "PublishMiddleware",
    "PublishNext",
    "Published",
    "Reject",
    "Rejected",
    "Request",
    "Retry",
    "RetryPolicy",
    "Routes",
    "Run",
    "Scheduled",
    "SchemaRegistry",
    "Settings",
    "Signal",
    "Skip",
    "StartFrom",
    "Subscription",
    "TopologyError",
    "TransportError",
    "UnknownEventType",
    "Valid",
    "build_subject",
    "build_subscribe_pattern",
    "matches",
    "parse_subject",
    "signals",
]
__all__ += payloads.__all__

if not TYPE_CHECKING:
    # The same names, each imported when it is asked for: a command of the program needs few.
    _FILES = {
        name: file
        for file, names in {
            "adaptive": "Auto",
            "app": "App",
            "batches": "Batch",
            "bus": "EventBus",
            "context": "Context",
            "dispatch": "CallNext Middleware",
            "errors": (
                "ApiError ConfigError EventTooLarge InvalidEvent InvalidPayload InvalidSubject "
                "NoStream NotConnected OmniWorkerError PermissionDenied PublishError TopologyError "
                "TransportError UnknownEventType"
            ),
            "events": "Event Metadata Published",
            "extensions": "Extension",
            "handlers": "Handler",
            "injection": "Depends",
            "options": "HandlerOptions StartFrom",
            "outcomes": "Done Failed GivenUp HandBack Kept Outcome Reject Rejected Retry Skip",
            "publisher": "Draft PublishManyError PublishMiddleware PublishNext",
            "retry": "RetryPolicy",
            "routes": "Answer Request Routes",
            "schedules.atomic": "Atomic Committed",
            "schedules.messages": "Scheduled",
            "schemas": "Invalid SchemaRegistry Valid",
            "settings": "Settings",
            "signals": "Signal",
            "subjects": "build_subject build_subscribe_pattern matches parse_subject",
            "subscription": "Subscription",
            "subscription.gates": "Gate Go",
            "subscription.run": "Run",
        }.items()
        for name in names.split()
    }

    def __getattr__(name: str) -> object:
        if name in _FILES:
            found = getattr(_import(f".{_FILES[name]}", __name__), name)
        elif name in payloads.__all__:
            found = getattr(payloads, name)
        elif name == "signals":
            found = _import(f".{name}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
