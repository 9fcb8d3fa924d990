"""Agents: their state, their tasks, and the sessions in which they talk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "AgentRunCancelRequestedEvent",
    "AgentRunCancelRequestedHandler",
    "AgentRunCancelRequestedPayload",
    "AgentStateChangedEvent",
    "AgentStateChangedHandler",
    "AgentStateChangedPayload",
    "AgentTaskCancelledEvent",
    "AgentTaskCancelledHandler",
    "AgentTaskCancelledPayload",
    "AgentTaskCompletedEvent",
    "AgentTaskCompletedHandler",
    "AgentTaskCompletedPayload",
    "AgentTaskCreatedEvent",
    "AgentTaskCreatedHandler",
    "AgentTaskCreatedPayload",
    "AgentTaskFailedEvent",
    "AgentTaskFailedHandler",
    "AgentTaskFailedPayload",
    "AgentTaskUpdatedEvent",
    "AgentTaskUpdatedHandler",
    "AgentTaskUpdatedPayload",
    "ConversationCreatedEvent",
    "ConversationCreatedHandler",
    "ConversationCreatedPayload",
    "ConversationDeletedEvent",
    "ConversationDeletedHandler",
    "ConversationDeletedPayload",
    "ConversationUpdatedEvent",
    "ConversationUpdatedHandler",
    "ConversationUpdatedPayload",
    "SessionResetEvent",
    "SessionResetHandler",
    "SessionResetPayload",
]


class AgentStateChangedPayload(Payload):
    """An agent's state in a chat changed."""

    agent_id: str
    chat_id: str
    conversation_id: str | None = None
    status: str
    status_meta: dict[str, Any] | None = None
    updated_at: int  # epoch milliseconds


class AgentRunCancelRequestedPayload(Payload):
    """A user asked to stop an agent's run; only runs begun before ``requested_at`` are meant."""

    instance_id: str
    chat_id: str
    thread_id: str | None = None
    requested_by: str | None = None
    requested_at: int | None = None  # epoch milliseconds
    reason: str


class AgentTaskCreatedPayload(Payload):
    """A task was given to an agent."""

    task_id: str
    agent_id: str
    chat_id: str
    conversation_id: str | None = None
    type: str
    title: str
    status: str


class AgentTaskUpdatedPayload(Payload):
    """An agent's task went on."""

    task_id: str
    agent_id: str
    chat_id: str
    status: str
    progress: float


class AgentTaskCompletedPayload(Payload):
    """An agent's task is done."""

    task_id: str
    agent_id: str
    chat_id: str
    result: dict[str, Any] | None = None


class AgentTaskFailedPayload(Payload):
    """An agent's task failed."""

    task_id: str
    agent_id: str
    chat_id: str
    error: str


class AgentTaskCancelledPayload(Payload):
    """An agent's task was cancelled."""

    task_id: str
    agent_id: str
    chat_id: str


class SessionResetPayload(Payload):
    """A session of an instance starts over."""

    instance_id: str
    session_id: str
    timestamp: int  # epoch milliseconds


class ConversationCreatedPayload(Payload):
    """A conversation began."""

    conversation_id: str
    title: str | None = None


class ConversationUpdatedPayload(ConversationCreatedPayload):
    """A conversation has another title."""


class ConversationDeletedPayload(Payload):
    """A conversation was deleted."""

    conversation_id: str


AgentStateChangedEvent = Event[AgentStateChangedPayload]
AgentRunCancelRequestedEvent = Event[AgentRunCancelRequestedPayload]
AgentTaskCreatedEvent = Event[AgentTaskCreatedPayload]
AgentTaskUpdatedEvent = Event[AgentTaskUpdatedPayload]
AgentTaskCompletedEvent = Event[AgentTaskCompletedPayload]
AgentTaskFailedEvent = Event[AgentTaskFailedPayload]
AgentTaskCancelledEvent = Event[AgentTaskCancelledPayload]
SessionResetEvent = Event[SessionResetPayload]
ConversationCreatedEvent = Event[ConversationCreatedPayload]
ConversationUpdatedEvent = Event[ConversationUpdatedPayload]
ConversationDeletedEvent = Event[ConversationDeletedPayload]

AgentStateChangedHandler = Callable[[AgentStateChangedEvent], Awaitable[None]]
AgentRunCancelRequestedHandler = Callable[[AgentRunCancelRequestedEvent], Awaitable[None]]
AgentTaskCreatedHandler = Callable[[AgentTaskCreatedEvent], Awaitable[None]]
AgentTaskUpdatedHandler = Callable[[AgentTaskUpdatedEvent], Awaitable[None]]
AgentTaskCompletedHandler = Callable[[AgentTaskCompletedEvent], Awaitable[None]]
AgentTaskFailedHandler = Callable[[AgentTaskFailedEvent], Awaitable[None]]
AgentTaskCancelledHandler = Callable[[AgentTaskCancelledEvent], Awaitable[None]]
SessionResetHandler = Callable[[SessionResetEvent], Awaitable[None]]
ConversationCreatedHandler = Callable[[ConversationCreatedEvent], Awaitable[None]]
ConversationUpdatedHandler = Callable[[ConversationUpdatedEvent], Awaitable[None]]
ConversationDeletedHandler = Callable[[ConversationDeletedEvent], Awaitable[None]]
