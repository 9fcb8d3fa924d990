"""`omni-worker asyncapi`: an app's AsyncAPI document, without a server."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ...errors import ConfigError
from ...handler_consumers import planned_consumers
from ...operations.asyncapi import asyncapi
from ...topology import SEVEN
from .. import CALLED_WRONGLY, FAILED, complain, say
from ..session import CalledWrongly, given_settings, loaded
from ..tables import json_text

YAML = (".yaml", ".yml")


@click.command("asyncapi")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write into this file; .yaml or .yml makes it YAML.")  # fmt: skip
@click.option("--yaml", is_flag=True, help="YAML in place of JSON; needs pyyaml.")
@click.option("--app-version", default="0.0.0", show_default=True, metavar="VERSION",
              help="The version of your app, for info.version.")  # fmt: skip
@click.option("--sends", multiple=True, metavar="TYPE",
              help="A core type that the app publishes; may be repeated.")  # fmt: skip
def command(
    target: str, output: Path | None, yaml: bool, app_version: str, sends: tuple[str, ...]
) -> int:
    """Write the AsyncAPI 3.0 document of an app.

    Every handler is a receive operation on the addresses of its events. Every type that the app
    registers, and every --sends TYPE, is a send operation. A message is the envelope with the JSON
    schema of the payload's model: the handler's, else the registered one. x-omni-worker has the
    durable, the consumers and the options. No server is needed, and none is named.

    \b
    omni-worker asyncapi myapp:app --output asyncapi.yaml
    omni-worker asyncapi myapp:app --sends message.sent > asyncapi.json

    Exit codes: 0 written, 1 the file cannot be written, 2 called wrongly.
    """
    try:
        app = loaded(target)
        settings = given_settings(app)
        found = [planned_consumers(one, app.registry, settings, SEVEN) for one in app.handlers]
        document = asyncapi(app.name, found, app.registry, version=app_version, sends=sends)
        as_yaml = yaml or (output is not None and output.suffix in YAML)
        text = _yaml(document) if as_yaml else json_text(document, indent=2)
    except (CalledWrongly, ConfigError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    if output is None:
        say(text.rstrip("\n"))
        return 0
    try:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        complain(f"{output} cannot be written: {error.strerror}")
        return FAILED
    return 0


def _yaml(document: dict[str, Any]) -> str:
    try:
        yaml = import_module("yaml")
    except ImportError:
        raise CalledWrongly(
            "YAML needs pyyaml: pip install pyyaml; without it, write JSON, which is YAML as well"
        ) from None
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text
