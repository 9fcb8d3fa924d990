"""Subjects: built, read back and compared; what would address another subject is refused."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_worker.errors import ConfigError, InvalidEvent, InvalidSubject
from omni_worker.subjects import (
    MAX_TOKEN,
    _head,
    build_subject,
    build_subscribe_pattern,
    check_instance,
    check_subject_pattern,
    check_type_pattern,
    covers,
    filters_for,
    fold,
    intersection,
    matches,
    parse_subject,
)

# Few letters, so that chance meets often.
wild_tokens = st.sampled_from(["a", "b", "*"])
patterns = st.builds(
    lambda head, tail: ".".join([*head, *tail]),
    st.lists(wild_tokens, min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
)
EVERY_SUBJECT = [".".join(words) for depth in range(1, 6) for words in product("abx", repeat=depth)]

HOSTILE = [
    "", "a.b", ".a", "a.", "a..b", "*", ">", "wa*", "wa>", " ", "a b", "a\tb", "a\nb",
    "a\r\nPUB x 1", "a\x0bb", "a\x0cb", "a\x00b", "a\x7fb", "a\x85b", "a\u00a0b",
    "a\u2028b", "a\u2029b", "\ud800",
    "$JS", "$JS.API.STREAM.DELETE.S", "x" * (MAX_TOKEN + 1), "x" * 3000,
]  # fmt: skip
DOTTED = ["a.b"]  # an instance id may hold dots between parts that are not empty


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("message.received", "whatsapp", "wa-001"), "message.received.whatsapp.wa-001"),
        (("message.received", "whatsapp", "wa.eu.001"), "message.received.whatsapp.wa.eu.001"),
        (
            ("message.received", "x", "5511@s.whatsapp.net"),
            "message.received.x.5511@s.whatsapp.net",
        ),
        (("message.received", "x", "é"), "message.received.x.é"),
        (("message.received",), "message.received"),
        (("custom.webhook.github.push",), "custom.webhook.github.push"),
        (("system.health.check", "x", "y"), "system.health.check.x.y"),
        (("agent.task.completed",), "agent.task.completed"),
        (("agent.task.completed", "x", "y.z"), "agent.task.completed.x.y.z"),
        (("instance.qr_code",), "instance.qr_code"),
        (("batch-job.created",), "batch-job.created"),
    ],
)
def test_a_subject_is_type_channel_and_instance_or_the_bare_type(
    arguments: tuple[str, ...], expected: str
) -> None:
    assert expected == build_subject(*arguments)


@pytest.mark.parametrize("given", ["channel", "instance"])
def test_channel_and_instance_go_together(given: str) -> None:
    with pytest.raises(InvalidSubject, match=f"{given}= without .*give both or neither"):
        build_subject("message.received", **{given: "x"})


@pytest.mark.parametrize("token", HOSTILE)
def test_no_channel_can_address_another_subject(token: str) -> None:
    with pytest.raises(InvalidSubject, match="channel"):
        build_subject("message.received", token, "wa-001")


@pytest.mark.parametrize("token", [token for token in HOSTILE if token not in DOTTED])
def test_no_instance_can_address_another_subject(token: str) -> None:
    with pytest.raises(InvalidSubject, match="instance"):
        build_subject("message.received", "whatsapp", token)


@pytest.mark.parametrize("token", [token for token in HOSTILE if token not in DOTTED])
def test_no_type_can_address_another_subject(token: str) -> None:
    with pytest.raises(InvalidSubject, match="custom"):
        build_subject(f"custom.{token}")


@pytest.mark.parametrize(
    ("type", "hint"),
    [
        ("message", "domain.action"),
        ("Message.received", "'message.received'"),
        ("message..received", "empty token"),
    ],
)
def test_what_is_no_event_type_is_refused_with_what_was_expected(type: str, hint: str) -> None:
    with pytest.raises(InvalidSubject, match=hint):
        build_subject(type)


@pytest.mark.parametrize(
    "arguments",
    [(5,), (None,), ("message.received", 5, "x"), ("message.received", "x", 5),
     ("message.received", ["x"], "y"), ("message.received", "x", {"y": 1})],
)  # fmt: skip
def test_what_is_no_text_is_refused_as_such(arguments: tuple[object, ...]) -> None:
    with pytest.raises(InvalidSubject, match="expected a string"):
        build_subject(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["type", "channel", "instance"])
def test_a_refusal_stays_short_however_long_the_text_was(where: str) -> None:
    given = {"type": "custom.x", "channel": "x", "instance": "y"}
    given[where] = "custom." + "x" * 100_000

    with pytest.raises(InvalidSubject) as refused:
        build_subject(**given)

    assert len(str(refused.value)) < 400


def test_a_subject_the_control_line_has_no_room_for_is_refused() -> None:
    with pytest.raises(InvalidSubject, match="2048"):
        build_subject("custom" + ".x" * 2000)


def test_a_bad_subject_is_the_senders_fault_and_a_value_error() -> None:
    assert issubclass(InvalidSubject, InvalidEvent)
    assert issubclass(InvalidSubject, ValueError)
    assert not issubclass(InvalidSubject, ConfigError)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "message.received"}, "message.received.>"),
        ({"type": "message.received", "channel": "whatsapp"}, "message.received.whatsapp.>"),
        (
            {"type": "message.received", "channel": "whatsapp", "instance": "wa-001"},
            "message.received.whatsapp.wa-001",
        ),
        ({"type": "message.received", "instance": "wa-001"}, "message.received.*.wa-001"),
        ({"channel": "whatsapp"}, "*.*.whatsapp.>"),
        ({}, ">"),
        ({"type": "message.*"}, "message.*.>"),
        ({"type": "custom.>"}, "custom.>"),
    ],
)
def test_a_subscribe_pattern_is_what_the_table_says(given: dict[str, str], expected: str) -> None:
    assert expected == build_subscribe_pattern(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"instance": "wa-001"},
        {"channel": "whatsapp", "instance": "wa-001"},
        {"type": "custom.>", "channel": "whatsapp"},
        {"type": "custom.>", "instance": "wa-001"},
        {"type": "message.>.x"},
        {"type": "*"},
        {"type": "message.re*"},
        {"type": "message.received", "channel": "*"},
        {"type": "message.received", "channel": "a.b"},
        {"type": "message.received", "instance": ">"},
        {"type": 5},
        {"channel": 5},
    ],
)
def test_any_other_combination_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidSubject):
        build_subscribe_pattern(**given)


@pytest.mark.parametrize(
    ("types", "channels", "instance", "expected"),
    [
        (["message.received"], [], None, ("message.received", "message.received.>")),
        (["message.received"], ["whatsapp"], None, ("message.received.whatsapp.>",)),
        (["message.received"], ["b", "a"], None, ("message.received.a.>", "message.received.b.>")),
        (["message.received"], [], "wa-001", ("message.received.*.wa-001",)),
        (["message.*", "message.received"], [], None, ("message.*", "message.*.>")),
        (["custom.>", "custom.a.b"], [], None, ("custom.>",)),
        (
            ["custom.a", "custom.a.b"],
            [],
            None,
            ("custom.a", "custom.a.>"),
        ),
    ],
)
def test_a_handlers_filters_hold_the_bare_subject_and_are_folded(
    types: list[str], channels: list[str], instance: str | None, expected: tuple[str, ...]
) -> None:
    assert expected == filters_for(types, channels, instance)


def test_channels_that_can_be_read_only_once_count_for_every_type() -> None:
    filters = filters_for(["message.sent", "message.read"], iter(["whatsapp"]))

    assert filters == ("message.read.whatsapp.>", "message.sent.whatsapp.>")


@pytest.mark.parametrize(
    ("subject", "type", "expected"),
    [
        ("message.received.whatsapp.wa-001", None, ("message.received", "whatsapp", "wa-001")),
        ("message.received.whatsapp.wa.eu.1", None, ("message.received", "whatsapp", "wa.eu.1")),
        ("message.received", None, ("message.received", None, None)),
        ("message.received.whatsapp", None, ("message.received", None, None)),
        ("custom.webhook.github.push", "custom.webhook.github.push",
         ("custom.webhook.github.push", None, None)),
        ("custom.webhook.github.push.x.y", "custom.webhook.github.push",
         ("custom.webhook.github.push", "x", "y")),
    ],
)  # fmt: skip
def test_a_subject_is_read_back(
    subject: str, type: str | None, expected: tuple[str, str | None, str | None]
) -> None:
    assert expected == parse_subject(subject, type)


@pytest.mark.parametrize(
    ("subject", "type"),
    [
        ("message.received.x.y", "message.sent"),
        ("message.received.x.y", "message.rec"),
        ("message.received", "message.received.x"),
        ("message", None),
        ("", None),
        (".received", None),
        ("message.", None),
    ],
)
def test_a_type_that_is_no_prefix_of_its_subject_is_refused(subject: str, type: str | None) -> None:
    with pytest.raises(InvalidSubject):
        parse_subject(subject, type)


@given(
    type=st.sampled_from(["message.received", "custom.a.b.c", "agent.task.completed"]),
    channel=st.sampled_from(["whatsapp", "é", "a-b_c"]),
    instance=st.lists(st.sampled_from(["wa", "001", "é@x"]), min_size=1, max_size=4).map(".".join),
)
def test_what_was_built_is_read_back_the_same(type: str, channel: str, instance: str) -> None:
    assert (type, channel, instance) == parse_subject(build_subject(type, channel, instance), type)


@given(st.text(max_size=20))
def test_an_instance_either_stays_in_its_place_or_is_refused(instance: str) -> None:
    try:
        subject = build_subject("message.received", "whatsapp", instance)
    except InvalidSubject:
        return

    assert ("message.received", "whatsapp", instance) == parse_subject(subject)
    assert all(subject.split("."))
    assert not any(character.isspace() or character in "*>" for character in subject)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("message.*", "message.received", True),
        ("message.*", "message.received.x", False),
        ("message.>", "message.received.x", True),
        ("message.>", "message", False),
        ("*.*.whatsapp.>", "message.sent.whatsapp.x.y", True),
        ("*.*.whatsapp.>", "message.sent.discord.x", False),
        (">", "a", True),
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
    ],
)
def test_a_pattern_matches_as_nats_reads_it(pattern: str, subject: str, expected: bool) -> None:
    assert expected is matches(pattern, subject)


@given(patterns, patterns)
def test_an_intersection_matches_exactly_what_both_match(one: str, other: str) -> None:
    both = intersection(one, other)

    for subject in EVERY_SUBJECT:
        expected = matches(one, subject) and matches(other, subject)
        assert expected == (both is not None and matches(both, subject))


@given(patterns, patterns)
def test_a_pattern_covers_another_when_it_matches_all_of_its_subjects(one: str, other: str) -> None:
    # `x` is in no pattern, so a literal never passes for a wildcard here.
    contained = all(matches(one, each) for each in EVERY_SUBJECT if matches(other, each))

    assert contained == covers(one, other)


@given(st.lists(patterns, max_size=6))
def test_folding_keeps_every_subject_and_no_filter_within_another(filters: list[str]) -> None:
    folded = fold(filters)

    assert tuple(sorted(set(folded))) == folded
    assert set(folded) <= set(filters)
    assert not any(one != other and covers(one, other) for one in folded for other in folded)
    for subject in EVERY_SUBJECT:
        wanted = any(matches(one, subject) for one in filters)
        assert wanted == any(matches(one, subject) for one in folded)


@pytest.mark.parametrize(
    "pattern", ["message.received", "message.*", "custom.>", ">", "*.*", "*.>"]
)
def test_a_type_pattern_may_hold_wildcards(pattern: str) -> None:
    assert pattern == check_type_pattern(pattern)


def test_a_pattern_no_type_can_match_is_refused() -> None:
    with pytest.raises(InvalidSubject, match="two tokens"):
        check_type_pattern("*")


@pytest.mark.parametrize("pattern", [">", "message.*.whatsapp.>", "a", "reaction.received"])
def test_a_raw_subject_may_be_any_pattern_of_users(pattern: str) -> None:
    assert pattern == check_subject_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["", "a..b", "a.>.b", "$JS.>", "$KV.x.>", "a b", "a\nb", "a*", 5, "x" * 200]
)
def test_a_raw_subject_the_server_would_refuse_or_that_is_its_own_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidSubject, match="subject"):
        check_subject_pattern(pattern)


def test_long_subjects_fill_no_memory() -> None:
    kept = _head.cache_info().currsize

    for number in range(100):
        build_subject(f"custom.{f'{number:0100}.' * 15}x", "whatsapp", "wa-001")

    assert _head.cache_info().currsize == kept


@given(st.text(alphabet="ab.$*> \n\u00e9\ud800", max_size=8))
def test_an_instance_is_valid_however_it_is_looked_at(instance: str) -> None:
    try:
        check_instance(instance)
    except InvalidSubject:
        with pytest.raises(InvalidSubject):
            build_subject("message.received", "whatsapp", instance)
        return

    subject = build_subject("message.received", "whatsapp", instance)

    assert subject == f"message.received.whatsapp.{instance}"


def test_instances_fill_no_memory() -> None:
    kept = _head.cache_info().currsize

    for number in range(10_000):
        build_subject("message.received", "whatsapp", f"wa-{number}")

    assert _head.cache_info().currsize <= kept + 1
