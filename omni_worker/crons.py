"""Crons: `@app.cron`, a handler that runs by the clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from .cron import CatchUp, check_cron
from .errors import ConfigError
from .handlers import Handler, cron_type, declare
from .options import HandlerOptions
from .signatures import caller, variable

Call = TypeVar("Call", bound=Callable[..., Any])


class CronDeclarations:
    """Declares handlers that run by the clock."""

    name: str

    def cron(
        self,
        expression: str,
        *,
        tz: str = "UTC",
        catch_up: CatchUp = "one",
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Call], Call]:
        """Run the decorated function at these times, once over all processes.

        ``expression`` has five fields: minute, hour, day of the month, month, day of the week. The
        server (2.14) keeps it and makes an event ``custom.cron.<durable>`` of each time; its
        payload has the time as ``due``. ``durable`` must be given. Of the times that passed while
        nothing ran, the last is run later, or with ``catch_up="none"`` none. The options are those
        of ``on``.

        Raises ConfigError naming file and line.
        """
        frame = sys._getframe(1)
        where = caller(frame)
        if callable(expression):  # @app.cron without parentheses
            name = variable(frame, self)
            raise ConfigError(
                f"@{name}.cron: no times; write"
                f' @{name}.cron("0 8 * * *", durable="report") ({where})'
            )

        def decorate(call: Call) -> Call:
            try:
                cron = check_cron(expression, tz, catch_up)
                durable = options.get("durable")
                if durable is None:
                    raise ConfigError("give durable=: it names the schedule and its events")
                handler = declare(
                    call,
                    app=self.name,
                    types=(cron_type(durable),),
                    options=options,
                    names=frame.f_locals,
                )
                self._add(replace(handler, where=where, cron=cron))
            except ConfigError as error:
                called = f"@{variable(frame, self)}.cron({expression!r})"
                raise ConfigError(f"{called}: {error} ({where})") from None
            return call

        return decorate

    def _add(self, handler: Handler) -> None:
        raise NotImplementedError
