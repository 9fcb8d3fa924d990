"""Own stream: what our own stream has to allow, switched on at the first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import TransportError
from ..provision import NotProvisioned, Provisioner
from ..topology import OWN_STREAM, UpdateStream
from ..transports.atomic import LEAST_VERSION as ATOMIC_VERSION
from ..transports.base import Transport
from ..writes import write_stream

SCHEDULES_VERSION = (2, 12, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Something that a stream does if its configuration allows it."""

    flags: Mapping[str, bool]
    does: str
    needed_for: str  # in an error: the call that makes it, where provisioning is on
    since: tuple[int, int, int]


SCHEDULES = Feature(
    flags=MappingProxyType({"allow_msg_schedules": True, "allow_msg_ttl": True}),
    does="keep schedules",
    needed_for="publish once with after=",
    since=SCHEDULES_VERSION,
)
ATOMIC = Feature(
    flags=MappingProxyType({"allow_atomic": True}),
    does="take several events all or none",
    needed_for="leave an atomic() block once",
    since=ATOMIC_VERSION,
)

FEATURES = (SCHEDULES, ATOMIC)


async def allow(
    feature: Feature, transport: Transport, provisioner: Provisioner, *, create: bool
) -> None:
    """Make our own stream, or let the existing one do this. Raises NotProvisioned."""
    operators = transport.operators
    await provisioner.ensure_own_stream()
    # All of them at once: of two updates that each switch one on, the later takes the other back.
    can = [one for one in FEATURES if transport.server_version >= one.since]
    flags = {flag: value for one in (feature, *can) for flag, value in one.flags.items()}
    for is_last in (False, True):
        info = await operators.stream_info(OWN_STREAM.name)
        raw: dict[str, Any] = {} if info is None else dict(info.config.raw)
        if all(raw.get(flag) for flag in feature.flags):
            return
        if is_last:
            break
        if not create or info is None:
            raise NotProvisioned(
                f"stream {OWN_STREAM.name} has to {feature.does}, and provisioning is off"
                f" (OMNI_WORKER_PROVISION): {feature.needed_for} with it on, or update the"
                f" stream with {' and '.join(feature.flags)}"
            )
        await write_stream(operators, UpdateStream({**raw, **flags}))
    raise TransportError(
        f"stream {OWN_STREAM.name} does not {feature.does}: a server of the cluster is older"
        f" than {'.'.join(map(str, feature.since))}"
    )
