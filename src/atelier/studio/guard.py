"""The door of the HTTP interface: who may come in, how much may be sent, and how errors are numbered."""

from __future__ import annotations

import asyncio
import contextlib
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
#: The longest address that is read, in bytes.
_ADDRESS = 8192
#: Seconds in which the rest of a refused request is read and thrown away.
_LINGER = 1.0


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
            body = _Body(receive, self.limits.request_bytes)
            await self.app(scope, body.receive, _hardened(body.after(send)))

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
        if len(scope["path"]) + len(scope.get("query_string", b"")) > _ADDRESS:
            return 414, f"the address has more than {_ADDRESS:,} letters: send what is longer in a form"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18:
            return 400, "the header Content-Length is not a number"
        if int(length) > self.limits.request_bytes:
            return 413, too_long(self.limits.request_bytes)
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


class _Body:
    """The body of a request: counted, and read to its end before a refusal ends the connection.

    A client that still sends when the connection closes never reads the answer.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._count, self._ended = 0, False

    async def receive(self) -> Message:
        """The next part. Raises TooLargeError when more comes than is allowed."""
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._ended = self._ended or not message.get("more_body", False)
        if self._count > self._most:
            raise TooLargeError(too_long(self._most))
        return message

    def after(self, send: Send) -> Send:
        """`send`, which reads on for a moment before the last part of a refusal."""
        refused = False

        async def sent(message: Message) -> None:
            nonlocal refused
            refused = refused or message.get("status", 0) >= 400
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (refused and last) or self._ended:
                await send(message)
                return
            await send({**message, "more_body": True})
            await self._drained()
            await send({"type": "http.response.body", "body": b""})

        return sent

    async def _drained(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while not self._ended:
                    message = await self._receive()
                    self._ended = not message.get("more_body", False)


def too_long(most: int) -> str:
    """The sentence for a request of more than `most` bytes."""
    return (
        f"the request is longer than the limit of this studio ({most / 2**20:,.0f} MiB): send less at a time"
    )


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
