"""Masking: text from elsewhere made short and free of secrets, before anybody reads or keeps it.

Pure. Every expression here takes a time that grows with the text's length, not with its square.
"""

from __future__ import annotations

import re

MASK = "***"

# Up to a blank or a slash: the last `@` ends the login, since passwords may hold one.
_URL = re.compile(r"(?<=\w://)[^\s/@]*+@[^\s/]*+")
# A password with a bare slash. A number after the colon is a port, and no password.
_SLASHED = re.compile(r"(?<=\w://)[^\s/:@]*+:(?!\d+[/\s])[^\s@\"']{1,256}+@")
_SEED = re.compile(r"(?<![A-Z0-9])S[ACNOUX][A-Z2-7]{40,}+")  # of an nkey, also a damaged one
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?")
_BLOCK = re.compile(
    r"(-----BEGIN [A-Z ]{0,40}(?:KEY|SEED|JWT)-{5,6}).*?(?=-{5,6}END|\Z)", re.DOTALL
)
_NAMED = re.compile(
    # password=…, api_key='…', "token": "…"; a bare colon is prose: `token: expected a string`
    r"((?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key)"
    r"(?: ?= ?|\\?[\"']: ?))"
    r"(?:\\?\"[^\"\n]{0,256}+\"|'[^'\n]{0,256}+'|[^\s\"'&,;)}\]]++)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"((?:authorization|x-api-key)[\"']?(?:: ?|, ?|=)(?:b?[\"'])?(?:(?:bearer|basic) )?)"
    r"[^\s\"',;)}\]]++",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:^|.*[_.-])(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|authorization)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Mask logins in URLs, keys, seeds, and values that are named a password or a token."""
    if "://" in text:
        text = _SLASHED.sub(f"{MASK}@", text)
        text = _URL.sub(_without_login, text)
    if "-----BEGIN" in text:
        text = _BLOCK.sub(rf"\1{MASK}", text)
    text = _SEED.sub(MASK, text)
    if "eyJ" in text:
        text = _JWT.sub(MASK, text)
    if "=" in text or ":" in text or "," in text:
        text = _NAMED.sub(rf"\1{MASK}", text)
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    return text


def is_secret(name: str) -> bool:
    """Tell whether a field of this name holds a secret: ``token``, ``db_password``."""
    return len(name) <= 128 and _NAME.fullmatch(name) is not None


def bounded(text: str, longest: int, *, end: bool = True) -> str:
    """Return at most ``longest`` characters, without secrets; half of them are of the end.

    Without ``end`` only the beginning is kept.
    """
    if len(text) <= longest:
        return without_secrets(text)[:longest]
    # Masked with what is around it: a secret that is cut in two could not be seen as one.
    if not end:
        return without_secrets(text[: 2 * longest])[: longest - 1] + "…"
    half = (longest - 3) // 2
    first, last = without_secrets(text[:longest])[:half], without_secrets(text[-longest:])[-half:]
    return f"{first}\n…\n{last}"


def _without_login(found: re.Match[str]) -> str:
    return f"{MASK}@{found[0].rpartition('@')[2]}"
