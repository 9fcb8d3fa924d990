"""Returns: the subject and the consumer of an app's dead letters that are sent back. Pure."""

from __future__ import annotations

from .consumers import ConsumerSpec
from .streams import OWN_STREAM

RETRY_ACK_WAIT = 300.0  # seconds; one consumer serves all handlers, also those with long leases


def retry_subject(app: str) -> str:
    """Return the subject an app's dead letters are sent back to."""
    return f"omni-worker.retry.{app}"


def retry_consumer(app: str) -> ConsumerSpec:
    """Return the consumer from which all processes of an app read the events sent back."""
    return ConsumerSpec(
        stream=OWN_STREAM.name,
        name=f"{app}-retry",
        app=app,
        filters=(retry_subject(app),),
        ack_wait=RETRY_ACK_WAIT,
        # The consumer exists before anything is sent, so nothing is missed; and when it is
        # recreated after a deletion, it does not run a month of old retries.
        start_from="new",
    )
