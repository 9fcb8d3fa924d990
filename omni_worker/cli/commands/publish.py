"""`omni-worker publish`: one event from the terminal."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

import click

from ...bus import EventBus
from ...errors import ConfigError, InvalidEvent, OmniWorkerError, UnknownEventType
from ...events import Published
from ...listeners.configuration import set_up_logging
from ...listeners.text import visible_json
from ...publisher import Draft
from ...schemas import SchemaRegistry
from ...settings import Settings
from ...subjects import build_subject, matches, subject_on_the_wire
from ...transports.base import Transport
from .. import CALLED_WRONGLY, FAILED, INTERRUPTED, complain, say
from ..connection import connect, for_a_person, with_advice
from ..environment import warn_of_unknown_variables
from ..session import CalledWrongly, given_settings, loaded
from ..values import json_option

NAME = "omni-worker-cli"
PATIENCE = 10.0  # seconds for the server's confirmation; a person is waiting


@click.command("publish")
@click.argument("type", metavar="TYPE")
@click.option("--channel", metavar="NAME", help="whatsapp, discord …; together with --instance.")
@click.option("--instance", metavar="NAME", help="wa-001 …; together with --channel.")
@click.option(
    "--data", default="null", metavar="JSON|@FILE|-",
    help="The payload: JSON, a file that holds it, or standard input. Default: null.",
)  # fmt: skip
@click.option(
    "--app", "target", metavar="MODULE[:APP]",
    help="Check the payload by this app's types; use its server.",
)  # fmt: skip
@click.option("--id", metavar="ID", help="The event's id; the same id twice is stored once.")
@json_option
def command(
    type: str, channel: str | None, instance: str | None, data: str, target: str | None,
    id: str | None, json: bool,
) -> int:  # fmt: skip
    """Publish one event and wait until it is stored.

    \b
    omni-worker publish message.received --channel whatsapp --instance wa-001 \\
        --data '{"externalId": "1", "chatId": "c1", "from": "ana",
                 "content": {"type": "text", "text": "hello"}}'

    Exit codes: 0 stored, also if it was stored before; 1 not stored, or it is not known whether:
    then the error names the --id to try again with; 2 called wrongly.
    """
    set_up_logging("pretty", "warning")
    # A schema cannot be registered here, so a warning that it is missing would be noise.
    logging.getLogger("omni_worker.schemas").setLevel(logging.ERROR)
    warn_of_unknown_variables()
    try:
        if (channel is None) != (instance is None):
            given, missing = ("channel", "instance") if channel else ("instance", "channel")
            raise CalledWrongly(f"--{given} without --{missing}: give both or neither")
        draft = Draft(
            type=type, payload=_read(data), channel=channel, instance=instance, id=id
        )  # fmt: skip
        app = loaded(target) if target else None
        settings = given_settings(app)
        registry = app.registry if app else SchemaRegistry()
        subject = build_subject(type, channel, instance)
        subject = subject_on_the_wire(type, subject, settings.unaddressed)
        registry.check_known(type, warn=lambda _: None)
        published, is_read = asyncio.run(_publish(draft, subject, settings, registry))
    except UnknownEventType as error:
        complain(f"{error}; here: --app MODULE:APP, whose registry knows it")
        return CALLED_WRONGLY
    except (InvalidEvent, ConfigError, CalledWrongly, OSError, ValueError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    except OmniWorkerError as error:
        complain(with_advice(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    if json:
        say(visible_json(_json(published, subject)))
        return 0
    again = "was stored before" if published.duplicate else "stored"
    stored = f"{subject} {again}: {published.stream} #{published.sequence}"
    say([stored, f"id {published.id}", f"on {settings.shown_urls}"])
    if not is_read:
        say('no consumer reads it; a new one does with start_from="first"')
    return 0


async def _publish(
    draft: Draft, subject: str, settings: Settings, registry: SchemaRegistry
) -> tuple[Published, bool]:
    """Publish, and look if any consumer reads it; without the right to look, one does."""
    bus = EventBus(name=NAME, settings=for_a_person(settings), registry=registry)
    await connect(bus.transport, NAME)
    try:
        await bus.connect()
        published = await bus.publish(
            draft.type, draft.payload, channel=draft.channel, instance=draft.instance, id=draft.id,
            timeout=PATIENCE,
        )  # fmt: skip
        with suppress(OmniWorkerError):
            return published, await _is_read(bus.transport, published.stream, subject)
        return published, True
    finally:
        await bus.close()


async def _is_read(transport: Transport, stream: str, subject: str) -> bool:
    for consumer in await transport.operators.consumers(stream):
        filters = consumer.config.filters
        if not filters or any(matches(one, subject) for one in filters):
            return True
    return False


def _json(published: Published, subject: str) -> dict[str, Any]:
    return {
        "id": published.id,
        "subject": subject,
        "stream": published.stream,
        "sequence": published.sequence,
        "duplicate": published.duplicate,
    }


def _read(data: str) -> Any:
    """Parse JSON given as text, as @file or on standard input. Raises ValueError saying where."""
    where = {"-": "standard input"}.get(data, data[1:] if data.startswith("@") else "--data")
    try:
        if data == "-":
            text = sys.stdin.read()
        else:
            text = Path(where).read_text(encoding="utf-8") if data.startswith("@") else data
        return loads(text)
    except FileNotFoundError:
        folder = Path(where).absolute().parent
        raise ValueError(f"there is no file {Path(where).name} in {folder}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8") from None
    except JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
