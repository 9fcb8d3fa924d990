"""URLs of servers: read, checked, and shown without a login."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit


def split_urls(text: str) -> tuple[str, ...]:
    """Split a text at its commas, without empty parts."""
    return tuple(url.strip() for url in text.split(",") if url.strip())


def checked_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the URLs, if there are any and each is that of a server.

    Raises ValueError, whose text may say more about what is not accepted.
    """
    if not urls or not all(map(_is_url_of_a_server, urls)):
        web = any(url.lower().startswith(("ws://", "wss://")) for url in urls)
        raise ValueError("; WebSocket (ws://, wss://) is not supported" if web else "")
    return urls


def server_urls(text: str) -> tuple[str, ...]:
    """Return the URLs in a text. Raises ValueError, which does not repeat it."""
    return checked_urls(split_urls(text))


def shown_urls(urls: Iterable[str]) -> str:
    """Return URLs as they are safe to print."""
    return ", ".join(map(without_userinfo, urls))


def without_userinfo(url: str) -> str:
    """Return a URL without user and password, even if the URL cannot be parsed."""
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme.isalpha():
        return url.rpartition("@")[2]
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _is_url_of_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        _ = parts.port
    except ValueError:  # its text repeats the whole value
        return False
    rest = parts.path.strip("/") or parts.query or parts.fragment
    return parts.scheme in ("nats", "tls") and bool(parts.hostname) and not rest
