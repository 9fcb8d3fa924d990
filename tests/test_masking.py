"""Masking: no text from elsewhere shows a secret, or keeps the loop."""

from __future__ import annotations

import random
import time

import pytest

from omni_worker.masking import bounded, is_secret, without_secrets

SECRET = "hunter2"
SEED = "SU" + "A2B3C4D5" * 7  # as an nkey's: never one of a server's
PIECES = [
    "a://", "://:1", "a://b:", "a://@", "x://u:", "a://b:1", "password='", 'password="',
    "password=", "-----BEGIN KEY-----", "-----BEGIN ", "eyJ", "eyJ-", "SU", "authorization: ",
    'token" : ', "secret= ", ", input_value=", "a", "1", "'", '"', "=", "api_", "\n",
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        f"cannot reach postgres://app:{SECRET}@db/orders",
        f"postgres://app:a/{SECRET}@db/orders",
        f"postgres://app:a@{SECRET}@db/orders",
        f"nats://{SECRET}@host:4222",
        f"nats://a:{SECRET}@one,nats://b:{SECRET}@two",
        f"host=db user=app password={SECRET} dbname=orders",
        f"https://api.example.org/x?token={SECRET}&page=2",
        f'{{"password": "{SECRET}", "user": "app"}}',
        f"{{'db_password': 'a {SECRET} b'}}",
        f'{{\\"password\\": \\"{SECRET}\\"}}',
        f"NATS_PASSWORD={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"{{'Authorization': 'Basic {SECRET}'}}",
        f"x-api-key: {SECRET}",
        f"Headers({{'x-api-key': '{SECRET}'}})",
        f"[(b'x-api-key', b'{SECRET}')]",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN USER NKEY SEED-----\\n{SECRET}",
    ],
)
def test_a_secret_is_masked_wherever_it_is_named(text: str) -> None:
    shown = without_secrets(text)

    assert SECRET not in shown
    assert "***" in shown


def test_a_seed_is_masked_without_a_name() -> None:
    assert without_secrets(f"no such file: {SEED}.") == "no such file: ***."


@pytest.mark.parametrize(
    "text",
    [
        "token: expected a string, got a number",
        "NATS_USER and NATS_PASSWORD go together: give both or neither",
        "https://example.org:8080/a@b",
        "max_tokens=5",
        "ana@example.org wrote",
        "SUPPORT",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_a_secret_at_the_cut_is_masked_as_well() -> None:
    for blanks in range(940, 1_000):
        text = " " * blanks + f"nats://app:{SECRET}@db" + " " * 5_000

        assert "hun" not in bounded(text, 1_000, end=False) + bounded(text, 1_960)


@pytest.mark.parametrize("piece", PIECES)
def test_no_expression_takes_long_for_a_hostile_text(piece: str) -> None:
    text = (piece * 300_000)[:300_000]
    mixed = "".join(random.Random(piece).choices(PIECES, k=40_000))

    began = time.process_time()
    without_secrets(text)
    without_secrets(mixed)

    assert time.process_time() - began < 2.0  # a quadratic one takes minutes


def test_fields_that_hold_a_secret_are_known_by_their_names() -> None:
    names = ["token", "db_password", "client.secret", "API_KEY", "tokens", "secretary", "keys"]

    assert [is_secret(name) for name in names] == [True] * 4 + [False] * 3
