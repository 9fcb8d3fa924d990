"""Serving: requests on core subjects, which no stream stores."""

from __future__ import annotations

from omni_worker.transports.base import Transport

from ...waiting import until
from .backend import Backend, needs


def refuse(error: Exception) -> None:
    raise AssertionError(f"nothing is denied here: {error}")


class Serving:
    """Promises of serve and ask_all."""

    async def test_everyone_who_serves_a_subject_is_is_served(
        self, backend: Backend, transport: Transport
    ) -> None:
        heard: list[str] = []
        other = await backend.beside()
        transport.serve("suite.>", lambda subject: heard.append(subject) or b"a", on_denied=refuse)
        other.serve("suite.all", lambda _: b"b", on_denied=refuse)
        other.serve("suite.all", lambda _: None, on_denied=refuse)
        await other.flush(1.0)

        answers = await transport.ask_all("suite.all", within=0.2)

        assert sorted(answers) == [b"a", b"b"]
        assert heard == ["suite.all"]

    async def test_where_no_one_serves_there_is_no_answer_and_no_wait(
        self, transport: Transport
    ) -> None:
        assert await transport.ask_all("suite.none", within=60) == []

    async def test_a_service_that_stopped_does_not_answer(self, transport: Transport) -> None:
        stop = transport.serve("suite.one", lambda _: b"a", on_denied=refuse)

        stop()
        stop()

        assert await transport.ask_all("suite.one", within=60) == []

    async def test_an_answer_that_fails_hurts_nobody_else(self, transport: Transport) -> None:
        transport.serve("suite.one", lambda _: bytes(1 // 0), on_denied=refuse)
        transport.serve("suite.one", lambda _: b"a", on_denied=refuse)

        assert await transport.ask_all("suite.one", within=0.2) == [b"a"]
        assert transport.is_connected

    async def test_a_service_is_there_again_after_an_outage(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "disconnect")
        other = await backend.beside()
        transport.serve("suite.one", lambda _: b"a", on_denied=refuse)

        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        gone = await other.ask_all("suite.one", within=0.2)
        await backend.reconnect()

        assert gone == []
        await until(lambda: transport.is_connected)
        await until(lambda: _is_served(other))


async def _is_served(other: Transport) -> bool:
    return await other.ask_all("suite.one", within=0.1) == [b"a"]
