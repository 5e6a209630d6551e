"""HTTP/1.1 as the status page speaks it (RFC 9112), by h11: bytes in, requests; answers, bytes out. No I/O.

Only what reads is served: a request has no body, so that there is nothing to be stored for anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

import h11

LONGEST_HEAD = 8192
"""Bytes of a request's line and headers together; a browser sends about one thousand."""
METHODS = (b"GET", b"HEAD")

HEADERS = (
    # Nothing of it may be framed, sniffed, kept, told to others or read by them; scripts are ours alone, and none is
    # inline (CSP level 3). Fetched from elsewhere the answer is nobody's (Fetch, "cross-origin resource policy").
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request. path and query as they were sent; headers by lower-case name."""

    method: bytes
    path: bytes
    query: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)

    def header(self, name: bytes) -> str:
        """ "" where it is missing."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, whole. close: the connection ends with it."""

    status: int
    body: bytes
    type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


def refusal(status: int, text: str, *headers: tuple[str, str], close: bool = False) -> Response:
    """What is wrong, as a line of text for whoever made the request."""
    return Response(status, f"{status} {HTTPStatus(status).phrase}: {text}\n".encode(), headers=headers, close=close)


class RequestError(ValueError):
    """What came is no request that could be answered: caught by the connection, which sends ``response`` and ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = refusal(status, text, close=True)


class Conversation:
    """One connection. ``feed`` what came, ask for ``request()``, send what ``answer`` returns, and again."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self._head_only = False
        self.begun = False
        """Whether part of a request is here."""

    def feed(self, data: bytes) -> None:
        """b"" where the other end has closed."""
        self.begun = self.begun or bool(data)
        self._http.receive_data(data)

    @property
    def over(self) -> bool:
        """Whether the connection has to end once all that was answered is sent."""
        return self._http.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)

    def request(self) -> Request | None:
        """The next request, once all of it is here. Raises RequestError."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status == 431:
                raise RequestError(431, f"a request's line and headers have at most {LONGEST_HEAD} bytes") from None
            # 501 is h11's hint for a transfer coding that it does not know.
            raise RequestError(status if status in (400, 501) else 400, f"not HTTP/1.1 ({error})") from None
        if not isinstance(event, h11.Request):
            return None
        self._head_only = event.method == b"HEAD"
        if type(self._http.next_event()) is not h11.EndOfMessage:
            raise RequestError(413, "nothing here takes a body")
        self.begun = False
        path, _, query = event.target.partition(b"?")
        return Request(event.method, path, query, dict(event.headers))

    def answer(self, response: Response) -> bytes:
        """The bytes of an answer. b"" where none may be sent any more."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        data = self._head(response, ("Content-Length", str(len(response.body))))
        if response.body and not self._head_only:
            data += self._send(h11.Data(response.body))
        data += self._send(h11.EndOfMessage())
        if self._http.states == {h11.SERVER: h11.DONE, h11.CLIENT: h11.DONE}:
            self._http.start_next_cycle()
            self.begun = bool(self._http.trailing_data[0])
        return data

    def begin(self, response: Response) -> bytes:
        """The head of an answer whose end is open; ``response.body`` is its first part."""
        return self._head(response) + self.part(response.body)

    def part(self, data: bytes) -> bytes:
        """One more part of an open answer, framed as this connection's version of HTTP wants it."""
        return self._send(h11.Data(data))

    def _head(self, response: Response, *headers: tuple[str, str]) -> bytes:
        said = [("Content-Type", response.type), *headers, *HEADERS, *response.headers]
        if response.close:
            said.append(("Connection", "close"))
        return self._send(h11.Response(status_code=response.status, headers=said, reason=_phrase(response.status)))

    def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        return self._http.send(event) or b""


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()
