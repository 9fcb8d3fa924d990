"""Own readers: what an app needs of our own stream, beside the consumers of its handlers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..handlers import Handler, with_settings
from ..long_retries import retries_long
from ..schedules.messages import due_consumer
from ..schedules.own_stream import ATOMIC, SCHEDULES, Feature
from ..schedules.retries import again_consumer
from ..settings import Settings
from ..topology import ConsumerSpec, retry_consumer
from .seen_in_code import publishes_in_blocks, publishes_later

SENT_BACK = "for events sent back from dead letters"
FOR_PUBLISHERS = "for events published later, and atomic() blocks"


def own_readers(
    app: str, handlers: Sequence[Handler], settings: Settings, version: tuple[int, int, int]
) -> tuple[list[Feature], list[tuple[ConsumerSpec, str]]]:
    """Return what our own stream has to do, and its consumers with what each is for.

    An app without handlers is planned because it publishes, maybe later or all or none; of one with
    handlers their code shows it.
    """
    least = settings.long_retry
    handlers = [replace(one, options=with_settings(one.options, settings)) for one in handlers]
    has_crons = any(one.cron is not None for one in handlers)
    has_long = least is not None and any(retries_long(one, least) for one in handlers)
    readers = [(retry_consumer(app), SENT_BACK)]
    if not handlers:
        features = [one for one in (SCHEDULES, ATOMIC) if version >= one.since]
        if features:
            readers.append((due_consumer(app), FOR_PUBLISHERS))
        return features, readers
    has_later = publishes_later(handlers) and version >= SCHEDULES.since
    has_blocks = publishes_in_blocks(handlers) and version >= ATOMIC.since
    if has_crons:
        readers.append((due_consumer(app), "for crons, and events published later"))
    elif has_later or has_blocks:
        readers.append((due_consumer(app), FOR_PUBLISHERS))
    if has_long:
        readers.append((again_consumer(app), "for long retries"))
    features = [SCHEDULES] if has_crons or has_long or has_later else []
    return features + ([ATOMIC] if has_blocks else []), readers
