"""Names of span attributes: those of OpenTelemetry's messaging conventions, and ours."""

from __future__ import annotations

from typing import Final

SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.template"  # the type or pattern, never a subject
GROUP: Final = "messaging.consumer.group.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION: Final = "messaging.message.conversation_id"
COUNT: Final = "messaging.batch.message_count"
BODY_SIZE: Final = "messaging.message.body.size"
ERROR_TYPE: Final = "error.type"
EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

APP: Final = "omni_worker.app"
HANDLER: Final = "omni_worker.handler"
ATTEMPT: Final = "omni_worker.attempt"
ATTEMPTS: Final = "omni_worker.attempts"
STREAM: Final = "omni_worker.stream"
SEQUENCE: Final = "omni_worker.sequence"
OUTCOME: Final = "omni_worker.outcome"
DUPLICATE: Final = "omni_worker.duplicate"
AFTER: Final = "omni_worker.after"
LETTER: Final = "omni_worker.dead_letter.id"
RETRY_OF: Final = "omni_worker.retry_of"

NATS: Final = "nats"
