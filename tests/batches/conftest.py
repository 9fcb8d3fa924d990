"""The world of the promises, on memory and on a real nats-server."""

from tests.promises.conftest import kind, real_server, world

__all__ = ["kind", "real_server", "world"]
