"""Doctor: check if a server can keep our promises, and advise. It changes nothing."""

from __future__ import annotations

from ...errors import ApiError, PermissionDenied
from ...subjects import Unaddressed
from ...transports.base import Transport
from ...transports.infos import AccountInfo, StreamInfo
from .buckets import bucket_findings
from .consumers import consumer_findings
from .finding import Finding, Level, as_json, denied
from .order import order_findings
from .rights import list_of_rights, tried_rights
from .server import Monitor, account_use, clock, features, payload, sync, version
from .streams import full_streams, stream_findings

__all__ = ["Finding", "Level", "Monitor", "as_json", "examine"]


async def examine(
    transport: Transport,
    monitor: Monitor | None = None,
    *,
    domain: str | None = None,
    unaddressed: Unaddressed = "bare",
    provisions: bool = True,
) -> list[Finding]:
    """Check everything this login can see; ``monitor`` reads the server's /jsz.

    A missing right hides only the facts it protects. ``provisions``: workers create what lacks.
    """
    operators = transport.operators
    found = [version(transport.server_version), features(transport.server_version)]
    found.append(payload(transport.max_payload))
    account: AccountInfo | None = None
    try:
        account = await operators.account()
        found.append(account_use(account))
    except PermissionDenied as error:
        found.append(denied("account", error))
    except ApiError as error:
        return [*found, _without_jetstream(error)]
    streams: list[StreamInfo] | None = None
    try:
        streams = await operators.streams()
    except PermissionDenied as error:
        found.append(denied("streams", error))
    if streams is not None:
        configs = [info.config for info in streams]
        found += [*stream_findings(configs), *full_streams(streams)]
        found += bucket_findings(streams, account, provisions=provisions)
        found += await tried_rights(transport, configs)
        found += await list_of_rights(operators, domain, unaddressed)
        found += await consumer_findings(operators, streams)
        found += await order_findings(transport)
        found.append(await clock(operators, streams))
    else:
        found += await list_of_rights(operators, domain, unaddressed)
    found.append(await sync(monitor))
    return found


def _without_jetstream(error: ApiError) -> Finding:
    return Finding(
        Level.FAIL, "JetStream", str(error),
        "start the server with --jetstream, enable it for this account, or set NATS_JS_DOMAIN",
    )  # fmt: skip
