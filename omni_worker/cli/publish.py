"""`omni-worker publish`: one event from the terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import click

from ..bus import EventBus
from ..errors import ConfigError, InvalidEvent, OmniWorkerError
from ..events import Published
from ..logs import set_up_logging
from ..schemas import SchemaRegistry
from ..settings import Settings
from ..subjects import build_subject
from . import CALLED_WRONGLY, FAILED, complain


def publish_command(
    type: str, channel: str | None, instance: str | None, data: str, event_id: str | None
) -> int:
    """Returns the exit code: 1 when it could not be stored, 2 when it was called wrongly."""
    set_up_logging("pretty", "warning")
    # Here nobody could register the schema it misses.
    logging.getLogger("omni_worker.schemas").setLevel(logging.ERROR)
    try:
        payload = _read(data)
        subject = build_subject(type, channel, instance)
        SchemaRegistry().check_known(type, warn=lambda _: None)
        settings = Settings()
    except (InvalidEvent, ConfigError, OSError, ValueError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    try:
        published = asyncio.run(_publish(settings, type, payload, channel, instance, event_id))
    except InvalidEvent as error:
        complain(str(error))
        return CALLED_WRONGLY
    except OmniWorkerError as error:
        complain(str(error))
        return FAILED
    again = "was stored before" if published.duplicate else "stored"
    click.echo(f"{subject} {again}: {published.stream} #{published.sequence}")
    click.echo(f"id {published.id}")
    return 0


async def _publish(
    settings: Settings,
    type: str,
    payload: Any,
    channel: str | None,
    instance: str | None,
    event_id: str | None,
) -> Published:
    async with EventBus(name="omni-worker-cli", settings=settings) as bus:
        return await bus.publish(type, payload, channel=channel, instance=instance, id=event_id)


def _read(data: str) -> Any:
    """JSON as it stands, from @file or from standard input. Raises ValueError saying where."""
    where = {"-": "standard input"}.get(data, data[1:] if data.startswith("@") else "--data")
    try:
        if data == "-":
            text = sys.stdin.read()
        else:
            text = Path(where).read_text(encoding="utf-8") if data.startswith("@") else data
        return json.loads(text)
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
