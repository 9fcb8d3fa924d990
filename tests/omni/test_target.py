"""Address and key: read from arguments and environment, checked, and never shown."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from omni_worker import ConfigError
from omni_worker.omni.target import target_of

KEY = "hunter2"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://localhost:8882", "http://localhost:8882/api/v2"),
        ("http://localhost:8882/", "http://localhost:8882/api/v2"),
        (" https://omni.example.org ", "https://omni.example.org/api/v2"),
        ("https://example.org/omni/api/v2/", "https://example.org/omni/api/v2"),
        ("http://[::1]:8882", "http://[::1]:8882/api/v2"),
    ],
)
def test_the_address_is_that_of_the_api(given: str, url: str) -> None:
    assert target_of(given, KEY, {}).url == url


def test_the_environment_is_read_where_nothing_is_given() -> None:
    target = target_of(None, None, {"OMNI_URL": "http://omni:1", "OMNI_API_KEY": f"{KEY}\n"})

    assert (target.url, target.key.get_secret_value()) == ("http://omni:1/api/v2", KEY)
    assert target_of(None, SecretStr(KEY), {"OMNI_URL": ""}).url == "http://localhost:8882/api/v2"
    assert target_of("http://a", "x", {"OMNI_URL": "http://b", "OMNI_API_KEY": "y"}).key == (
        SecretStr("x")
    )


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        (None, None, "OMNI_API_KEY is not set: Omni's API at http://localhost:8882/api/v2"),
        (None, f"{KEY}\r\nx: y", "OMNI_API_KEY: expected one line"),
        (None, f"{KEY}é", "OMNI_API_KEY: expected one line"),
        (None, KEY * 1_000, "OMNI_API_KEY: expected one line"),
        (f"http://app:{KEY}@host", "k", "user and password in it are not accepted"),
        ("nats://host:4222", "k", "OMNI_URL: expected http://host:port"),
        ("localhost:8882", "k", "OMNI_URL: expected http://host:port"),
        ("http://", "k", "OMNI_URL: expected http://host:port"),
        ("http://host:99999999", "k", "the URL cannot be read"),
        (f"http://host/?key={KEY}", "k", r"without \?query"),
        ("http://ho st/", "k", "OMNI_URL: expected http://host:port"),
        ("http://host/\x1b[2J", "k", "OMNI_URL: expected http://host:port"),
    ],
)
def test_what_cannot_be_used_is_named_and_no_secret_is_shown(
    url: str | None, key: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        target_of(url, key, {})

    assert KEY not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_target_s_repr_hides_the_key() -> None:
    assert KEY not in repr(target_of(None, KEY, {}))
