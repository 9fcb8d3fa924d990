"""Errors: what can go wrong, named by who must act. Nothing else is decided here."""

from __future__ import annotations


class OmniWorkerError(Exception):
    """Base of every error that this framework raises."""


class ConfigError(OmniWorkerError):
    """A declaration, an option or a setting cannot work as written: change it."""


class InvalidEvent(OmniWorkerError):
    """An event cannot be published, or cannot be read: the sender must act."""


class InvalidSubject(InvalidEvent, ValueError):
    """A type, channel, instance id or pattern would not make a valid subject."""


class UnknownEventType(InvalidEvent):
    """No stream or schema knows this core or system event type."""


class InvalidPayload(InvalidEvent):
    """The payload does not fit its schema, or is not JSON (NaN, infinity, foreign objects)."""


class EventTooLarge(InvalidEvent):
    """Body and headers together exceed what the server takes in one message."""


class TransportError(OmniWorkerError):
    """The server cannot be reached, or refuses a request: operations must act."""


class ConnectError(TransportError):
    """No server lets us in. Unless ``is_answered``, none was found at the address."""

    def __init__(self, message: str, *, is_answered: bool) -> None:
        super().__init__(message)
        self.is_answered = is_answered


class Unanswered(TransportError):
    """The server is connected and does not answer, as a cluster that has no leader does not."""


class NotConnected(TransportError):
    """The bus was never connected, or is closed."""


class NoStream(TransportError):
    """No stream on the server stores this subject."""


class ConsumerGone(TransportError):
    """A consumer that was read does not exist any more."""

    def __init__(self, stream: str, consumer: str) -> None:
        super().__init__(f"consumer {consumer} on {stream} does not exist any more")


class TopologyError(TransportError):
    """A stream or consumer is in the way and is not ours to change."""


class StreamMissing(TopologyError):
    """No stream stores what a handler reads; one that does may still be created."""


class ApiError(TransportError):
    """The server refused a JetStream request; ``code`` and ``err_code`` are its own."""

    def __init__(self, message: str, *, code: int, err_code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.err_code = err_code


class PermissionDenied(TransportError):
    """The server's account does not grant a right that is needed; the message names the subject."""


class BucketUnavailable(TransportError):
    """A bucket of ours cannot be written: missing, full, sealed or forbidden; see the message."""


class PublishError(TransportError):
    """No confirmation came in time: the event may or may not be stored.

    Publish again with ``id=error.event_id``: within the stream's duplicate window the server keeps
    one copy, whichever of the two it was.
    """

    def __init__(self, message: str, *, event_id: str) -> None:
        super().__init__(message)
        self.event_id = event_id


def wrong_loop() -> ConfigError:
    """Return the error of a call on another loop than the connection's: it would wait for ever."""
    return ConfigError(
        "this runs on another event loop than the app, as asyncio.run(…) in a thread makes"
        " one: in a plain def handler write ctx.wait(ctx.publish(…)), in a thread of your own"
        " asyncio.run_coroutine_threadsafe(app.publish(…), loop).result() with the app's loop"
    )
