"""Crons: `@app.cron`, a handler that runs by the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

from .call_sites import Call, CallSite
from .cron import CatchUp, check_cron
from .errors import ConfigError
from .handlers import Handler, cron_type, declare
from .options import HandlerOptions


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
        site = CallSite(self, "@{}.cron", f"({expression!r})")
        site.refuse_bare((expression,), "no times", '"0 8 * * *", durable="report"')

        def declared(call: Callable[..., Any]) -> Handler:
            cron = check_cron(expression, tz, catch_up)
            durable = options.get("durable")
            if durable is None:
                raise ConfigError("give durable=: it names the schedule and its events")
            handler = declare(
                call,
                app=self.name,
                types=(cron_type(durable),),
                options=options,
                names=site.names,
            )
            return replace(handler, cron=cron)

        return site.decorator(declared, self._add)

    def _add(self, handler: Handler) -> None:
        raise NotImplementedError
