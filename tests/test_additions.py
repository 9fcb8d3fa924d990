"""What a widened consumer passed, and which consumer reads that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omni_worker.handler_consumers import PlannedConsumers
from omni_worker.handlers import Handler
from omni_worker.operations.orphans import orphans
from omni_worker.operations.recreate import look_at_remaking, remake
from omni_worker.topology import (
    ConsumerSpec,
    StreamConsumers,
    claim,
    consumer_config,
    has_late,
    late_consumer,
    widened,
    with_until,
    without_late,
)
from omni_worker.transports.infos import read_consumer_config
from omni_worker.transports.memory import MemoryServer, MemoryTransport

SPEC = ConsumerSpec(
    stream="FIRST", name="w", app="a", filters=("first.>",), ack_wait=30.0, handler="w"
)
WIDE = replace(SPEC, filters=("first.>", "second.>"))
EDITED = read_consumer_config(consumer_config(replace(SPEC, ack_wait=300.0)))


@pytest.fixture
async def transport() -> MemoryTransport:
    """A stream whose consumer is widened, and another one that reads what it passed."""
    transport = MemoryTransport(MemoryServer())
    await transport.open("tests")
    operators = transport.operators
    await operators.create_stream({"name": "FIRST", "subjects": ["first.>", "second.>"]})
    main = await operators.create_consumer("FIRST", consumer_config(SPEC))
    step = claim(late_consumer(WIDE, main.config, 1), "p")
    late = await operators.create_consumer("FIRST", step.config)
    await operators.update_consumer("FIRST", widened(main.config, late.config.filters))
    await operators.update_consumer("FIRST", with_until(late.config, 1))
    return transport


def test_a_late_consumer_has_the_ack_wait_that_leases_follow() -> None:
    late = late_consumer(WIDE, EDITED, start=1)

    assert late.ack_wait == 300.0


async def test_a_recreated_consumer_keeps_the_word_that_another_one_reads_what_it_passed(
    transport: MemoryTransport,
) -> None:
    await remake(transport, await look_at_remaking(transport, WIDE))

    info = await transport.operators.consumer_info("FIRST", "w")
    assert info is not None
    assert has_late(info.config)


@pytest.mark.parametrize(("is_tagged", "expected"), [(True, []), (False, ["w-late"])])
async def test_a_late_consumer_that_no_consumer_names_is_listed(
    transport: MemoryTransport, is_tagged: bool, expected: list[str]
) -> None:
    operators = transport.operators
    main = await operators.consumer_info("FIRST", "w")
    assert main is not None
    if not is_tagged:
        await operators.update_consumer("FIRST", without_late(main.config))
    standing = [info.config for info in await operators.streams()]
    wanted = PlannedConsumers(
        handler=Handler.__new__(Handler),
        is_shared=True,
        consumers=(StreamConsumers(main=WIDE),),
        copies={},
        unserved=(),
        doubts=(),
    )

    found = await orphans(operators, "a", standing, [wanted])

    assert [info.name for info in found] == expected
