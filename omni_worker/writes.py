"""Writes: one planned change of a stream or a consumer, carried out on the server."""

from __future__ import annotations

import logging
import re

from .errors import ApiError, TopologyError, TransportError
from .positions import read_position
from .steering.orders import read_pause
from .topology import (
    Config,
    CreateConsumer,
    CreateStream,
    UpdateConsumer,
    UpdateStream,
    app_of,
    handler_of,
    with_limit,
)
from .transports.base import Operators
from .transports.infos import ConsumerInfo, StreamInfo, read_consumer_config

log = logging.getLogger("omni_worker.provision")

TOO_MANY_UNSETTLED = 10121  # max_ack_pending is above a limit, which the text names
TOO_MANY_CONSUMERS = 10026
MOST_CONSUMERS = (
    "; the limit is max_consumers of the stream or the account (nats-server 2.15: 1000 for a stream"
    " without one). omni-worker consumers list shows those without a handler. A handler needs two,"
    " also with several types in one @app.on, and one with channel="
)
_LIMIT = re.compile(r"limit of (\d+)")


async def write_stream(operators: Operators, change: CreateStream | UpdateStream) -> StreamInfo:
    """Carry out one change of a stream. Raises ApiError when the server refuses."""
    match change:
        case CreateStream(config=config):
            return await operators.create_stream(config)
        case UpdateStream(config=config):
            return await operators.update_stream(config)


async def write_consumer(
    operators: Operators, change: CreateConsumer | UpdateConsumer
) -> ConsumerInfo:
    """Carry out one change of a consumer. Raises ApiError when the server refuses.

    Raises TopologyError where there is no room for one more. Where the server or the account
    allows fewer unsettled events, it is as many as they allow.
    """
    is_new = isinstance(change, CreateConsumer)
    write = operators.create_consumer if is_new else operators.update_consumer
    config = change.config
    if is_new:
        config = await _as_paused(operators, await _as_left(operators, change.stream, config))
    try:
        return await write(change.stream, config)
    except ApiError as error:
        if error.err_code == TOO_MANY_CONSUMERS:
            where = f"consumer {config['name']!r} on stream {change.stream}"
            raise TopologyError(f"{where}: {error}{MOST_CONSUMERS}") from error
        limit = _LIMIT.search(str(error)) if error.err_code == TOO_MANY_UNSETTLED else None
        if limit is None:
            raise
        return await write(change.stream, with_limit(config, int(limit.group(1))))


async def _as_left(operators: Operators, stream: str, config: Config) -> Config:
    """Return the configuration of a consumer that continues where a deleted one was.

    Its last process was killed before it could do it.
    """
    name = str(config["name"])
    if config.get("inactive_threshold") or "opt_start_seq" in config:  # of one process; or known
        return config
    position = await read_position(operators, stream, name)
    if position is None:
        return config
    log.info("consumer %s on %s continues at sequence %d", name, stream, position.start)
    return position.placed(config)


async def _as_paused(operators: Operators, config: Config) -> Config:
    """Return the configuration of a consumer that is created paused, if its handler is paused."""
    made = read_consumer_config(config)
    try:
        order = await read_pause(operators, app_of(made) or "", handler_of(made))
    except TransportError as error:
        log.debug("whether %s is paused is not known: %s", made.name, error)
        return config
    return config if order is None else {**config, "pause_until": order.until_text}
