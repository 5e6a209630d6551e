"""HTTP without a socket, and who is let in: bytes and requests in, answers out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.page_guard import COOKIE, Guard, host_name, read_token
from agent.page_http import LONGEST_HEAD, Conversation, Request, RequestError, Response

TOKEN = b"0123456789abcdef"


def asked(data: bytes) -> Request:
    conversation = Conversation()
    conversation.feed(data)
    request = conversation.request()
    assert request is not None
    return request


def test_a_request_may_come_octet_by_octet_and_two_at_once() -> None:
    one = b"GET /a?b=c HTTP/1.1\r\nHost: here\r\nX: y\r\n\r\n"
    conversation = Conversation()
    for octet in one[:-1]:
        conversation.feed(bytes([octet]))
        assert conversation.request() is None
        assert conversation.begun
    conversation.feed(one[-1:] + one)
    request = conversation.request()
    assert request == Request(b"GET", b"/a", b"b=c", {b"host": b"here", b"x": b"y"})
    assert b"200 OK" in conversation.answer(Response(200, b"x"))
    assert conversation.begun, "the second one is here already"
    assert conversation.request() == request
    conversation.answer(Response(200, b"x"))
    assert not conversation.begun
    assert not conversation.over


def test_an_answer_says_its_length_and_what_a_browser_may_not_do() -> None:
    conversation = Conversation()
    conversation.feed(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    conversation.request()
    head, _, body = conversation.answer(Response(200, b"body", "text/html")).partition(b"\r\n\r\n")
    assert body == b"body"
    assert b"Content-Length: 4" in head
    assert b"default-src 'none'" in head
    assert b"unsafe-inline" not in head
    assert b"Access-Control" not in head


def test_head_gets_the_head_alone() -> None:
    conversation = Conversation()
    conversation.feed(b"HEAD / HTTP/1.1\r\nHost: here\r\n\r\n")
    conversation.request()
    head, _, body = conversation.answer(Response(200, b"body")).partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert body == b""


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"nonsense\r\n\r\n", 400, "not HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "not HTTP/1.1"),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400, "header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Content-Length"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n", 413, "no"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413, "body"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * LONGEST_HEAD, 431, str(LONGEST_HEAD)),
        (b"GET /" + b"x" * LONGEST_HEAD + b" HTTP/1.1\r\n", 431, str(LONGEST_HEAD)),
    ],
)
def test_what_is_no_request_is_told_why_and_the_connection_ends(data: bytes, status: int, text: str) -> None:
    conversation = Conversation()
    conversation.feed(data)
    with pytest.raises(RequestError) as caught:
        conversation.request()
    assert caught.value.response.status == status
    assert text in caught.value.response.body.decode()
    answer = conversation.answer(caught.value.response)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer
    assert conversation.over


def test_a_stream_is_chunked_and_for_http_1_0_just_open() -> None:
    for version, part in ((b"1.1", b"2\r\nhi\r\n"), (b"1.0", b"hi")):
        conversation = Conversation()
        conversation.feed(b"GET / HTTP/" + version + b"\r\nHost: here\r\n\r\n")
        conversation.request()
        conversation.begin(Response(200, b"first", close=True))
        assert conversation.part(b"hi") == part


# ---- the guard


def get(path: bytes = b"/", method: bytes = b"GET", query: bytes = b"", **headers: str) -> Request:
    said = {"host": "127.0.0.1:8080", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Request(method, path, query, {name.encode(): value.encode() for name, value in said.items() if value})


def judged(request: Request, token: bytes | None = None) -> int:
    response = Guard(["Greenhouse-1", "greenhouse-1.local"], token).judge(request)
    return response.status if response else 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("192.168.1.7", 200),  # nobody can make an address mean another
        ("localhost:80", 200),
        ("LOCALHOST", 200),
        ("greenhouse-1:8080", 200),
        ("greenhouse-1.local.", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[::1]evil", 421),
        ("", 421),
    ],
)
def test_only_names_of_this_machine_are_answered(host: str, status: int) -> None:
    assert judged(get(host=host)) == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
def test_nothing_can_be_changed(method: str) -> None:
    response = Guard((), None).judge(get(method=method.encode()))
    assert response is not None
    assert response.status == 405
    assert ("Allow", "GET, HEAD") in response.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8080", "sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9090"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, 200),
    ],
)
def test_other_sites_get_nothing(headers: dict[str, str], status: int) -> None:
    assert judged(get(**headers)) == status


def test_a_request_names_a_path() -> None:
    assert judged(get(b"http://127.0.0.1/")) == 400
    assert judged(get(b"*")) == 400


def test_the_token_opens_as_bearer_and_once_in_the_address_for_a_cookie() -> None:
    guard = Guard((), TOKEN)
    assert judged(get(b"/api/status"), TOKEN) == 401
    assert judged(get(b"/api/status", authorization="Bearer 0123456789abcdef"), TOKEN) == 200
    assert judged(get(b"/api/status", authorization="bearer 0123456789abcdef"), TOKEN) == 200
    for wrong in ("Bearer 0123456789abcdeF", "Bearer ", "Basic 0123456789abcdef", "Bearer \xe9"):
        assert judged(get(b"/api/status", authorization=wrong), TOKEN) == 401
    assert judged(get(b"/healthz"), TOKEN) == 200

    response = guard.judge(get(query=b"token=0123456789abcdef"))
    assert response is not None
    assert response.status == 303
    headers = dict(response.headers)
    assert headers["Location"] == "/"
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert TOKEN.decode() not in cookie
    assert judged(get(cookie=f"other=1; {cookie}"), TOKEN) == 200
    assert judged(get(cookie=f"{COOKIE}={TOKEN.decode()}"), TOKEN) == 401
    assert judged(get(cookie=cookie), b"another token 16"[:16].replace(b" ", b"-")) == 401


def test_without_the_token_there_is_a_form_for_it_at_the_page_alone() -> None:
    guard = Guard((), TOKEN)
    for query, note in ((b"", b""), (b"token=wrong", b"That is not the token."), (b"&a=b" * 100, b"")):
        response = guard.judge(get(query=query))
        assert response is not None
        assert response.status == 401
        assert b"<form" in response.body
        assert note in response.body
        assert b"{note}" not in response.body
    response = guard.judge(get(b"/metrics", query=b"token=0123456789abcdef"))
    assert response is not None
    assert (response.status, b"<form" in response.body) == (401, False)


@pytest.mark.parametrize(
    "token", [b"", b"short", b"0123456789 abcdef", b"x" * 600, b"0123456789abcdef\n0", b"\xff" * 20]
)
def test_a_token_that_is_none_is_refused(tmp_path: Path, token: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(token)
    with pytest.raises(ValueError, match="openssl rand -hex 16"):
        read_token(path)


def test_a_token_that_everyone_may_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    for mode, public in ((0o600, False), (0o644, True)):
        path.chmod(mode)
        assert read_token(path) == (TOKEN, public)


def test_names_in_a_host_header() -> None:
    assert host_name("A.b:1") == "a.b"
    assert host_name("[::1]") == "::1"
    assert host_name("a/b") is None
    assert host_name("a b") is None
