"""Connection of a command: few tries, for a person is waiting, and errors with advice."""

from __future__ import annotations

from ..errors import ApiError, ConnectError, PermissionDenied, TransportError
from ..settings import Settings
from ..transports.base import Transport

TRIES = 2  # after the first: enough for a server that restarts, few if there is none
LONGEST_WAIT = 1.0  # seconds between two tries
JETSTREAM_OFF = (10076, 10039)


class CannotConnect(TransportError):
    """No server lets us in. Unless ``is_answered``, none was found at the address."""

    def __init__(self, message: str, *, is_answered: bool) -> None:
        super().__init__(message)
        self.is_answered = is_answered


def for_a_person(settings: Settings) -> Settings:
    """Copy the settings with fewer and shorter tries than a worker's; lower values are kept."""
    tries = settings.reconnect_max_retries
    return settings.model_copy(
        update={
            "reconnect_max_retries": TRIES if tries is None else min(tries, TRIES),
            "reconnect_delay": min(settings.reconnect_delay, LONGEST_WAIT),
            "reconnect_max_delay": min(settings.reconnect_max_delay, LONGEST_WAIT),
        }
    )


async def connect(transport: Transport, name: str) -> None:
    """Open the transport. Raises CannotConnect."""
    try:
        await transport.open(name)
    except TransportError as error:
        is_answered = isinstance(error, ConnectError) and error.is_answered
        raise CannotConnect(str(error), is_answered=is_answered) from error


def with_advice(error: Exception) -> str:
    """Format the error, with what to do about it where that is known."""
    if isinstance(error, CannotConnect):
        if error.is_answered:  # the address is right; the error names what is not
            return f"{error}."
        return (
            f"{error}. NATS_URL says where the server is, or --server; omni-worker server starts"
            " one."
        )
    if isinstance(error, PermissionDenied):
        return (
            f"{error}. Grant it to the user this command logs in as; what each command needs is in"
            " docs/operations.md."
        )
    if isinstance(error, ApiError) and error.err_code in JETSTREAM_OFF:
        return f"{error}. omni-worker doctor looks closer."
    return str(error)
