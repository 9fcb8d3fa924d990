"""Access: who may look, who may act, and what a request must bring for it. Pure.

The guard asks these functions for every request, whatever the page behind it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from ..errors import ConfigError

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
SHORTEST_PASSWORD = 8
ANYBODY = "anybody"  # a user's name without logins

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Rules of who may do what; by default to look, from this machine."""

    allow_actions: bool = False
    users: Mapping[str, str] = field(default_factory=dict, repr=False)  # name → password
    user_header: str = ""  # in which a reverse proxy names the user
    proxies: tuple[Network, ...] = ()  # from where that header is believed
    hosts: frozenset[str] = frozenset()  # names of this server; empty: loopback's
    payloads: bool = True  # may be asked for

    @property
    def asks_who(self) -> bool:
        """True if a request without a user is refused."""
        return bool(self.users or self.user_header)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not answered."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


def read_user(text: str) -> dict[str, str]:
    """Read `name:password`. Raises ConfigError; it never repeats the password."""
    name, colon, password = text.partition(":")
    if not colon or not name or len(password) < SHORTEST_PASSWORD:
        raise ConfigError(
            "--user, or OMNI_WORKER_DASHBOARD_USER: expected NAME:PASSWORD, with a password of"
            f" {SHORTEST_PASSWORD} characters or more"
        )
    return {name: password}


def read_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Read addresses such as `10.0.0.5` or `10.0.0.0/8`. Raises ConfigError."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigError(f"--proxy: {error}; expected 10.0.0.5 or 10.0.0.0/8") from None


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach a socket bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(host: str, access: Access) -> None:
    """Refuse an address that other machines can reach, unless a login is required."""
    if access.user_header and not access.proxies:
        raise ConfigError(
            "--user-header: add --proxy ADDRESS, the address of the reverse proxy; from others"
            " the header would be forged"
        )
    if not is_loopback(host) and not access.asks_who:
        raise ConfigError(
            f"--host {host} can be reached from other machines: add --user NAME:PASSWORD"
            " (or OMNI_WORKER_DASHBOARD_USER), or --user-header with --proxy for a reverse proxy"
        )


def host_refused(host: str, access: Access) -> Refused | None:
    """Refuse the name of another server: a page elsewhere could have its name lead here."""
    if access.asks_who and not access.hosts:
        return None  # such a page has no login of ours
    name = _host_of(host)
    if name in (access.hosts or LOOPBACK_HOSTS):
        return None
    return Refused(
        421,
        f"This dashboard does not answer as {name!r}. Open it as localhost, or start it with"
        " --allow-host NAME.",
    )


def user_of(headers: Mapping[str, str], peer: str, access: Access) -> str | Refused:
    """Return the name of who asks, or why the request is refused."""
    if not access.asks_who:
        return ANYBODY
    if access.user_header and _is_proxy(peer, access):
        name = headers.get(access.user_header.lower(), "")
        if name:
            return name
    if access.users:
        name = _basic_user(headers.get("authorization", ""), access.users)
        if name:
            return name
        realm = {"www-authenticate": 'Basic realm="omni-worker dashboard", charset="UTF-8"'}
        return Refused(401, "Log in to see the dashboard.", realm)
    return Refused(403, f"The reverse proxy must name the user in the header {access.user_header}.")


def method_refused(method: str, headers: Mapping[str, str], access: Access) -> Refused | None:
    """Refuse what would change something: read-only, or sent by a page of another origin."""
    if method in ("GET", "HEAD"):
        return None
    if not access.allow_actions:
        return Refused(
            403, "This dashboard is read-only: omni-worker dashboard --allow-actions permits more."
        )
    if method != "POST":
        return Refused(405, "Only GET and POST are answered.", {"allow": "GET, HEAD, POST"})
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    is_ours = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if site != "same-origin" or not is_ours:
        return Refused(403, "The request comes from another page: nothing was done.")
    return None


def token_for(secret: bytes, session: str) -> str:
    """Return the token that a form must bring for this session's cookie."""
    return hmac.new(secret, session.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def token_refused(secret: bytes, session: str, token: str) -> Refused | None:
    """Refuse a form that no page of ours wrote for this browser."""
    if session and _same(token_for(secret, session), token):
        return None
    return Refused(
        403, "The form is too old, or not of this dashboard: nothing was done. Load it again."
    )


def _basic_user(header: str, users: Mapping[str, str]) -> str:
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
    name, _, password = decoded.partition(":")
    # Compared for an unknown name as well, so that the time tells nothing.
    is_right = _same(users.get(name, "\0"), password)
    return name if is_right and name in users else ""


def _is_proxy(peer: str, access: Access) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in access.proxies)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _host_of(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
