"""Settings: where the server is and how this process behaves, from the environment.

Constructor arguments win over the environment. Secrets are SecretStr: no repr, log line or error
text shows them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .errors import ConfigError
from .masking import without_secrets
from .options import AT_ONCE, OPTIONS, Number
from .subjects import Unaddressed
from .urls import EXPECTED as EXPECTED_URLS
from .urls import checked_urls, is_web, shown_urls, split_urls
from .urls import without_userinfo as without_userinfo

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_URL = "nats://localhost:4222"
PREFIX = "OMNI_WORKER_"
# From a parent to its workers: a worker's number, how many there are, the channel to the parent.
NUMBER = "OMNI_WORKER_NUMBER"
COUNT = "OMNI_WORKER_COUNT"
PARENT_FD = "OMNI_WORKER_PARENT_FD"
SECRET = ("urls", "password", "token", "creds", "nkey", "key")  # values no text repeats
ERROR = "Value error, "  # begins what pydantic says of a ValueError
NO_WEB = "NATS_URL: ws:// and wss:// need websockets: pip install 'omni-worker[ws]'"
NO_TLS = (
    "NATS_URL: ws:// has no TLS, and NATS_CA, NATS_CERT, NATS_TLS_FIRST, tls:// and wss:// require"
    " it for every server: use wss://"
)
MAX_PATH = 1_024  # characters of a path that is shown
LONGEST_SHOWN = 40  # characters of a value that is wrong
# Variables that Kubernetes sets for a Service called omni-worker, or omni-worker-something.
_SERVICE_LINK = re.compile(
    r".*(SERVICE_HOST=|SERVICE_PORT(_[^=]*)?=|PORT_\d+_(TCP|UDP|SCTP)(_[^=]*)?=|PORT=\w+://).*"
)


def _env(name: str) -> AliasChoices:
    """Read ``name`` from the environment; constructors use the field's own name."""
    return AliasChoices(name)


def _of_option(name: str) -> Any:
    """Make a field with the default, the bounds and the description of an option."""
    option = OPTIONS[name]
    assert isinstance(option.check, Number)
    low, high = option.check.low, option.check.high
    return Field(default=option.default, ge=low, le=high, description=option.meaning)


