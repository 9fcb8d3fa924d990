"""Dashboard: pages over `operations/` that show a server's handlers, events and dead letters.

An ASGI app of its own, or mounted in another. Whatever it shows is read from the server; it needs
the extra `omni-worker[dashboard]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bus import EventBus
from ..errors import ConfigError
from ..operations.dead_letters import DeadLetters
from ..transports.base import Transport
from .access import Access

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["Access", "dashboard"]


def dashboard(
    source: EventBus | Transport,
    access: Access | None = None,
    *,
    server: str = "",
    target: str = "",
    create: bool = True,
    replicas: int = 1,
) -> Starlette:
    """Make the ASGI app; ``source`` must be connected when the first request comes.

    ``server`` is shown as the address of the NATS server; ``target`` is the MODULE:APP whose past
    events may be run again, dry, in another process. ``create`` and ``replicas`` are for the
    stream that the first retry needs. Raises ConfigError if the extra is not installed.
    """
    try:
        from .application import Application
        from .jobs import Jobs
        from .page import Services
        from .replays import Replays
        from .watch import Watch
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the dashboard needs {error.name}: pip install 'omni-worker[dashboard]'"
        ) from None
    transport = source.transport if isinstance(source, EventBus) else source
    services = Services(
        transport=transport,
        watch=Watch(transport),
        jobs=Jobs(),
        replays=Replays(target),
        letters=DeadLetters(transport, create=create, replicas=replicas),
        access=access or Access(),
        server=server,
    )
    return Application(services).starlette()
