"""Whatever comes to the status page, it is answered or refused, and never more than that."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from agent.page_guard import Guard
from agent.page_http import Conversation, Request, RequestError, Response

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"HEAD /api/status?token=x&a=%ff HTTP/1.1\r\n",
        b"CONNECT a:80 HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"GET / HTTP/2.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"Host: [::1]:80\r\n",
        b"Host:\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X: \xff\xfe\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"0\r\n\r\n",
        b"hello",
    ]
)
BYTES = st.lists(LINES | st.binary(max_size=12), max_size=14).map(b"".join)


@given(BYTES, st.lists(st.integers(1, 60), max_size=12))
def test_any_bytes_in_any_pieces_are_answered_or_refused(data: bytes, cuts: list[int]) -> None:
    conversation = Conversation()
    answers = b""
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    for piece in [*filter(None, [*pieces, data]), b""]:
        conversation.feed(piece)
        try:
            while not conversation.over and (request := conversation.request()) is not None:
                assert set(request.headers) == {name.lower() for name in request.headers}
                said = Guard((), b"0123456789abcdef").judge(request) or Response(200, b"fine")
                answers += conversation.answer(said)
        except RequestError as error:
            answers += conversation.answer(error.response)
            assert conversation.over
        if conversation.over:
            break
    assert not answers or re.match(rb"HTTP/1\.1 (200|303|400|401|403|405|413|421|431|501) ", answers)


@given(
    st.sampled_from([b"GET", b"HEAD"]),
    st.binary(max_size=30).map(lambda path: b"/" + path),
    st.binary(max_size=60) | st.lists(st.sampled_from([b"token=x", b"&", b"=", b"%", b"%zz", b";"])).map(b"".join),
    st.dictionaries(
        st.sampled_from([b"host", b"origin", b"cookie", b"authorization", b"sec-fetch-site", b"sec-fetch-mode"]),
        st.binary(max_size=40),
    ),
)
def test_nobody_gets_in_without_the_token(
    method: bytes, path: bytes, query: bytes, headers: dict[bytes, bytes]
) -> None:
    said = Guard((), b"0123456789abcdef").judge(Request(method, path, query, {b"host": b"localhost", **headers}))
    assert path in (b"/healthz", b"/page.css", b"/icon.svg") or (said is not None and said.status in (401, 403, 421))
