"""Options: the table of what `@app.on` takes. Checks, settings, `show` and the docs read it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from pydantic import BaseModel

from .adaptive import AUTO, MOST, Auto
from .errors import ConfigError
from .rate import parse_rate
from .retry import DAY, RetryPolicy
from .schemas import check_model, check_name

StartFrom = Literal["new", "first", "last"] | datetime
Concurrency = int | Literal["auto"] | Auto
Check = Callable[[str, Any], None]  # given `name=value` and the value; raises ConfigError


@dataclass(frozen=True, slots=True)
class Number:
    """A number and its bounds, both included. The settings use the same error text."""

    low: float
    high: float
    unit: str = ""  # "s" for seconds; a number without unit is a whole one
    otherwise: str = ""  # what else is accepted

    @property
    def expected(self) -> str:
        """Describe what is accepted, for an error text."""
        kind = "seconds" if self.unit == "s" else "a whole number"
        return f"{kind}, {self.low:.15g} to {self.high:.15g}{self.otherwise}"

    def __call__(self, given: str, value: object) -> None:
        """Refuse another type, and a number out of bounds."""
        kinds = (int, float) if self.unit else int
        is_one = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_one or not self.low <= value <= self.high:  # type: ignore[operator]
            raise ConfigError(f"{given}: expected {self.expected}")


@dataclass(frozen=True, slots=True)
class NumberOrAuto(Number):
    """A number, or the word that it is found out."""

    otherwise: str = ", or auto"

    def __call__(self, given: str, value: object) -> None:
        """Refuse what is neither."""
        if value != AUTO and not isinstance(value, Auto):
            Number.__call__(self, given, value)


AT_ONCE = NumberOrAuto(1, MOST)


def _name(given: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{given}: expected a string")
    check_name(value, given)


def _model(given: str, value: object) -> None:
    check_model(value, given)


def _switch(given: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{given}: expected True or False")


def _start(given: str, value: object) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError(f"{given}: expected a datetime with a time zone")
    elif value not in ("new", "first", "last"):
        raise ConfigError(f"{given}: expected 'new', 'first', 'last' or an aware datetime")


def _policy(given: str, value: object) -> None:
    if not isinstance(value, RetryPolicy):
        raise ConfigError(f"{given}: expected a RetryPolicy")


def _function(given: str, value: object) -> None:
    if not callable(value):
        raise ConfigError(f"{given}: expected a function of the event")


def _rate(given: str, value: object) -> None:
    try:
        parse_rate(value)
    except ConfigError as error:
        raise ConfigError(f"{given}: {error}") from None


def _limit(given: str, value: object) -> None:
    Number(1, 100_000)(given, value)


def _exceptions(given: str, value: object) -> None:
    for kind in value if isinstance(value, tuple) else (value,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigError(f"{given}: expected an exception class, or a tuple of them")


@dataclass(frozen=True, slots=True)
class Option:
    """Facts about one option, in addition to its name, its type and its own default."""

    meaning: str  # one sentence, for README, docs and the setting of the same name
    check: Check
    setting: bool = False  # whether `OMNI_WORKER_<NAME>` is its default for every handler
    default: float | None = None  # of the setting
    none: str = "none"  # the word for None, for people
    in_show: bool = True  # whether `show` lists it among the options

    @property
    def unit(self) -> str:
        """The unit of a number, for people."""
        return self.check.unit if isinstance(self.check, Number) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one handler. None: the setting of the same name applies. Times are seconds.

    The fields are the table. A new option needs a field here, a line in ``HandlerOptions``, and
    the code that acts on it.
    """

    durable: Annotated[
        str | None,
        Option(
            "Names the consumer; processes with the same name share its events.",
            _name,
            in_show=False,
        ),
    ] = None
    queue: Annotated[
        str | None,
        Option(
            "Processes with the same queue share events; with a durable it has no effect.",
            _name,
            in_show=False,
        ),
    ] = None
    concurrency: Annotated[
        Concurrency | None,
        Option(
            'How many events a handler runs at once in each process; `"auto"`: adapts itself.',
            AT_ONCE,
            setting=True,
            default=10,
        ),
    ] = None
    prefetch: Annotated[
        int | None,
        Option(
            "How many more events a handler holds ready; without a number, adapts to its rate.",
            Number(0, 100_000),
            setting=True,
            none="adaptive",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        Option(
            "Seconds one run may take; a longer run has failed.",
            Number(0.001, DAY, "s"),
            setting=True,
        ),
    ] = None
    ack_wait: Annotated[
        float | None,
        Option(
            "Seconds until the server gives a silent worker's events to another.",
            Number(0.1, DAY, "s"),
            setting=True,
            default=30.0,
        ),
    ] = None
    max_retries: Annotated[
        int | None,
        Option(
            "How often a failed event is tried again.",
            Number(0, 1_000_000),
            setting=True,
            default=3,
        ),
    ] = None
    retry_delay: Annotated[
        float | None,
        Option(
            "Seconds before the first retry; doubled each time, 30 at most.",
            Number(0, DAY, "s"),
            setting=True,
            default=1.0,
        ),
    ] = None
    retry: Annotated[
        RetryPolicy | None,
        Option(
            "A `RetryPolicy` in place of `max_retries` and `retry_delay`.", _policy, in_show=False
        ),
    ] = None
    start_from: Annotated[
        StartFrom,
        Option('`"new"`, `"first"`, `"last"` or a datetime: where a new consumer starts.', _start),
    ] = "new"
    schema: Annotated[
        type[BaseModel] | None,
        Option(
            "A pydantic model of the payload; `Event[Model]` means the same.", _model, in_show=False
        ),
    ] = None
    validate: Annotated[
        bool, Option("Check incoming payloads with the registered model.", _switch)
    ] = False
    live_only: Annotated[
        bool, Option("Skip messages that a channel sends again from its history.", _switch)
    ] = False
    reject_on: Annotated[
        tuple[type[BaseException], ...],
        Option("Exceptions that make a dead letter at once.", _exceptions),
    ] = ()
    exactly_once: Annotated[
        bool, Option("One run per event among all processes; needs `durable`.", _switch)
    ] = False
    order_by: Annotated[
        Callable[[Any], Hashable] | None,
        Option(
            "A function of the event that returns its key: one event per key at a time, in order.",
            _function,
        ),
    ] = None
    breaker: Annotated[
        int | None,
        Option(
            "Failures in a row after which only trials run until one succeeds; 0: never.",
            Number(0, 1_000_000),
            setting=True,
            default=20,
        ),
    ] = None
    rate: Annotated[
        str | None,
        Option('How often it may run, over all processes: `"100/s"`, `"30/m"`, `"1000/h"`.', _rate),
    ] = None
    rate_by: Annotated[
        Callable[[Any], Hashable] | None,
        Option(
            "A function of the event that returns a key: `rate` is that of each key.", _function
        ),
    ] = None
    limit: Annotated[
        int | None, Option("How many events run at once, over all processes.", _limit)
    ] = None

    @property
    def is_limited(self) -> bool:
        """True if all processes of the handler have to agree on when an event begins."""
        return self.rate is not None or self.limit is not None


class HandlerOptions(TypedDict, total=False):
    """The options as keyword arguments of `@app.on` and `EventBus.subscribe`."""

    # Written out, because type checkers read a TypedDict only as text: none of them can derive
    # one from a dataclass. tests/test_options.py compares every name and type with `Options`.
    durable: str | None
    queue: str | None
    concurrency: Concurrency | None
    prefetch: int | None
    timeout: float | None
    ack_wait: float | None
    max_retries: int | None
    retry_delay: float | None
    retry: RetryPolicy | None
    start_from: StartFrom
    schema: type[BaseModel] | None
    validate: bool
    live_only: bool
    reject_on: type[BaseException] | tuple[type[BaseException], ...]
    exactly_once: bool
    order_by: Callable[[Any], Hashable] | None
    breaker: int | None
    rate: str | None
    rate_by: Callable[[Any], Hashable] | None
    limit: int | None


OPTIONS: dict[str, Option] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Options, include_extras=True).items()
}
DEFAULTS: dict[str, Any] = {
    field.name: OPTIONS[field.name].default if OPTIONS[field.name].setting else field.default
    for field in fields(Options)
    if field.default is not MISSING
}  # used where neither an option nor a setting is given