class Settings(BaseSettings):
    """All settings, with the names of the `nats` CLI for those that it has too.

    Times are seconds. Raises ConfigError naming the variable when a value cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        # `NATS_CREDS=` in a compose file means that there are none.
        env_ignore_empty=True,
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        # docs/settings.md is generated from these docstrings.
        use_attribute_docstrings=True,
    )

    # The connection, as the nats CLI names it.
    urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(DEFAULT_URL,), validation_alias=_env("NATS_URL"), repr=False
    )
    """URLs of servers, with commas. `tls://`, `wss://`: TLS; `ws…://`: WebSocket, an extra."""
    user: str | None = Field(default=None, validation_alias=_env("NATS_USER"))
    """Login by user and password; give both."""
    password: SecretStr | None = Field(default=None, validation_alias=_env("NATS_PASSWORD"))
    """The user's password."""
    token: SecretStr | None = Field(default=None, validation_alias=_env("NATS_TOKEN"))
    """Login by token."""
    creds: Path | None = Field(default=None, validation_alias=_env("NATS_CREDS"))
    """Login by a credentials file."""
    nkey: Path | None = Field(default=None, validation_alias=_env("NATS_NKEY"))
    """Login by a file with an nkey seed."""
    ca: Path | None = Field(default=None, validation_alias=_env("NATS_CA"))
    """File with the certificate authorities that are trusted; requires TLS."""
    cert: Path | None = Field(default=None, validation_alias=_env("NATS_CERT"))
    """File with our own certificate, if the server asks for one; needs `NATS_KEY` too."""
    key: Path | None = Field(default=None, validation_alias=_env("NATS_KEY"))
    """File with the private key of that certificate."""
    tls_first: Literal["on", "off"] = Field(default="off", validation_alias=_env("NATS_TLS_FIRST"))
    """`on`: TLS before the server's first word, for servers with `handshake_first`."""
    inbox_prefix: str = Field(
        default="_INBOX", pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*$",
        validation_alias=_env("NATS_INBOX_PREFIX"),
    )  # fmt: skip
    """Begins the subjects of answers, where the account may not subscribe to `_INBOX.>`."""
    js_domain: str | None = Field(default=None, validation_alias=_env("NATS_JS_DOMAIN"))
    """JetStream domain, if the streams are behind a leaf node."""

    reconnect_max_retries: int | None = Field(default=10, ge=0)
    """Tries after the first, at the start and after a lost connection; `none`: without end."""
    reconnect_delay: float = Field(default=1.0, gt=0)
    """The longest wait before the second try; it doubles from try to try."""
    reconnect_max_delay: float = Field(default=30.0, gt=0)
    """Longest wait between two tries."""
    connect_timeout: float = Field(default=5.0, gt=0)
    """Time limit of one try."""

    # Streams and consumers.
    replicas: int = Field(default=1, ge=1, le=5)
    """Replicas of the streams we create; existing streams keep theirs."""
    max_bytes: int | None = Field(default=None, gt=0)
    """Largest size of each stream we create, in bytes, in an account that requires one."""
    provision: Literal["on", "off"] = "on"
    """`off`: streams and consumers are only checked, never created."""
    unaddressed: Unaddressed = "bare"
    """Ending of the subject of an event without channel and instance; `bare`: there is none."""
    inactive: float = Field(default=3600.0, gt=0)
    """Time until the server deletes a consumer without durable that no process uses."""

    session: str | None = Field(default=None, validation_alias=_env("OMNI_WORKER_SESSION"))
    """Part of the name of each consumer without durable or queue. `dev` sets it for restarts."""

    # Defaults of every handler; an option of the handler wins. Meaning, bounds and default are
    # those of the option.
    concurrency: Annotated[int, Field(ge=AT_ONCE.low, le=AT_ONCE.high)] | Literal["auto"] = Field(
        default=10, description=OPTIONS["concurrency"].meaning
    )
    prefetch: int | None = _of_option("prefetch")
    timeout: float | None = _of_option("timeout")
    ack_wait: float = _of_option("ack_wait")
    max_retries: int = _of_option("max_retries")
    retry_delay: float = _of_option("retry_delay")
    breaker: int = _of_option("breaker")
    long_retry: float | None = Field(default=60.0, gt=0)
    """A retry that waits so long is kept by a schedule of the server, not as unanswered; `none`."""

    # The log.
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """Lines below this level are not logged; `debug`: one for each run as well."""
    log_format: Literal["auto", "none", "pretty", "json"] = "auto"
    """`auto`: the app's own logging, else pretty on a terminal, else JSON; `none`: never ours."""
    log_tracebacks: Literal["on", "off"] = "on"
    """`off`: no traceback in the log, if you fear that one repeats what is in an event."""

    # The process.
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for `/healthz`, `/readyz` and every route; 0 takes a free one. Without: no port."""
    health_host: str = Field(default="127.0.0.1", min_length=1)
    """Address of the ports; `0.0.0.0` for other machines."""
    metrics: Literal["auto", "on", "off"] = "auto"
    """Count for Prometheus; `auto`: if there is a port and `omni-worker[metrics]` is installed."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for `/metrics` alone, in place of the health port."""
    service: Literal["on", "off"] = "on"
    """`off`: the process is no NATS service; `nats service` and the dashboard do not see it."""
    grace: float = Field(default=30.0, ge=0)
    """Time that running handlers get when the worker stops."""
    guard_ttl: float = Field(default=86_400.0, ge=120)
    """Time for which `exactly_once` remembers an event."""
    audit: Literal["on", "off"] = "off"
    """`on`: note every settled event for seven days, for `omni-worker audit`."""
    foreign_delivery_limit: float = Field(default=3600.0, gt=0)
    """Time after which an event that only another version of the app wants is a dead letter."""
    traces: Literal["auto", "off"] = "auto"
    """`auto`: spans by OpenTelemetry, if the program has registered a tracer provider."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None

    @field_validator("urls", mode="before")
    @classmethod
    def _split(cls, urls: object) -> object:
        return split_urls(urls) if isinstance(urls, str) else urls

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return checked_urls(urls)

    @field_validator(
        "concurrency", "provision", "unaddressed", "service", "audit", "metrics", "traces",
        "log_tracebacks", "log_format", "log_level",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator(
        "reconnect_max_retries", "long_retry", "prefetch", "timeout", "health_port", "metrics_port",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _read_none(cls, value: object) -> object:
        # An environment variable has no other way to say "endless", "adaptive" or "no timeout".
        return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("NATS_CERT and NATS_KEY go together: give both or neither")
        if (self.user is None) != (self.password is None):
            raise ValueError("NATS_USER and NATS_PASSWORD go together: give both or neither")
        if any(map(is_web, self.urls)) and find_spec("websockets") is None:
            raise ValueError(NO_WEB)
        if self.wants_tls and any(url.startswith("ws://") for url in self.urls):
            raise ValueError(NO_TLS)
        for name, path in self._files():
            if not _is_file(path):
                raise ValueError(_no_file(name, str(path)))
        return self

    def _files(self) -> list[tuple[str, Path]]:
        named = {
            "NATS_CREDS": self.creds,
            "NATS_NKEY": self.nkey,
            "NATS_CA": self.ca,
            "NATS_CERT": self.cert,
            "NATS_KEY": self.key,
        }
        return [(name, path) for name, path in named.items() if path is not None]

    @property
    def wants_tls(self) -> bool:
        """Return True if a plaintext connection must be refused before any secret is sent."""
        asked = self.ca or self.cert or self.tls_first == "on"
        return bool(asked) or any(url.startswith(("tls://", "wss://")) for url in self.urls)

    @property
    def shown_urls(self) -> str:
        """Server URLs that are safe to print: without user, password or token."""
        return shown_urls(self.urls)


def unknown_variables(environment: Mapping[str, str], others: Collection[str] = ()) -> list[str]:
    """Return a line for each unknown `OMNI_WORKER_…`, with the name that is probably meant.

    ``others`` are variables that are read elsewhere.
    """
    settings = {_variable(field) for field in Settings.model_fields}
    known = [one for one in (*settings, *others) if one.startswith(PREFIX)]
    lines = []
    for name in sorted(environment):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known:
            continue
        if _SERVICE_LINK.fullmatch(f"{upper}={environment[name]}"):
            continue
        nats = "NATS_" + upper.removeprefix(PREFIX)
        close = [nats] if nats in settings else difflib.get_close_matches(upper, known, 1, 0.8)
        meant = f"; did you mean {close[0]}?" if close else "; docs/settings.md lists them all"
        lines.append(f"{name} is set but unknown{meant}")
    return lines


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long: its text repeats it
        return False


def _no_file(name: str, value: str) -> str:
    """Say that a file is missing; a seed or key in the place of its path is not repeated."""
    is_path = ("/" in value or "." in value) and value.isprintable() and len(value) <= MAX_PATH
    if is_path and without_secrets(value) == value:
        return f"{name}={value}: no such file"
    return f"{name}: no such file; it takes the path of a file, and its value is not shown"


def _variable(field: str) -> str:
    """Return the environment variable of a field."""
    alias = Settings.model_fields[field].validation_alias
    return (
        str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"OMNI_WORKER_{field.upper()}"
    )


def _explain(error: ValidationError) -> str:
    """Return a line for each wrong setting: name, value unless secret, and what is expected."""
    lines = []
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(field, Settings.model_fields, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            lines.append(f"no such setting: {field}{meant}")
        elif not field:  # _check's message about several settings together
            lines.append(problem["msg"].removeprefix(ERROR))
        else:
            lines.append(_line(field, problem))
    return "\n".join(dict.fromkeys(lines))


def _line(found: str, problem: ErrorDetails) -> str:
    names = {_variable(field): field for field in Settings.model_fields}
    field = names.get(found, found)  # pydantic names a field with an alias by its variable
    variable = _variable(field)
    if field in SECRET:
        return f"{variable}: expected {_expected(field)}"
    return f"{variable}={_shown(problem['input'])}: expected {_expected(field)}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _expected(field: str) -> str:
    """Describe the accepted values of a setting, from its declaration."""
    info = Settings.model_fields[field]
    if field == "urls":
        return EXPECTED_URLS
    if field == "concurrency":
        return AT_ONCE.expected
    kinds = get_args(info.annotation) or (info.annotation,)
    if get_origin(info.annotation) is Literal:
        return " or ".join(kinds)
    kind = "seconds" if float in kinds else "a whole number" if int in kinds else "text"
    none = ", or none" if type(None) in kinds and kind != "text" else ""
    return f"{kind}{_bounds(info.metadata)}{none}"


def _bounds(limits: Iterable[object]) -> str:
    given = {
        name: getattr(limit, name)
        for limit in limits
        for name in ("gt", "ge", "le")
        if hasattr(limit, name)
    }
    match given:
        case {"ge": low, "le": high}:
            return f", {low:.15g} to {high:.15g}"
        case {"ge": low}:
            return f", {low} or more"
        case {"gt": low}:
            return f", more than {low}"
    return ""
