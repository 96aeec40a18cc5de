"""The door of the HTTP interface: who may come in, how much may be sent, and how errors are numbered."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from atelier.core.errors import (
    AtelierError,
    Cancelled,
    InputError,
    OutputError,
    ResourceError,
    TrainingError,
    UsageError,
    WeightsError,
)
from atelier.studio.limits import BusyError, Limits, NotHereError, TooLargeError, WrongKindError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

#: The cookie that holds the token for a browser.
COOKIE = "atelier_token"


class SlowError(InputError):
    """An upload that takes longer than the limit."""


class UnreadableError(InputError):
    """A request that is not what its headers say."""


#: The status of each error; the first class that fits counts.
_STATUS: tuple[tuple[type[AtelierError], int], ...] = (
    (TooLargeError, 413),
    (WrongKindError, 415),
    (NotHereError, 404),
    (BusyError, 429),
    (SlowError, 408),
    (UnreadableError, 400),
    (UsageError, 422),
    (InputError, 422),
    (WeightsError, 424),
    (ResourceError, 424),
    (TrainingError, 409),
    (Cancelled, 409),
    (OutputError, 507),
)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 500 for one that is not a user's.

    >>> status_of(UsageError("strength = 2 is not allowed")), status_of(KeyError("x"))
    (422, 500)
    """
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def is_loopback(host: str) -> bool:
    """Whether a server at this address can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Checks each request before it is read, for the page's routes too.

    Without a token the server is for this machine: the Host header must be a loopback address, so that no
    web site can reach it by a name of its own (DNS rebinding). With one, every request needs it, as
    `Authorization: Bearer TOKEN`, as a cookie, or once as `?token=TOKEN`, which sets the cookie. Requests
    that change something must not come from another site's page. Bodies longer than the limit are cut off.
    """

    def __init__(self, app: App, *, limits: Limits, token: str, host: str) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.local = is_loopback(host)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer or pass on a request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if refusal := self._refusal(scope, headers):
            await _answer(scope, send, *refusal)
        elif address := self._entered(scope):
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(scope, send, 303, "come in", {"location": address, "set-cookie": cookie})
        else:
            await self.app(scope, self._counted(receive), _hardened(send))

    def _refusal(self, scope: Message, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.token and not self._knows(scope, headers):
            return (
                401,
                "this studio asks for a token: send 'Authorization: Bearer TOKEN', or open /?token=TOKEN",
            )
        if not self.token and self.local and not is_loopback(_name(host)):
            return 403, "this studio answers at 127.0.0.1 and localhost only: use that address"
        origin = headers.get("origin")
        if origin and scope.get("method") not in ("GET", "HEAD") and urlsplit(origin).netloc != host:
            return 403, "requests from the pages of other sites are refused"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18:
            return 400, "the header Content-Length is not a number"
        if int(length) > self.limits.request_bytes:
            return 413, self._too_long()
        return None

    def _knows(self, scope: Message, headers: MutableMapping[str, str]) -> bool:
        """Whether the request has the token. Compared in constant time: parts of it tell nothing."""
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        offered = (bearer, cookies.get(COOKIE, ""), _query(scope).get("token", [""])[0])
        mine = self.token.encode()
        return any(hmac.compare_digest(mine, one.encode("utf-8", "replace")) for one in offered)

    def _entered(self, scope: Message) -> str:
        """The address to go to from a page's address with the token in it; empty for other requests."""
        path, query = str(scope["path"]), _query(scope)
        if scope.get("method") != "GET" or "token" not in query or path.startswith("/api/") or not self.token:
            return ""
        rest = urlencode([(k, one) for k, values in query.items() if k != "token" for one in values])
        return "/" + path.lstrip("/\\") + (f"?{rest}" if rest else "")

    def _counted(self, receive: Receive) -> Receive:
        """`receive`, which stops when more comes than is allowed."""
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.limits.request_bytes:
                raise TooLargeError(self._too_long())
            return message

        return counted

    def _too_long(self) -> str:
        most = self.limits.request_bytes / 2**20
        return f"the request is longer than the limit of this studio ({most:,.0f} MiB): send less at a time"


def _name(host: str) -> str:
    """The name in a Host header, without port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _query(scope: Message) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=None)


def _hardened(send: Send) -> Send:
    """`send` with headers that keep browsers from guessing types and from telling addresses."""

    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
            message["headers"] = [*message.get("headers", []), *more]
        await send(message)

    return hardened


async def _answer(
    scope: Message, send: Send, status: int, text: str, headers: MutableMapping[str, str] | None = None
) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text[:100]})
        return
    body = json.dumps({"error": text} if status >= 400 else {"go": text}).encode()
    if scope.get("method") == "HEAD":
        body = b""
    more = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    pairs = [(key.encode("latin-1"), value.encode("latin-1", "replace")) for key, value in more.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
