"""Errors of sending: each class is an ending of the run that does not catch it."""

from __future__ import annotations

from ..errors import OmniWorkerError
from ..outcomes import Reject, Retry


class OmniError(OmniWorkerError):
    """Omni's HTTP API did not do what was asked. Base of the errors of sending.

    ``status`` is that of its answer, None without one; ``code`` is Omni's own name of the error.
    ``may_be_sent`` is True if the message may be on its way all the same.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str = "", may_be_sent: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.may_be_sent = may_be_sent


class OmniRefused(OmniError, Reject):
    """Omni refuses this request and would again: uncaught, the event is a dead letter at once."""


class OmniKeyRefused(OmniError):
    """Omni refuses the API key: set ``OMNI_API_KEY``. Events are retried as after any failure."""


class OmniUnavailable(OmniError):
    """Omni could not be reached or failed, several times. Events are retried.

    The breaker counts it: while Omni is down, events wait and spend no attempt.
    """


class NotOmni(OmniError):
    """The program at the address does not answer as Omni does: set ``OMNI_URL``."""


class OmniBusy(OmniError, Retry):
    """Omni asks to wait: uncaught, the event comes again ``after`` so many seconds.

    The breaker counts it, as any failure.
    """

    is_failure = True

    def __init__(self, message: str, *, after: float | None, status: int, code: str = "") -> None:
        super().__init__(message, status=status, code=code)
        self.after = after
