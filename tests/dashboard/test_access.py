"""Access: who may look and act, decided from numbers and headers alone."""

from __future__ import annotations

import base64
from ipaddress import ip_network

import pytest

from omni_worker.dashboard.access import (
    ANYBODY,
    Access,
    Refused,
    check_address,
    host_refused,
    is_loopback,
    method_refused,
    read_networks,
    read_user,
    token_for,
    token_refused,
    user_of,
)
from omni_worker.errors import ConfigError

LOGIN = Access(users={"me": "right-horse"})
PROXY = Access(user_header="X-Forwarded-User", proxies=(ip_network("10.0.0.5"),))


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_login(host: str) -> None:
    check_address(host, Access())

    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "dashboard.example", ""])
def test_beyond_this_machine_a_login_is_required(host: str) -> None:
    with pytest.raises(ConfigError, match="--user"):
        check_address(host, Access())

    check_address(host, LOGIN)
    check_address(host, PROXY)


def test_a_header_without_the_proxy_s_address_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="--proxy"):
        check_address("127.0.0.1", Access(user_header="X-User"))


@pytest.mark.parametrize("host", ["localhost", "localhost:8787", "127.0.0.1:1", "[::1]:8787"])
def test_the_names_of_this_machine_are_answered(host: str) -> None:
    assert host_refused(host, Access()) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "[::2]", "10.0.0.1"]
)
def test_a_foreign_name_that_leads_here_is_refused(host: str) -> None:
    refused = host_refused(host, Access())

    assert refused is not None
    assert refused.status == 421


def test_names_may_be_allowed_and_then_only_these() -> None:
    access = Access(hosts=frozenset({"dash.example"}))

    assert host_refused("dash.example:443", access) is None
    assert host_refused("localhost", access) is not None


def test_with_the_right_password_the_user_is_known() -> None:
    assert user_of(basic("me:right-horse"), "10.1.1.1", LOGIN) == "me"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("me:wrong-horse"),
        basic("you:right-horse"),
        basic("me:"),
        basic("me"),
        basic("nobody:\0"),
        {"authorization": "Basic not base64"},
        {"authorization": "Bearer right-horse"},
        {"authorization": "Basic /w=="},
        {"x-forwarded-user": "me"},
    ],
)
def test_everything_else_is_asked_to_log_in(headers: dict[str, str]) -> None:
    refused = user_of(headers, "10.1.1.1", LOGIN)

    assert isinstance(refused, Refused)
    assert refused.status == 401
    assert "Basic" in refused.headers["www-authenticate"]


def test_the_proxy_s_word_counts_and_no_one_else_s() -> None:
    headers = {"x-forwarded-user": "me"}

    assert user_of(headers, "10.0.0.5", PROXY) == "me"
    assert isinstance(user_of(headers, "10.0.0.6", PROXY), Refused)
    assert isinstance(user_of(headers, "testclient", PROXY), Refused)
    assert isinstance(user_of({"x-forwarded-user": ""}, "10.0.0.5", PROXY), Refused)


def test_without_logins_everybody_on_this_machine_is_the_same() -> None:
    assert user_of({}, "127.0.0.1", Access()) == ANYBODY


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_read_only_is_read_only_for_every_method(method: str) -> None:
    refused = method_refused(method, {"host": "localhost"}, Access())

    assert refused is not None
    assert refused.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": "http://localhost:8787.evil.example"},
    ],
)
def test_an_action_sent_by_another_page_is_refused(headers: dict[str, str]) -> None:
    headers = {"host": "localhost:8787"} | headers

    assert method_refused("POST", headers, Access(allow_actions=True)) is not None


def test_an_action_sent_by_our_own_page_is_let_through() -> None:
    headers = {"host": "localhost:8787", "origin": "http://localhost:8787"}

    assert method_refused("POST", headers, Access(allow_actions=True)) is None
    assert method_refused("DELETE", headers, Access(allow_actions=True)) is not None


def test_a_token_counts_for_one_session_of_one_process() -> None:
    token = token_for(b"secret", "session")

    assert token_refused(b"secret", "session", token) is None
    assert token_refused(b"secret", "another", token) is not None
    assert token_refused(b"other", "session", token) is not None
    assert token_refused(b"secret", "", token_for(b"secret", "")) is not None
    assert token_refused(b"secret", "session", "") is not None


@pytest.mark.parametrize("text", ["me", "me:", "me:short", ":password", ""])
def test_a_login_without_a_name_or_a_long_password_is_refused_without_repeating_it(
    text: str,
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_user(text)

    assert "short" not in str(refused.value).replace("shorter", "")


def test_a_password_may_hold_colons_and_no_text_shows_it() -> None:
    access = Access(users=read_user("me:a:long:password"))

    assert access.users == {"me": "a:long:password"}
    assert "long" not in repr(access)


def test_a_wrong_proxy_address_is_named() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.5 or 10\.0\.0\.0/8"):
        read_networks(("not-an-address",))
