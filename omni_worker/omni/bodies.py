"""Bodies: what each request of Omni's API holds, from arguments in Python. Pure."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError

MediaKind = Literal["image", "audio", "video", "document"]
Presence = Literal["typing", "recording", "paused"]
MOST_READ = 100  # message ids in one request


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention in a text: of a user by id, of a role or channel, of ``everyone`` or ``here``."""

    id: str
    type: Literal["user", "role", "channel", "everyone", "here"] = "user"


def text_body(
    to: str, text: str, reply_to: str | None, mentions: Iterable[Mention]
) -> dict[str, Any]:
    """Return the body of `/messages/send`."""
    named = [{"id": one.id, "type": one.type} for one in mentions]
    return _without_none({
        "to": to, "text": text, "replyTo": reply_to, "mentions": named or None,
    })  # fmt: skip


def media_body(
    to: str,
    kind: MediaKind,
    *,
    url: str | None,
    data: bytes | None,
    filename: str | None,
    caption: str | None,
    voice_note: bool,
) -> dict[str, Any]:
    """Return the body of `/messages/send/media`. Raises ConfigError for none or both of two."""
    if (url is None) == (data is None):
        raise ConfigError("send_media: give url= (Omni fetches it) or data= (the bytes), not both")
    return _without_none({
        "to": to, "type": kind, "url": url,
        "base64": None if data is None else base64.b64encode(data).decode("ascii"),
        "filename": filename, "caption": caption, "voiceNote": True if voice_note else None,
    })  # fmt: skip


def presence_body(to: str, presence: Presence, seconds: float) -> dict[str, Any]:
    """Return the body of `/messages/send/presence`, which counts in milliseconds."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError(f"send_presence(seconds={seconds!r}): expected seconds, zero or more")
    return {"to": to, "type": presence, "duration": round(seconds * 1_000)}


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}
