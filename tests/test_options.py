"""Options: one table, and everything that is made of it agrees with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_type_hints

import pytest

from omni_worker.errors import ConfigError
from omni_worker.handlers import with_settings
from omni_worker.options import (
    OPTIONS,
    HandlerOptions,
    Number,
    Options,
    check_options,
    options_in_force,
)
from omni_worker.retry import RetryPolicy
from omni_worker.settings import Settings

OF_SETTINGS = [name for name, option in OPTIONS.items() if option.setting]
OF_NUMBERS = [name for name, option in OPTIONS.items() if isinstance(option.check, Number)]


# --- the table -----------------------------------------------------------------------------


def test_what_type_checkers_read_is_the_table() -> None:
    read = get_type_hints(HandlerOptions)
    table = get_type_hints(Options)

    assert list(read) == list(table) == list(OPTIONS)
    # One exception class may be given bare; the record holds a tuple.
    assert read.pop("reject_on") == type[BaseException] | table.pop("reject_on")
    assert read == table


@pytest.mark.parametrize("name", OPTIONS)
def test_a_meaning_is_one_sentence(name: str) -> None:
    meaning = OPTIONS[name].meaning

    assert meaning.endswith(".")
    assert ". " not in meaning
    assert meaning[0] in '`"' or meaning[0].isupper()


# --- settings of the same name -------------------------------------------------------------


def test_every_number_is_a_setting_and_nothing_else_is() -> None:
    assert OF_SETTINGS == OF_NUMBERS
    assert {name for name in OPTIONS if name in Settings.model_fields} == set(OF_SETTINGS)


@pytest.mark.parametrize("name", OF_SETTINGS)
def test_a_setting_has_the_default_and_the_sentence_of_its_option(name: str) -> None:
    field = Settings.model_fields[name]

    assert (field.default, field.description) == (OPTIONS[name].default, OPTIONS[name].meaning)


@pytest.mark.parametrize("name", OF_SETTINGS)
@pytest.mark.parametrize("side", ["low", "high"])
def test_option_and_setting_refuse_the_same_number_in_the_same_words(
    name: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = OPTIONS[name].check
    assert isinstance(number, Number)
    value = number.low - 1 if side == "low" else number.high + 1
    variable = f"OMNI_WORKER_{name.upper()}"
    monkeypatch.setenv(variable, str(value))

    with pytest.raises(ConfigError) as by_option:
        check_options({name: value})
    with pytest.raises(ConfigError) as by_setting:
        Settings()

    assert str(by_option.value) == f"{name}={value}: expected {number.expected}"
    # Only a variable has to spell None.
    said = str(by_setting.value).removesuffix(", or none")
    assert said == f"{variable}={value}: expected {number.expected}"


@pytest.mark.parametrize("name", OF_SETTINGS)
@pytest.mark.parametrize("side", ["low", "high"])
def test_option_and_setting_take_the_same_bounds(name: str, side: str) -> None:
    value = getattr(OPTIONS[name].check, side)

    assert getattr(check_options({name: value}), name) == value
    assert getattr(Settings(**{name: value}), name) == value


def test_a_breaker_of_two_millions_is_refused_in_numbers_that_can_be_read() -> None:
    with pytest.raises(ConfigError) as refused:
        check_options({"breaker": 2_000_000})

    assert str(refused.value) == "breaker=2000000: expected a whole number, 0 to 1000000"


@pytest.mark.parametrize("name", [one for one in OF_SETTINGS if "retr" not in one])
def test_an_option_that_is_none_takes_its_setting(name: str) -> None:
    value = getattr(OPTIONS[name].check, "high")  # noqa: B009

    filled = with_settings(check_options({name: None}), Settings(**{name: value}))

    assert getattr(filled, name) == value


# --- in force ------------------------------------------------------------------------------


def test_options_in_force_are_named_as_they_are_given() -> None:
    options = check_options({
        "durable": "d", "max_retries": 2, "reject_on": (ValueError, KeyError),
        "start_from": datetime(2026, 1, 1, tzinfo=UTC), "order_by": lambda event: event.id,
    })  # fmt: skip

    assert options_in_force(with_settings(options, Settings())) == {
        "concurrency": 10, "prefetch": "adaptive", "timeout": None, "ack_wait": 30.0,
        "max_retries": 2, "retry_delay": 1.0, "start_from": "2026-01-01 00:00:00+00:00",
        "validate": False, "live_only": False, "reject_on": ["ValueError", "KeyError"],
        "exactly_once": False,
        "order_by": True, "breaker": 20, "rate": None, "rate_by": False, "limit": None,
    }  # fmt: skip


def test_a_retry_policy_shows_as_the_options_it_replaces() -> None:
    shown = options_in_force(check_options({"retry": RetryPolicy(retries=7, delay=9)}))

    assert (shown["max_retries"], shown["retry_delay"]) == (7, 9)
