"""Login: the CONNECT options, and readable reasons for a refused login.

No text of a cause contains a secret: URLs with a login in them never get into a text.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from nats import errors as nats_errors

from ...errors import ConnectError
from ...settings import Settings
from ...urls import is_encrypted_web, is_web
from .tcp import ConnectionLost

LOGIN_SETTINGS = "NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS"

# The subject is quoted as Go quotes strings.
_DENIED = re.compile(r'for (publish|subscription) to "((?:[^"\\]|\\.)*)"', re.IGNORECASE)


def login_options(settings: Settings, url: str) -> dict[str, Any]:
    """Options with which nats-py connects to ``url``: credentials and trusted certificates."""
    server = split_url(url)
    options: dict[str, Any] = {}
    if settings.user is not None and settings.password is not None:
        options["user"] = settings.user
        options["password"] = settings.password.get_secret_value()
    elif settings.token is not None:
        options["token"] = settings.token.get_secret_value()
    else:
        options |= _userinfo(server)
    if settings.creds is not None:
        options["user_credentials"] = str(settings.creds)
    if settings.nkey is not None:
        options["nkeys_seed"] = str(settings.nkey)
    if settings.wants_tls:
        options["tls"] = tls_context(settings)
        options["tls_hostname"] = _name_to_verify(settings, server)
        options["tls_handshake_first"] = settings.tls_first == "on"
    return options


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS context of the trusted and own certificates; nothing weaker than Python's default."""
    context = ssl.create_default_context(cafile=settings.ca)
    if settings.cert is not None:
        context.load_cert_chain(settings.cert, settings.key)
    return context


def split_url(url: str) -> SplitResult:
    """Split a server's URL, with or without a scheme, into its parts."""
    return urlsplit(url if "://" in url else f"nats://{url}")


def discovered(servers: Sequence[str], given: Sequence[str], link: str) -> list[str]:
    """URLs of a cluster's other servers, as the server of the URL ``link`` reports them.

    They have its scheme, and the login of the first given server.
    """
    known = {split_url(url).netloc.rpartition("@")[2] for url in given}
    first = split_url(given[0])
    userinfo, at, _ = first.netloc.rpartition("@")
    scheme = split_url(link).scheme
    return [f"{scheme}://{userinfo}{at}{one}" for one in servers if one not in known]


def what_is_denied(text: str) -> tuple[str, str]:
    """Return ("publish" or "subscription", subject) of a refusal; empty for any other text."""
    found = _DENIED.search(text)
    verb, subject = found.groups() if found else ("", "")
    return verb.lower(), re.sub(r"\\(.)", r"\1", subject)


def with_inbox_hint(text: str, inbox_prefix: str) -> str:
    """Append the setting to the refusal of a subscription to our inbox."""
    verb, subject = what_is_denied(text)
    if verb == "subscription" and subject.startswith(f"{inbox_prefix}."):
        return f"{text}; NATS_INBOX_PREFIX sets another beginning for answers"
    return text


def explain(error: Exception, info: Mapping[str, Any], settings: Settings, url: str) -> Exception:
    """Return the real cause of ``error``, if URL, INFO or settings say more than the error."""
    if is_web(url):
        return _explain_web(error, info, settings, url)
    first = settings.tls_first == "on"
    no_word = isinstance(error, ConnectionLost | ConnectionResetError | TimeoutError) and not info
    # A server that speaks first: its INFO is no TLS record, or was read before the handshake.
    is_tls = isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER"
    if first and (is_tls or no_word):
        return ConnectError(
            f"{describe(error)}; NATS_TLS_FIRST=on is only for servers with handshake_first",
            is_answered=is_tls,
        )
    if no_word and not first and (settings.wants_tls or isinstance(error, ConnectionLost)):
        return ConnectError(
            f"{describe(error)}, before its first word;"
            " NATS_TLS_FIRST=on if it has handshake_first",
            is_answered=False,
        )
    wants_certificate = bool(info.get("tls_verify")) and settings.cert is None
    untrusted = isinstance(error, ssl.SSLCertVerificationError)
    # TLS 1.3 refuses a client after the handshake: often we only see a broken connection.
    cut_off = isinstance(error, (ssl.SSLError, ConnectionError, ConnectionLost))
    if wants_certificate and cut_off and not untrusted:
        return ConnectError(
            "the server asks for a client certificate; see NATS_CERT, NATS_KEY", is_answered=True
        )
    return error


def _explain_web(
    error: Exception, info: Mapping[str, Any], settings: Settings, url: str
) -> Exception:
    if not is_encrypted_web(url):
        return error
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return ConnectError("the server has no TLS there, and wss:// requires it", is_answered=True)
    # TLS 1.3 refuses a client after the handshake: often we only see a broken connection.
    if not info and settings.cert is None and isinstance(error, ConnectionError | ConnectionLost):
        hint = "see NATS_CERT, NATS_KEY if it asks for a client certificate"
        return ConnectError(f"{describe(error)}; {hint}", is_answered=False)
    return error


def is_answered(error: Exception) -> bool:
    """Return True if a server answered, and the problem is login or TLS."""
    return (
        isinstance(error, ssl.SSLError | nats_errors.SecureConnWantedError)
        or (isinstance(error, ConnectError) and error.is_answered)
        or _refuses_login(error)
    )


def describe(error: Exception) -> str:
    """Describe a cause so that a person can act on it; never a URL: it may hold a password."""
    text = str(error).removeprefix("nats: ").strip("'\" ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({error.verify_message}); see NATS_CA"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'handshake refused'}); see NATS_CA, NATS_CERT"
    if isinstance(error, nats_errors.SecureConnWantedError):
        return "TLS is required and the server does not offer it; nothing was sent"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, OSError):
        # A name with several addresses: asyncio joins the causes and leaves strerror empty.
        return error.strerror or text or type(error).__name__
    if _refuses_login(error):
        wrong = ": a wrong user, password or token" if "violation" in text.lower() else ""
        return f"{text.lower()}{wrong}; see the URL, {LOGIN_SETTINGS}"
    return text or type(error).__name__


def _refuses_login(error: Exception) -> bool:
    # The server's own texts: the client library has no exception type for each of them.
    text = str(error).lower()
    no_login = isinstance(error, OSError)
    return not no_login and ("authorization violation" in text or "authentication" in text)


def _userinfo(url: SplitResult) -> dict[str, Any]:
    """Return the login in a URL, in which special characters are percent-encoded."""
    if url.username is None:
        return {}
    if url.password is None:
        return {"token": unquote(url.username)}
    return {"user": unquote(url.username), "password": unquote(url.password)}


def _name_to_verify(settings: Settings, server: SplitResult) -> str | None:
    # Discovered servers are IP addresses; their certificate has a name from the given URLs.
    names = [split_url(url).hostname or "" for url in settings.urls]
    if server.hostname in names or not _is_address(server.hostname or ""):
        return server.hostname
    return names[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
