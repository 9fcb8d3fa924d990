"""Target: where Omni's API is, and the key it wants; of a constructor, else of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from ..errors import ConfigError
from ..masking import MASK, bounded

URL_VARIABLE, KEY_VARIABLE = "OMNI_URL", "OMNI_API_KEY"
DEFAULT_URL = "http://localhost:8882"
API = "/api/v2"  # the path, where the URL has none
LONGEST_KEY = 4_096  # characters


@dataclass(frozen=True, slots=True)
class Target:
    """Address of the API, without a slash at its end, and its key."""

    url: str
    key: SecretStr

    def shown(self, text: str, longest: int = 200) -> str:
        """Return text from elsewhere in one line, bounded, without secrets and without the key."""
        text = text[: 4 * longest].replace(self.key.get_secret_value(), MASK)
        printable = "".join(one if one.isprintable() else " " for one in text)
        return bounded(" ".join(printable.split()), longest, end=False)


def target_of(
    url: str | None, key: str | SecretStr | None, environment: Mapping[str, str]
) -> Target:
    """Read and check both. Raises ConfigError that names the variable, and never shows a key."""
    # An empty variable is none: `OMNI_URL=` in a compose file.
    address = _address(url or environment.get(URL_VARIABLE) or DEFAULT_URL)
    if key is None:
        key = environment.get(KEY_VARIABLE) or ""
    secret = key.get_secret_value() if isinstance(key, SecretStr) else key
    secret = secret.strip()  # a file of secrets ends with a line break
    if not secret:
        raise ConfigError(
            f"{KEY_VARIABLE} is not set: Omni's API at {address} wants a key; set it in the"
            " environment, or give Omni(api_key=…)"
        )
    if len(secret) > LONGEST_KEY or not (secret.isascii() and secret.isprintable()):
        raise ConfigError(
            f"{KEY_VARIABLE}: expected one line of visible ASCII characters; its value is not shown"
        )
    return Target(address, SecretStr(secret))


def _address(url: str) -> str:
    expected = f"{URL_VARIABLE}: expected http://host:port or https://host:port"
    url = url.strip()
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text repeats the whole value
        raise ConfigError(f"{expected}; the URL cannot be read") from None
    if "@" in parts.netloc:
        raise ConfigError(f"{expected}; user and password in it are not accepted")
    is_plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ConfigError(f"{expected}, got {bounded(url, 80)!r}")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigError(f"{expected}, without ?query and #fragment")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or API}"
