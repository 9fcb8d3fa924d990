"""Settings: from the environment, constructor arguments first, secrets never shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from omni_worker.errors import ConfigError
from omni_worker.settings import DEFAULT_URL, Settings, unknown_variables, without_userinfo

SECRET = "geheim"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine the tests run on."""
    for name in list(os.environ):
        if name.startswith(("NATS_", "OMNI_WORKER_")):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that exists."""
    path = tmp_path / "file"
    path.touch()
    return path


def test_the_defaults_are_those_of_the_readme() -> None:
    settings = Settings()

    expected = {
        "urls": (DEFAULT_URL,),
        "user": None, "password": None, "token": None, "creds": None, "nkey": None,
        "ca": None, "cert": None, "key": None, "js_domain": None,
        "reconnect_max_retries": 10, "reconnect_delay": 1.0, "reconnect_max_delay": 30.0,
        "connect_timeout": 5.0, "replicas": 1, "provision": "on", "inactive": 3600.0,
        "unaddressed": "bare",
        "concurrency": 10, "prefetch": None, "timeout": None, "ack_wait": 30.0,
        "max_retries": 3, "retry_delay": 1.0, "grace": 30.0, "foreign_delivery_limit": 3600.0,
        "guard_ttl": 86_400.0,
    }  # fmt: skip
    assert expected == {name: getattr(settings, name) for name in expected}


@pytest.mark.parametrize(
    ("variable", "text", "field", "expected"),
    [
        ("NATS_URL", "nats://a:1, tls://b", "urls", ("nats://a:1", "tls://b")),
        ("NATS_URL", "WS://a:1/path", "urls", ("ws://a:1/path",)),
        ("NATS_JS_DOMAIN", "hub", "js_domain", "hub"),
        ("OMNI_WORKER_RECONNECT_MAX_RETRIES", "3", "reconnect_max_retries", 3),
        ("OMNI_WORKER_RECONNECT_DELAY", "0.5", "reconnect_delay", 0.5),
        ("OMNI_WORKER_RECONNECT_MAX_DELAY", "5", "reconnect_max_delay", 5.0),
        ("OMNI_WORKER_CONNECT_TIMEOUT", "2", "connect_timeout", 2.0),
        ("OMNI_WORKER_REPLICAS", "3", "replicas", 3),
        ("OMNI_WORKER_PROVISION", "off", "provision", "off"),
        ("OMNI_WORKER_UNADDRESSED", "internal.global", "unaddressed", "internal.global"),
        ("OMNI_WORKER_INACTIVE", "60", "inactive", 60.0),
        ("OMNI_WORKER_CONCURRENCY", "20", "concurrency", 20),
        ("OMNI_WORKER_PREFETCH", "100", "prefetch", 100),
        ("OMNI_WORKER_TIMEOUT", "2.5", "timeout", 2.5),
        ("OMNI_WORKER_ACK_WAIT", "60", "ack_wait", 60.0),
        ("OMNI_WORKER_MAX_RETRIES", "0", "max_retries", 0),
        ("OMNI_WORKER_RETRY_DELAY", "2", "retry_delay", 2.0),
        ("OMNI_WORKER_GRACE", "5", "grace", 5.0),
        ("OMNI_WORKER_GUARD_TTL", "600", "guard_ttl", 600.0),
    ],
)
def test_every_variable_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, expected: Any
) -> None:
    monkeypatch.setenv(variable, text)

    assert expected == getattr(Settings(), field)


def test_credentials_are_read_from_the_names_the_nats_cli_uses(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    for name in ("CREDS", "NKEY", "CA", "CERT", "KEY"):
        monkeypatch.setenv(f"NATS_{name}", str(file))
    for name in ("USER", "PASSWORD", "TOKEN"):
        monkeypatch.setenv(f"NATS_{name}", SECRET)

    settings = Settings()

    assert {settings.creds, settings.nkey, settings.ca, settings.cert, settings.key} == {file}
    assert settings.user == SECRET
    assert settings.password is not None
    assert settings.token is not None
    assert settings.password.get_secret_value() == settings.token.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("variable", "field", "given"),
    [
        ("NATS_URL", "urls", "nats://given:1"),
        ("OMNI_WORKER_GRACE", "grace", 1.5),
        ("OMNI_WORKER_RECONNECT_MAX_RETRIES", "reconnect_max_retries", None),
    ],
)
def test_constructor_arguments_win_even_over_what_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, field: str, given: Any
) -> None:
    monkeypatch.setenv(variable, "7" if variable.startswith("OMNI") else "http://nowhere")

    expected = (given,) if field == "urls" else given
    assert expected == getattr(Settings(**{field: given}), field)


@pytest.mark.parametrize(
    "field", ["reconnect_max_retries", "prefetch", "timeout"],
)  # fmt: skip
@pytest.mark.parametrize("word", ["none", "None", " NONE "])
def test_none_says_endless_adaptive_or_without_timeout(
    monkeypatch: pytest.MonkeyPatch, field: str, word: str
) -> None:
    monkeypatch.setenv(f"OMNI_WORKER_{field.upper()}", word)

    assert getattr(Settings(), field) is None


@pytest.mark.parametrize(
    "variable",
    ["NATS_URL", "NATS_USER", "NATS_PASSWORD", "NATS_CREDS", "OMNI_WORKER_ACK_WAIT",
     "OMNI_WORKER_RECONNECT_MAX_RETRIES"],
)  # fmt: skip
def test_an_empty_variable_is_one_that_is_not_set(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "")

    assert Settings().urls == (DEFAULT_URL,)
    assert Settings().reconnect_max_retries == 10


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OMNI_WORKER_ACK_WAIT", "soon"), ("OMNI_WORKER_ACK_WAIT", "0"),
        ("OMNI_WORKER_ACK_WAIT", "inf"), ("OMNI_WORKER_GRACE", "nan"),
        ("OMNI_WORKER_GRACE", "-1"), ("OMNI_WORKER_CONCURRENCY", "0"),
        ("OMNI_WORKER_CONCURRENCY", "1.5"), ("OMNI_WORKER_PREFETCH", "-1"),
        ("OMNI_WORKER_REPLICAS", "6"), ("OMNI_WORKER_PROVISION", "maybe"),
        ("OMNI_WORKER_MAX_RETRIES", "-1"), ("OMNI_WORKER_TIMEOUT", "0"),
        ("OMNI_WORKER_TIMEOUT", "90000"), ("NATS_CREDS", "nowhere/creds"),
        ("NATS_CA", "nowhere/ca"), ("NATS_URL", "http://host"), ("NATS_URL", "nats://"),
        ("NATS_URL", "nats://host:port"), ("NATS_URL", ","), ("NATS_URL", "nats://[::1"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigError, match=variable):
        Settings()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OMNI_WORKER_GRACE", "abc", "=abc: expected seconds, 0 or more"),
        ("OMNI_WORKER_RECONNECT_DELAY", "0", "=0: expected seconds, more than 0"),
        ("OMNI_WORKER_ACK_WAIT", "inf", "=inf: expected seconds, 0.1 to 86400"),
        ("OMNI_WORKER_TIMEOUT", "no\nne", "='no\\nne': expected seconds, 0.001 to 86400, or none"),
        ("OMNI_WORKER_CONCURRENCY", "1.5", "=1.5: expected a whole number, 1 to 100000, or auto"),
        ("OMNI_WORKER_PREFETCH", "x" * 50, f"={'x' * 40}…: expected a whole number, 0 to 100000,"
         " or none"),
        ("OMNI_WORKER_PROVISION", "maybe", "=maybe: expected on or off"),
        ("NATS_URL", f"http://{SECRET}",
         ": expected nats://, tls://, ws:// or wss://host:port, separated by commas"),
        ("NATS_URL", f"wss://host/path?token={SECRET}",
         ": expected nats://, tls://, ws:// or wss://host:port, separated by commas"),
        ("NATS_CREDS", "nowhere/creds", "=nowhere/creds: no such file"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigError) as refused:
        Settings()

    assert str(refused.value) == variable + said


def test_of_several_wrong_ones_each_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_WORKER_GRACE", "abc")
    monkeypatch.setenv("NATS_URL", "http://host")

    with pytest.raises(ConfigError) as refused:
        Settings(acck_wait=5, password=[SECRET])

    assert sorted(str(refused.value).splitlines()) == [
        "NATS_PASSWORD: expected text",
        "NATS_URL: expected nats://, tls://, ws:// or wss://host:port, separated by commas",
        "OMNI_WORKER_GRACE=abc: expected seconds, 0 or more",
        "no such setting: acck_wait; did you mean ack_wait?",
    ]


@pytest.mark.parametrize("word", ["off", "OFF", " Off "])
def test_on_and_off_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("OMNI_WORKER_PROVISION", word)

    assert Settings().provision == "off"


@pytest.mark.parametrize("given", [{"user": "me"}, {"password": SECRET}])
def test_user_and_password_go_together(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="NATS_USER and NATS_PASSWORD go together"):
        Settings(**given)


@pytest.mark.parametrize("field", ["cert", "key"])
def test_certificate_and_key_go_together(field: str, file: Path) -> None:
    with pytest.raises(ConfigError, match="NATS_CERT and NATS_KEY go together"):
        Settings(**{field: file})


def test_a_misspelt_argument_is_refused_with_the_right_word() -> None:
    with pytest.raises(ConfigError, match="no such setting: acck_wait; did you mean ack_wait"):
        Settings(acck_wait=5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("urls", 5), ("ack_wait", "soon"), ("password", [SECRET]), ("token", {"x": SECRET}),
        ("nkey", [SECRET]), ("creds", {"x": SECRET}),
        ("urls", f"nats://me:{SECRET}@host:x"), ("urls", f"http://me:{SECRET}@host"),
        ("urls", f"nats://me:1/{SECRET}@host"), ("urls", f"nats://host?token={SECRET}"),
        ("urls", [f"nats://me:{SECRET}@host", 5]), ("urls", f"nats://me:{SECRET}\uff0f@host"),
        ("urls", f"nats://me:{SECRET}@[host"),
    ],
)  # fmt: skip
def test_an_error_names_the_variable_and_repeats_no_secret(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings(**{field: value})

    assert str(refused.value).startswith(("NATS_", "OMNI_WORKER_"))
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


SEED = "SU" + "A2B3C4D5" * 7  # as an nkey's: never one of a server's


@pytest.mark.parametrize("name", ["NATS_NKEY", "NATS_CREDS", "NATS_KEY"])
@pytest.mark.parametrize(
    "value",
    [
        SEED,
        SEED[:-1],  # cut when it was copied
        f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------",
        "eyJhbGciOiJlZDI1NTE5In0.eyJqdGkiOiJBQkNERUYifQ.c2lnbmF0dXJl",
        "-----BEGIN PRIVATE KEY-----" + "MIIE/vgIBADAN" * 200,  # too long for a name of a file
    ],
)
def test_a_secret_in_the_place_of_its_files_path_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    if name == "NATS_KEY":
        monkeypatch.setenv("NATS_CERT", __file__)

    with pytest.raises(ConfigError, match=f"^{name}: no such file; it takes the path") as refused:
        Settings()

    assert not any(value[at : at + 12] in str(refused.value) for at in range(0, 60, 12))


def test_no_secret_is_in_any_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", SECRET)
    settings = Settings(urls=f"nats://me:{SECRET}@host:1", user="me", token=SECRET)

    for text in (repr(settings), str(settings), f"{settings}", settings.shown_urls):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://host:4222", "nats://host:4222"),
        (f"nats://me:{SECRET}@host:4222", "nats://host:4222"),
        (f"tls://{SECRET}@host", "tls://host"),
        (f"me:{SECRET}@host:4222", "host:4222"),
        (f"nats://me:{SECRET}@x@host", "nats://host"),
        (f"nats://me:1/{SECRET}@host", "nats://host"),
        (f"nats://me:a://{SECRET}@host", "nats://host"),
        (f"me:a://{SECRET}@host", "host"),
    ],
)
def test_a_url_is_shown_without_user_and_password(url: str, expected: str) -> None:
    assert expected == without_userinfo(url)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"urls": "tls://host"}, True),
        ({"urls": "nats://a,tls://b"}, True),
        ({"urls": "wss://a"}, True),
    ],
)
def test_tls_is_wanted_where_any_server_asks_for_it(given: dict[str, str], expected: bool) -> None:
    assert expected is Settings(**given).wants_tls


KUBERNETES = {
    # What it puts there for Services called omni-worker and omni-worker-metrics.
    "OMNI_WORKER_SERVICE_HOST": "10.0.0.1",
    "OMNI_WORKER_SERVICE_PORT": "8080",
    "OMNI_WORKER_SERVICE_PORT_HTTP": "8080",
    "OMNI_WORKER_PORT": "tcp://10.0.0.1:8080",
    "OMNI_WORKER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "OMNI_WORKER_PORT_8080_TCP_ADDR": "10.0.0.1",
    "OMNI_WORKER_METRICS_SERVICE_HOST": "10.0.0.2",
    "OMNI_WORKER_METRICS_PORT_9090_TCP_PROTO": "tcp",
}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OMNI_WORKER_GRACES", "; did you mean OMNI_WORKER_GRACE?"),
        ("OMNI_WORKER_CONCURENCY", "; did you mean OMNI_WORKER_CONCURRENCY?"),
        ("omni_worker_ackwait", "; did you mean OMNI_WORKER_ACK_WAIT?"),
        ("OMNI_WORKER_URL", "; did you mean NATS_URL?"),
        ("OMNI_WORKER_HEALTHPORT", "; did you mean OMNI_WORKER_HEALTH_PORT?"),
        ("OMNI_WORKER_COLOUR", "; docs/settings.md lists them all"),
    ],
)
def test_a_variable_that_nothing_reads_is_told_with_the_one_that_is_meant(
    name: str, meant: str
) -> None:
    said = unknown_variables({name: "1", "PATH": "/bin"}, ["OMNI_WORKER_HEALTH_PORT"])

    assert said == [f"{name} is set but unknown{meant}"]


def test_variables_that_are_read_and_those_of_others_are_no_news() -> None:
    named = [f"OMNI_WORKER_{field.upper()}" for field in Settings.model_fields
             if not Settings.model_fields[field].validation_alias]  # fmt: skip
    read = {name: "1" for name in [*named, "OMNI_WORKER_SESSION", "omni_worker_grace"]}
    other = {"NATS_URLS": "1", "OMNI_WORKERS": "1", "OMNI_WORKER_WORKERS": "2"}

    assert unknown_variables(read | other | KUBERNETES, ["OMNI_WORKER_WORKERS"]) == []


def test_a_port_of_our_own_is_not_taken_for_kubernetes() -> None:
    assert len(unknown_variables({"OMNI_WORKER_ADMIN_PORT": "9090"})) == 1
