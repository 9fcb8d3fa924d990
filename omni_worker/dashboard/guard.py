"""Guard: stands before every page; a request it refuses reaches none of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access, Refused, host_refused, method_refused, token_for, user_of

log = logging.getLogger("omni_worker.dashboard")

COOKIE = "omni-worker-dashboard"
WRONG = 0.5  # seconds that a wrong login waits for its answer
MAX_FORM = 256 * 1024  # bytes

# No script but our own files, no style but our own file, no other site in any way.
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
    "connect-src 'self'", "manifest-src 'self'", "form-action 'self'", "base-uri 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware: host, login, read-only, same origin, and the headers of every answer."""

    def __init__(self, app: ASGIApp, access: Access, secret: bytes) -> None:
        self._app = app
        self._access = access
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._judge(scope, headers)
        session = _session_of(headers)
        is_new = not session and self._access.allow_actions
        if is_new:
            session = secrets.token_urlsafe(24)
        scope["omni_session"] = session
        scope["omni_base"] = scope.get("root_path", "").rstrip("/")
        scope["omni_token"] = token_for(self._secret, session) if session else ""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given[name] = value
                given.setdefault("cache-control", "no-store")
                if is_new and refused is None:
                    given.append("set-cookie", _cookie(session, scope))
            await send(message)

        if refused is not None and refused.status == 401 and "authorization" in headers:
            await asyncio.sleep(WRONG)
        if refused is not None:
            response = PlainTextResponse(
                refused.text + "\n", refused.status, headers=dict(refused.headers)
            )
            await response(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    def _judge(self, scope: Scope, headers: Headers) -> Refused | None:
        if refused := host_refused(headers.get("host", ""), self._access):
            return refused
        peer = (scope.get("client") or ("", 0))[0]
        user = user_of(headers, peer, self._access)
        if isinstance(user, Refused):
            return user
        scope["omni_user"] = user
        if refused := method_refused(scope["method"], headers, self._access):
            log.warning("refused a %s to %r from %s", scope["method"], scope["path"], peer)
        return refused


def _session_of(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value[:64] if found is not None else ""


def _cookie(session: str, scope: Scope) -> str:
    path = scope.get("root_path") or "/"
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{COOKIE}={session}; Path={path}; HttpOnly; SameSite=Strict{secure}"