def check_options(given: Mapping[str, Any]) -> Options:
    """Build the options from keyword arguments. Raises ConfigError naming the option."""
    for name in given:
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, [*OPTIONS, "channel", "instance", "subject"], 1)
            hint = f"; did you mean {close[0]}=?" if close else f"; known: {', '.join(OPTIONS)}"
            raise ConfigError(f"unknown option {name}={hint}")
    options = Options(**given)
    for field in fields(Options):
        value = getattr(options, field.name)
        if value is not field.default:
            OPTIONS[field.name].check(f"{field.name}={value!r}", value)
    if options.retry is not None and (
        options.max_retries is not None or options.retry_delay is not None
    ):
        raise ConfigError("retry= together with max_retries= or retry_delay=: give one of them")
    if options.exactly_once and options.durable is None:
        raise ConfigError("exactly_once=True needs durable=: processes must agree on a name")
    if options.rate_by is not None and options.rate is None:
        raise ConfigError("rate_by= needs rate=: it says whose rate that is")
    for name in ("rate", "limit"):
        if getattr(options, name) is not None and options.durable is options.queue is None:
            raise ConfigError(f"{name}= needs durable= or queue=: processes must agree on a name")
    if options.concurrency == AUTO:
        options = replace(options, concurrency=Auto())
    if not isinstance(given.get("reject_on", ()), tuple):
        return replace(options, reject_on=(given["reject_on"],))
    return options


def options_in_force(options: Options) -> dict[str, Any]:
    """Return the options by name as JSON values, in the order of the table; times in seconds."""
    retry = options.retry or RetryPolicy()
    found = {name: getattr(options, name) for name, one in OPTIONS.items() if one.in_show}
    found |= {"max_retries": retry.retries, "retry_delay": retry.delay}
    return {name: _plain(name, value) for name, value in found.items()}


def _plain(name: str, value: Any) -> Any:
    match value:
        case None if OPTIONS[name].none != "none":
            return OPTIONS[name].none
        case tuple():
            return [kind.__name__ for kind in value]
        case datetime() | Auto():
            return str(value)
    return value is not None if name in ("order_by", "rate_by") else value
