"""`omni-worker dashboard`: its options, checked before anything is served."""

from __future__ import annotations

import os

import click

from ...dashboard import Access
from ...dashboard.access import check_address, read_networks, read_user
from ...dashboard.serving import serve
from ...settings import Settings
from ...transports.base import Transport
from .. import say
from ..environment import DASHBOARD_FD
from ..session import run_operation


@click.command("dashboard")
@click.argument("target", metavar="[MODULE[:APP]]", required=False)
@click.option(
    "--port", default=8787, show_default=True, metavar="PORT", help="Its port; 0 takes a free one."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Serve on this address."
)
@click.option("--allow-actions", is_flag=True, help="Permit retry, discard, pause, scale.")
@click.option(
    "--user", metavar="NAME:PASSWORD", envvar="OMNI_WORKER_DASHBOARD_USER",
    help="Require this login. Better: OMNI_WORKER_DASHBOARD_USER.",
)  # fmt: skip
@click.option("--user-header", metavar="NAME", help="Header with the user, of a reverse proxy.")
@click.option("--proxy", multiple=True, metavar="ADDRESS", help="Proxy that may send that header.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Name it answers to.")
@click.option("--no-payloads", is_flag=True, help="Never show what events hold.")
def command(
    target: str | None,
    port: int,
    host: str,
    allow_actions: bool,
    user: str | None,
    user_header: str | None,
    proxy: tuple[str, ...],
    allow_host: tuple[str, ...],
    no_payloads: bool,
) -> int:
    """Serve pages that show handlers, events and dead letters, live.

    It reads the server as the other commands do; no worker has to run. By default only this
    machine reaches it, and nothing can be changed. On another address a login is required: --user,
    or --user-header with --proxy behind a reverse proxy, which should also bring TLS. With an app
    and --allow-actions, past events can be run again through a handler, dry, in another process.

    \b
    omni-worker dashboard --allow-actions
    omni-worker dashboard myapp:app --allow-actions
    export OMNI_WORKER_DASHBOARD_USER=me:secret-words
    omni-worker dashboard --host 0.0.0.0

    Exit codes: 0 stopped, 1 failed, 2 called wrongly, 130 Ctrl-C.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        access = Access(
            allow_actions=allow_actions,
            users=read_user(user) if user else {},
            user_header=user_header or "",
            proxies=read_networks(proxy),
            hosts=frozenset(name.lower() for name in allow_host),
            payloads=not no_payloads,
        )
        check_address(host, access)

        def told(url: str) -> None:
            mode = "with actions" if allow_actions else "read-only"
            say(f"Dashboard: {url} ({mode}; Ctrl-C ends)")
            say(f"Server: {settings.shown_urls}")

        fd = os.environ.get(DASHBOARD_FD, "")
        return await serve(
            transport, settings, access, host=host, port=port, told=told,
            target=target or "", fd=int(fd) if fd.isdigit() else None,
        )  # fmt: skip

    return run_operation(work, stays=True)
