"""Answers: `Retry-After` as it may be written."""

from __future__ import annotations

import pytest

from omni_worker.omni.answers import retry_after

NOW = 1_445_412_450.0  # 07:27:30 on the day below


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("99999999999999999999", 3600.0),
        ("9" * 5_000, None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:00", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 3600.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("soon", None),
    ],
)
def test_the_seconds_of_a_retry_after(written: str | None, seconds: float | None) -> None:
    assert retry_after(written, NOW) == seconds
