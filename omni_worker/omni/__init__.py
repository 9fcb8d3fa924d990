"""Omni's HTTP API: what a handler answers with, text, media, reactions (`omni-worker[omni]`).

``client`` is what handlers call, ``sender`` makes one request with its tries, ``answers`` reads
what comes back, ``memory`` keeps a second run from sending again, ``fake`` stands in for tests.
"""

from ..errors import ConfigError

try:
    import httpx as _httpx  # noqa: F401  # the error names the extra, before any file needs it
except ImportError as error:
    raise ConfigError("sending by Omni needs httpx: pip install 'omni-worker[omni]'") from error

from .bodies import Mention
from .client import Omni
from .errors import NotOmni, OmniBusy, OmniError, OmniKeyRefused, OmniRefused, OmniUnavailable
from .fake import FakeOmni, Posted
from .memory import Sent

__all__ = [
    "FakeOmni",
    "Mention",
    "NotOmni",
    "Omni",
    "OmniBusy",
    "OmniError",
    "OmniKeyRefused",
    "OmniRefused",
    "OmniUnavailable",
    "Posted",
    "Sent",
]
