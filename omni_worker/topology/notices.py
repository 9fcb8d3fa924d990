"""Notices: remarks about a consumer that is used, or changed, as it was found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class NoticeKind(StrEnum):
    """Kind of a notice."""

    STARTED_ELSEWHERE = "started elsewhere"  # start_from counts only for a new consumer
    FILTERS_KEPT = "filters kept"
    ACK_WAIT_KEPT = "ack_wait kept"
    GROUP_KEPT = "group kept"
    MAX_DELIVER_KEPT = "max_deliver kept"
    UPDATED = "updated"


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark about one consumer; ``says`` continues a sentence that names the consumer."""

    kind: NoticeKind
    says: str
