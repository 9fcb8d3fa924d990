"""URLs of servers: read, checked, and shown without a login."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

EXPECTED = "nats://, tls://, ws:// or wss://host:port, separated by commas"


def split_urls(text: str) -> tuple[str, ...]:
    """Split a text at its commas, without empty parts."""
    return tuple(url.strip() for url in text.split(",") if url.strip())


def checked_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the URLs, their schemes in small letters. Raises ValueError unless each is usable."""
    if not urls or not all(map(_is_url_of_a_server, urls)):
        raise ValueError
    return tuple(map(_with_small_scheme, urls))


def is_web(url: str) -> bool:
    """Return True if the server of a checked URL is spoken to by WebSocket."""
    return url.startswith(("ws://", "wss://"))


def is_encrypted_web(url: str) -> bool:
    """Return True for WebSocket with TLS."""
    return url.startswith("wss://")


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
    rest = parts.query or parts.fragment
    if parts.scheme in ("nats", "tls"):
        rest = rest or parts.path.strip("/")
    elif parts.scheme not in ("ws", "wss"):
        return False
    return bool(parts.hostname) and not rest


def _with_small_scheme(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{scheme.lower()}{mark}{rest}"
