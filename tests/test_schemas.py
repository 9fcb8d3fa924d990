"""Schemas: what is known beforehand, what may be registered, and what a payload must look like."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

import omni_worker
from omni_worker.errors import ConfigError, UnknownEventType
from omni_worker.events import Event
from omni_worker.payloads import (
    CORE_PAYLOADS,
    UNTYPED,
    MessageReceivedPayload,
    ReceivedContent,
)
from omni_worker.schemas import Invalid, SchemaRegistry, Valid, check_name, core_type_of


class Push(BaseModel):
    ref: str


class Other(BaseModel):
    ref: int


# The table of the format: keys on the wire, `?` marks those that may be absent.
CORE = {
    "message.received": (
        "externalId chatId threadId? from senderName? chatName? content replyToId? rawPayload?"
    ),
    "message.sent": (
        "externalId chatId threadId? to content replyToId? rawPayload? senderAgentId? systemNotice?"
    ),
    "message.delivered": "externalId chatId deliveredAt",
    "message.read": "externalId chatId readAt",
    "message.failed": "externalId? chatId error errorCode? retryable",
    "message.pinned": "messageId chatId from? rawPayload?",
    "message.unpinned": "messageId chatId from? rawPayload?",
    "message.button_click": "callbackQueryId? messageId? chatId? from text? data? rawPayload?",
    "message.poll": "pollId chatId? from? question options multiSelect? rawPayload?",
    "message.poll_vote": "pollId chatId? from optionIds rawPayload?",
    "reaction.removed": "messageId chatId from emoji emojiName? isCustomEmoji?",
    "reaction.received": "messageId chatId from emoji emojiName? isCustomEmoji? rawPayload?",
    "presence.typing": "chatId from timestamp?",
    "presence.online": "userId lastSeen?",
    "presence.offline": "userId lastSeen",
    "media.received": "eventId mediaId mimeType size duration? url",
    "media.processed": "eventId mediaId processingType content model? provider? tokensUsed? error?",
    "media.processing.failed": (
        "eventId mediaId processingType error provider? model? retryAttempts?"
    ),
    "identity.created": "personId displayName? primaryPhone? primaryEmail?",
    "identity.linked": "personId platformIdentityId channelType platformUserId linkedBy confidence",
    "identity.merged": "targetPersonId sourcePersonId mergedIdentityIds reason mergedBy?",
    "identity.unlinked": "personId platformIdentityId reason?",
    "profile.synced": "instanceId name? avatarUrl? bio? platformMetadata?",
    "instance.connected": "instanceId channelType profileName? profilePicUrl? ownerIdentifier?",
    "instance.disconnected": "instanceId channelType reason? willReconnect",
    "instance.qr_code": "instanceId channelType qrCode expiresAt",
    "access.allowed": "instanceId platformUserId personId? ruleId?",
    "access.denied": "instanceId platformUserId personId? ruleId? reason action",
    "access.pairing_requested": "instanceId platformUserId pairingCode requestId expiresAt",
    "access.pairing_approved": "instanceId platformUserId requestId ruleId",
    "channel.alert": (
        "instanceId channelType alertType severity message entityType? entityId? data?"
    ),
    "template.status_changed": (
        "instanceId templateId metaTemplateId templateName language previousStatus? newStatus "
        "rejectionReason?"
    ),
    "flow.data_exchange": (
        "instanceId channelType flowId? flowToken action screen? data? responseScreen? durationMs"
    ),
    "sync.started": "jobId instanceId type config?",
    "sync.progress": "jobId instanceId type progress",
    "sync.completed": "jobId instanceId type progress",
    "sync.failed": "jobId instanceId type error",
    "batch-job.created": "jobId instanceId jobType requestParams",
    "batch-job.started": "jobId instanceId jobType totalItems",
    "batch-job.progress": "jobId instanceId progress",
    "batch-job.completed": "jobId instanceId jobType progress durationMs",
    "batch-job.cancelled": "jobId instanceId progress",
    "batch-job.failed": "jobId instanceId error progress?",
    "chat.idle_timeout": (
        "chatId instanceId agentId? sequenceIndex attemptNumber totalAttempts "
        "minutesSinceLastAgentReply syntheticPrompt chatName?"
    ),
    "chat.handoff_activated": "chatId instanceId agentId? reason?",
    "chat.archived": "chatId instanceId source",
    "chat.closed": "chatId instanceId agentId? outcome reason? escalated closedFields? closedAt",
    "follow_up.armed": "chatId instanceId agentId? sequenceIndex nextFireAt",
    "follow_up.fired": "chatId instanceId agentId? sequenceIndex firedAt syntheticPrompt",
    "follow_up.skipped": "chatId instanceId agentId? sequenceIndex reason",
    "follow_up.disarmed": "chatId instanceId agentId? sequenceIndex reason",
    "agent.state.changed": "agentId chatId conversationId? status statusMeta? updatedAt",
    "agent.run.cancel_requested": "instanceId chatId threadId? requestedBy? requestedAt? reason",
    "agent.task.created": "taskId agentId chatId conversationId? type title status",
    "agent.task.updated": "taskId agentId chatId status progress",
    "agent.task.completed": "taskId agentId chatId result?",
    "agent.task.failed": "taskId agentId chatId error",
    "agent.task.cancelled": "taskId agentId chatId",
    "session.reset": "instanceId sessionId timestamp",
    "conversation.created": "conversationId title?",
    "conversation.updated": "conversationId title?",
    "conversation.deleted": "conversationId",
    "voice.session_started": "sessionId channelId instanceId guildId?",
    "voice.stream_ready": "sessionId userId platformUserId ssrc",
    "voice.stream_ended": "sessionId userId reason",
    "voice.session_ended": "sessionId reason",
    "voice.user_joined_channel": "userId channelId guildId instanceId displayName?",
    "voice.user_left_channel": "userId channelId guildId instanceId displayName?",
}


@pytest.mark.parametrize("type", CORE)
def test_a_core_payload_has_the_keys_of_the_format(type: str) -> None:
    fields = CORE_PAYLOADS[type].model_fields.values()

    assert set(CORE[type].split()) == {
        f"{field.alias}{'' if field.is_required() else '?'}" for field in fields
    }


def test_every_core_type_is_known_beforehand_and_so_are_eight_of_the_system() -> None:
    known = [schema.type for schema in SchemaRegistry().list()]

    assert known == sorted(
        [*CORE, *UNTYPED, "system.dead_letter", "system.replay.started", "system.replay.completed",
         "system.health.degraded", "system.connector.stalled", "system.connector.recovered",
         "system.consumer.created", "system.consumer.deleted"]
    )  # fmt: skip


@pytest.mark.parametrize("type", CORE)
def test_every_core_type_has_three_names_people_import(type: str) -> None:
    stem = "".join(word.title() for word in re.split(r"[._-]", type))
    payload = getattr(omni_worker, f"{stem}Payload")

    assert CORE_PAYLOADS[type] is payload
    assert getattr(omni_worker, f"{stem}Event") is Event[payload]
    assert f"{stem}Handler" in omni_worker.__all__


def test_a_core_payload_keeps_keys_of_a_newer_omni_and_takes_any_word() -> None:
    payload = {
        "externalId": "1", "chatId": "2", "from": "3", "mood": {"x": [1]},
        "content": {"type": "hologram", "depth": 3},
    }  # fmt: skip

    valid = SchemaRegistry().validate("message.received", payload)

    assert isinstance(valid, Valid)
    assert valid.value.model_dump(by_alias=True, exclude_none=True) == payload


def test_a_core_payload_in_snake_case_is_not_what_other_programs_read() -> None:
    payload = {"external_id": "1", "chat_id": "2", "read_at": 3}

    invalid = SchemaRegistry().validate("message.read", payload)

    assert isinstance(invalid, Invalid)
    assert "externalId: Field required" in invalid.error
    assert "; as a key, external_id is externalId, chat_id is chatId" in invalid.error


def test_a_registered_schema_decides() -> None:
    registry = SchemaRegistry()
    registry.register("custom.webhook.github", Push, description="A push")

    assert registry.validate("custom.webhook.github", {"ref": "main"}) == Valid(Push(ref="main"))
    assert registry.validate("custom.webhook.github", Push(ref="main")) == Valid(Push(ref="main"))
    assert registry.validate("custom.webhook.github", {"ref": 1}) == Invalid(
        "ref: Input should be a valid string"
    )
    assert isinstance(registry.validate("custom.webhook.github", Other(ref=1)), Invalid)
    assert registry.validate("custom.other", {"any": "thing"}) == Valid({"any": "thing"})


def test_what_counts_for_a_strict_model_is_what_goes_on_the_wire() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        at: datetime

    registry = SchemaRegistry()
    registry.register("custom.at", Strict)

    for at in ("2026-01-01T00:00:00Z", datetime(2026, 1, 1)):
        assert isinstance(registry.validate("custom.at", {"at": at}), Valid)
    for at in (5, object(), "soon"):
        assert isinstance(registry.validate("custom.at", {"at": at}), Invalid)


def test_a_reason_names_the_field_and_never_repeats_a_value() -> None:
    class A(BaseModel):
        kind: Literal["a"]

    class B(BaseModel):
        kind: Literal["b"]

    class Both(BaseModel):
        model_config = ConfigDict(extra="forbid")
        one: Annotated[A | B, Field(discriminator="kind")]
        numbers: list[int]

    registry = SchemaRegistry()
    registry.register("custom.both", Both)

    invalid = registry.validate(
        "custom.both", {"one": {"kind": "private"}, "numbers": ["private"] * 20, "k" * 999: 1}
    )

    assert isinstance(invalid, Invalid)
    assert "one: unknown tag" in invalid.error
    assert "numbers.0" in invalid.error
    assert "and 17 more" in invalid.error
    assert "private" not in invalid.error
    assert len(invalid.error) < 600


@pytest.mark.parametrize(
    ("type", "model", "hint"),
    [
        ("message.received", Push, "only custom"),
        ("order.created", Push, "only custom"),
        ("system.dead_letter", Push, "only custom"),
        ("custom..x", Push, "empty token"),
        ("custom.*", Push, "cannot hold"),
        ("Custom.X", Push, "lowercase"),
        (5, Push, "expected a string"),
        ("custom.x", dict, "pydantic model class"),
        ("custom.x", Push(ref="x"), "pydantic model class"),
        ("custom.x", "Push", "pydantic model class"),
        ("custom.x", Event[Push], "the payload's model"),
    ],
)
def test_what_cannot_be_registered_is_refused(type: Any, model: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        SchemaRegistry().register(type, model)


@pytest.mark.parametrize(
    "stream", ["", "a.b", "a b", "MESSAGE", "SYSTEM", "REACTION", "OMNI_WORKER", "KV_x", 5]
)
def test_a_stream_that_cannot_be_a_copy_is_refused_where_it_is_written(stream: Any) -> None:
    with pytest.raises(ConfigError, match=r"register\('custom\.x', stream="):
        SchemaRegistry().register("custom.x", Push, stream=stream)


def test_a_type_goes_to_its_override_else_to_its_domains_stream_else_nowhere() -> None:
    registry = SchemaRegistry()
    registry.register("custom.order", Push, stream="ORDERS")
    registry.register("custom.plain", Push, stream="CUSTOM")

    assert registry.get_stream("custom.order") == "ORDERS"
    assert registry.get_stream("custom.order.created") == "CUSTOM"
    assert registry.get_stream("message.received") == "MESSAGE"
    assert registry.get_stream("reaction.received") is None
    assert registry.get("custom.plain").stream is None  # type: ignore[union-attr]


def test_a_core_payload_is_made_by_names_of_python_or_by_keys_of_the_wire() -> None:
    by_name = MessageReceivedPayload(
        external_id="1", chat_id="2", from_="ana", content=ReceivedContent(type="text")
    )
    keys = {"externalId": "1", "chatId": "2", "from": "ana", "content": {"type": "text"}}

    assert by_name == MessageReceivedPayload(**keys) == MessageReceivedPayload.model_validate(keys)
    assert by_name.model_dump(by_alias=True, exclude_none=True) == keys


def test_a_type_of_another_program_is_added_published_and_validated() -> None:
    registry = SchemaRegistry()

    registry.extend("agent.memory.stored", Push, stream="AGENT", description="An agent's memory")

    registry.check_known("agent.memory.stored")
    assert registry.validate("agent.memory.stored", {"ref": 1}) == Invalid(
        "ref: Input should be a valid string"
    )
    assert registry.get_stream("agent.memory.stored") == "AGENT"
    assert registry.get("agent.memory.stored").stream is None  # type: ignore[union-attr]  # no copy
    assert registry.get_stream("agent.memory.lost") is None


def test_a_type_that_a_later_version_knows_may_still_be_added() -> None:
    registry, other = SchemaRegistry(), SchemaRegistry()

    registry.extend("agent.task.completed", Push, stream="AGENT")
    registry.extend("agent.task.completed", Push, stream="AGENT")
    other.include(registry)

    assert other.validate("agent.task.completed", {"ref": "x"}) == Valid(Push(ref="x"))
    with pytest.raises(ConfigError, match=r"extend\('agent\.task\.completed'\): already"):
        other.extend("agent.task.completed", Other)


@pytest.mark.parametrize(
    ("type", "model", "hint"),
    [
        ("message.received", Push, "payload of this type is fixed"),
        ("custom.x", Push, r"write register\('custom\.x', Model\)"),
        ("system.x", Push, r"write register\('system\.x', Model\)"),
        ("agent", Push, "two tokens"),
        ("Agent.x", Push, "lowercase"),
        ("agent.x", dict, "pydantic model class"),
    ],
)
def test_what_cannot_be_added_is_refused(type: Any, model: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        SchemaRegistry().extend(type, model)


def test_a_home_the_server_would_refuse_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"extend\('agent\.x', stream='a\.b'\): a name takes"):
        SchemaRegistry().extend("agent.x", Push, stream="a.b")


@pytest.mark.parametrize(
    ("type", "advice"),
    [
        ("order.placed", "types of your own begin with custom.: did you mean custom.order.placed?"),
        ("order.placed", r"registry.extend\('order.placed', Model\)"),
        ("message.recieved", "did you mean message.received?"),
        ("message.received.whatsapp", "did you mean message.received with channel='whatsapp'?"),
        ("system.other", r"registry.register\('system.other', Model\)"),
        ("agent.memory.stored", r"registry.extend\('agent.memory.stored', Model\)"),
        ("a; b.c", "types of your own begin with custom.: did you mean custom.a; b.c?"),
    ],
)
def test_an_unknown_type_is_answered_with_what_to_write(type: str, advice: str) -> None:
    with pytest.raises(UnknownEventType, match=advice.replace("?", r"\?")):
        SchemaRegistry().check_known(type)


def test_registering_the_same_again_changes_nothing_and_another_schema_is_refused() -> None:
    registry = SchemaRegistry()
    registry.register("custom.x", Push)

    registry.register("custom.x", Push)

    with pytest.raises(
        ConfigError,
        match=r"register\('custom\.x'\): already registered, with another schema"
        r" \(model was 'Push', is 'Other'\); register it once",
    ):
        registry.register("custom.x", Other)


def test_what_differs_between_two_schemas_of_a_type_is_named() -> None:
    registry = SchemaRegistry()
    registry.register("custom.x", Push, description="a push")
    twin = type("Push", (BaseModel,), {})

    with pytest.raises(ConfigError, match=r"\(stream was None, is 'PUSHES', description was 'a p"):
        registry.register("custom.x", Push, stream="PUSHES")
    with pytest.raises(ConfigError, match=r"\(two models of one name\)"):
        registry.register("custom.x", twin, description="a push")


def test_registries_are_each_an_apps_own_until_one_includes_another() -> None:
    one, other = SchemaRegistry(), SchemaRegistry()
    one.register("custom.x", Push)

    assert other.get("custom.x") is None

    other.include(one)

    assert other.get("custom.x") == one.get("custom.x")


def test_an_unknown_custom_type_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = SchemaRegistry()

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            registry.check_known("custom.x")

    [record] = caplog.records
    assert record.message.startswith("custom.x has no schema, so what is published is not checked:")


@pytest.mark.parametrize("type", ["system.other", "message.recieved", "reaction.refused"])
def test_an_unknown_type_outside_custom_is_refused_with_the_known_ones(type: str) -> None:
    with pytest.raises(UnknownEventType, match=type):
        SchemaRegistry().check_known(type)


def test_a_misspelt_type_is_answered_with_its_neighbours() -> None:
    with pytest.raises(UnknownEventType, match=r"message\.received"):
        SchemaRegistry().check_known("message.recieved")


@pytest.mark.parametrize(
    "name", ["", "a.b", "a*", "a>", "a/b", "a\\b", "a b", "a\n", "$a", "x" * 129, 5]
)
def test_a_name_the_server_would_refuse_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="durable"):
        check_name(name, "durable=…")


@pytest.mark.parametrize(
    ("type", "meant"),
    [
        ("message.recieved", "message.received"), ("message.receive", "message.received"),
        ("instance.qrcode", "instance.qr_code"), ("message.received", None),
        ("message.edited", None), ("system.health.check", None), ("custom.message.receive", None),
        ("reaction.received", None),
       # Words of their own, not slips: somebody extends the domain.
       ("instance.reconnected", None), ("identity.unmerged", None), ("message.deleted", None),
       ("messages.received", "message.received"),
       # Of one's own, without the prefix; of another program, in a domain that is known.
       ("order.placed", "custom.order.placed"), ("order.line.added", "custom.order.line.added"),
       ("agent.memory.stored", None), ("agent.task.complete", "agent.task.completed"),
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_is_told_from_a_type_of_somebody_elses(
    type: str, meant: str | None
) -> None:
    assert meant == SchemaRegistry().nearest(type)


def test_what_counts_is_the_payload_as_json() -> None:
    class User(BaseModel):
        name: str
        age: int

    registry = SchemaRegistry()
    registry.register("custom.user", User)

    # Keys that are bytes, as some databases answer, are text in JSON.
    checked = registry.validate("custom.user", {b"name": b"bob", b"age": b"3"})

    assert checked == Valid(User(name="bob", age=3))


@pytest.mark.parametrize(
    ("subject", "type"),
    [
        ("agent.task.completed.internal.global", "agent.task.completed"),
        ("media.processing.failed", "media.processing.failed"),
        ("message.received.whatsapp.wa-001", "message.received"),
        ("agent.memory.stored", None),
        ("custom.order", None),
        ("message", None),
        ("", None),
    ],
)
def test_the_type_of_an_unreadable_event_is_the_longest_that_its_subject_begins_with(
    subject: str, type: str | None
) -> None:
    assert core_type_of(subject) == type
