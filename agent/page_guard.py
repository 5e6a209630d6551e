"""Who may see the status page: by method, by the name that was called, by where the request comes from, by the token.

A page on 127.0.0.1 is open to every web site that its user visits, unless it looks at three things: the Host (a name
that an attacker points at 127.0.0.1, "DNS rebinding"), the Origin and Sec-Fetch-Site (a script or an image of another
site; Fetch Metadata Request Headers, W3C), and that nothing here changes anything.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_plus

from agent.page_http import METHODS, Request, Response, refusal

COOKIE = "outstation"
COOKIE_SECONDS = 30 * 86_400
SHORTEST_TOKEN = 16
LONGEST_TOKEN = 512
OPEN = b"/healthz"
"""Asked by container engines and load balancers, which know no token: it says ok or not, and nothing else."""
FOR_ALL = (OPEN, b"/page.css", b"/icon.svg")
"""Without the token: the form that asks for it looks like the page."""


def read_token(path: Path) -> tuple[bytes, bool]:
    """The token, and whether everyone may read its file. Raises OSError, and ValueError where it is no token."""
    with path.open("rb") as file:
        public = bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH)
        token = file.read(LONGEST_TOKEN + 2).strip()
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN or not re.fullmatch(rb"[!-~]+", token):
        raise ValueError(
            f"a token is {SHORTEST_TOKEN} to {LONGEST_TOKEN} printable ASCII characters without blanks, "
            "as `openssl rand -hex 16` makes one"
        )
    return token, public


def host_name(header: str) -> str | None:
    """The name in a Host header (RFC 9110, section 7.2), in lower case, without port and brackets; None: not one."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?", header)
    return (match[1] or match[2]).lower().rstrip(".") if match else None


class Guard:
    """Judges requests. hosts: names beside localhost; token: None lets everyone in who comes by a right name."""

    def __init__(self, hosts: Iterable[str], token: bytes | None) -> None:
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._token = token
        # What the browser keeps opens the page as long as the token is the same, and does not tell it.
        self._pass = hmac.new(token, b"outstation page cookie", hashlib.sha256).hexdigest() if token else ""

    def judge(self, request: Request) -> Response | None:
        """What is to be said instead of an answer; None: answer it."""
        if request.method not in METHODS:
            return refusal(405, "nothing here can be changed: use GET or HEAD", ("Allow", "GET, HEAD"))
        if not request.path.startswith(b"/"):
            return refusal(400, "this is no proxy: a request names a path, as GET / HTTP/1.1")
        if not self._known(request.header(b"host")):
            return refusal(
                421, "this machine is not called so; call it by its IP address or name, or add the name to page.hosts"
            )
        if self._foreign(request):
            return refusal(403, "another site asks for this; open the page by its own address")
        if self._token is None or request.path in FOR_ALL or self._knows(request):
            return None
        return self._exchanged(request)

    def _known(self, header: str) -> bool:
        name = host_name(header)
        if name is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True  # nobody can point an address elsewhere

    def _foreign(self, request: Request) -> bool:
        origin = request.header(b"origin")
        if origin and origin.partition("://")[2] != request.header(b"host"):
            return True
        # "same-site" is another port of this machine, too: somebody else's program.
        if request.header(b"sec-fetch-site") in ("", "same-origin", "none"):
            return False
        followed = request.header(b"sec-fetch-mode") == "navigate" and request.header(b"sec-fetch-dest") == "document"
        return not followed  # a link from elsewhere may lead here: who follows it sees the page, the other site nothing

    def _knows(self, request: Request) -> bool:
        scheme, _, bearer = request.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        cookies = (part.strip().partition("=") for part in request.header(b"cookie").split(";"))
        return any(name == COOKIE and _same(value, self._pass) for name, _, value in cookies)

    def _is_token(self, said: str) -> bool:
        return self._token is not None and _same(said, self._token.decode())

    def _exchanged(self, request: Request) -> Response:
        """The token in the address, once, for a cookie, so that it stands in no address any more; else a form."""
        if request.path != b"/":
            return refusal(401, "send the token: Authorization: Bearer TOKEN", ("WWW-Authenticate", "Bearer"))
        match = re.search(rb"(?:^|&)token=([^&]*)", request.query)
        if match and self._is_token(unquote_plus(match[1].decode("latin-1"))):
            cookie = f"{COOKIE}={self._pass}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
            return Response(303, b"", headers=(("Location", "/"), ("Set-Cookie", cookie)))
        page = FORM.replace(b"{note}", b"That is not the token." if match else b"")
        return Response(401, page, "text/html; charset=utf-8", (("WWW-Authenticate", "Bearer"),))


def _same(said: str, right: str) -> bool:
    """In a time that tells nothing of how much of it was right, nor of its length."""
    first, second = (hashlib.sha256(text.encode("latin-1", "replace")).digest() for text in (said, right))
    return hmac.compare_digest(first, second)


FORM = (Path(__file__).with_name("page_assets") / "token.html").read_bytes()
