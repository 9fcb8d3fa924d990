"""Certificates and keys for tests, made on the spot: a TLS authority, an operator, an account."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nkeys
import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of an authority, of a server certified by it, and of a client certified by it."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


def make_certificates(folder: Path, *names: str, not_after: datetime | None = None) -> Certificates:
    """A new authority, and a server certificate for exactly these names, good until then."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        *(folder / name for name in ("ca.pem", "cert.pem", "key.pem", "client.pem", "client.key"))
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(made.ca))
    server = authority.issue_cert(*names, not_after=not_after)
    server.private_key_pem.write_to_path(str(made.key))
    server.cert_chain_pems[0].write_to_path(str(made.cert))
    client = authority.issue_cert("worker@example.org", common_name="worker")
    client.private_key_pem.write_to_path(str(made.client_key))
    client.cert_chain_pems[0].write_to_path(str(made.client_cert))
    return made


@dataclass(frozen=True, slots=True)
class Key:
    """One nkey: the seed that signs and the name others know it by."""

    seed: bytes
    name: str


def make_key(kind: int) -> Key:
    """A new nkey of this kind (nkeys.PREFIX_BYTE_…)."""
    seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
    return Key(seed, nkeys.from_seed(bytearray(seed)).public_key.decode())


def make_creds(folder: Path, *, expires_in: float | None = None) -> tuple[Path, str]:
    """A creds file, and the server configuration whose operator trusts its account.

    The user's token is good for ``expires_in`` seconds, which may be over already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    operator = make_key(nkeys.PREFIX_BYTE_OPERATOR)
    system = make_key(nkeys.PREFIX_BYTE_ACCOUNT)
    account = make_key(nkeys.PREFIX_BYTE_ACCOUNT)
    user = make_key(nkeys.PREFIX_BYTE_USER)
    unlimited = {name: -1 for name in ("subs", "data", "payload", "imports", "exports", "conn")}
    free = {name: -1 for name in ("subs", "data", "payload")}
    stores = {name: -1 for name in ("mem_storage", "disk_storage", "streams", "consumer")}

    def account_jwt(key: Key, **limits: Any) -> str:
        return _jwt(operator, key, {"type": "account", "limits": {**unlimited, **limits}})

    creds = folder / "worker.creds"
    token = _jwt(account, user, {"type": "user", **free}, expires_in)
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n"
        "------END USER NKEY SEED------\n"
    )
    config = "\n".join(
        [
            f"operator: {_jwt(operator, operator, {'type': 'operator'})}",
            f"system_account: {system.name}",
            "resolver: MEMORY",
            "resolver_preload: {",
            f"  {system.name}: {account_jwt(system)}",
            f"  {account.name}: {account_jwt(account, **stores)}",
            "}",
        ]
    )
    return creds, config


def _jwt(issuer: Key, subject: Key, nats: dict[str, Any], expires_in: float | None = None) -> str:
    claims: dict[str, Any] = {
        "iat": int(time.time()), "iss": issuer.name, "name": nats["type"], "sub": subject.name,
        "nats": {**nats, "version": 2},
    }  # fmt: skip
    if expires_in is not None:
        claims["exp"] = int(time.time() + expires_in)
    digest = hashlib.sha256(json.dumps(claims).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_encode({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encode(claims)}"
    signature = nkeys.from_seed(bytearray(issuer.seed)).sign(signed.encode())
    return f"{signed}.{_base64(bytes(signature))}"


def _encode(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
