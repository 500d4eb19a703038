"""Who may ask the server for what: host names, origins, the token, the size of requests, and what a page may load."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "stylize_token"
SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Place:
    """Where the server listens: an address, a port, and further names that it answers to.

    Beyond this machine, a token is asked for.
    """

    address: str
    port: int
    names: tuple[str, ...] = ()
    token: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", "" if is_loopback(self.address) else secrets.token_urlsafe(18))

    @property
    def hosts(self) -> frozenset[str]:
        """The host names and addresses of requests that are answered, in lower case."""
        local = {"127.0.0.1", "localhost", "::1"}
        if self.token:
            local |= {socket.gethostname().lower(), *_addresses()}
        return frozenset({*local, self.address.lower(), *(name.lower() for name in self.names)})

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        shown = self.address
        if shown in ("0.0.0.0", "::", ""):  # noqa: S104, compared
            shown = next(iter(_addresses()), "127.0.0.1")
        if ":" in shown:
            shown = f"[{shown}]"
        return f"http://{shown}:{self.port}/" + (f"?{urlencode({'token': self.token})}" if self.token else "")


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _addresses() -> Iterator[str]:
    """The addresses of this machine in its networks; nothing is sent to find them out."""
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((outside, 9))
                yield probe.getsockname()[0]
        except OSError:
            continue


class Guard:
    """Refuses requests for other hosts, from other sites, or without the token, and adds headers to all answers."""

    def __init__(self, app: ASGIApp, place: Place, largest: int) -> None:
        self._app, self._place, self._largest = app, place, largest
        self._hosts = place.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that is not let through."""
        if _host_of(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("this server does not answer to that host name; see --allow-host", 421)
        if not self._is_from_here(scope["method"], headers):
            return PlainTextResponse("requests from other sites are refused", 403)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._largest:
            return PlainTextResponse(f"too large: at most {self._largest // 10**6} MB", 413)
        return self._without_token(scope, headers) if self._place.token else None

    def _is_from_here(self, method: str, headers: Headers) -> bool:
        """Whether a request comes from the page itself, is typed in, or does nothing but open the page."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if site is not None and site not in ("same-origin", "none") and not (opens and method in SAFE):
            return False
        if origin is None:
            return True
        return urlsplit(origin).netloc == headers.get("host", "") and urlsplit(origin).scheme in ("http", "https")

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and self._matches(given):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        if self._matches(_cookie(headers.get("cookie", ""))):
            return None
        return PlainTextResponse("open the address that the server printed, with its token", 401)

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._place.token.encode())


def _host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
