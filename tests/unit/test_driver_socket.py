"""Datagrams that stand for themselves, and the clients of a server, without a socket."""

from __future__ import annotations

from typing import cast

from agent.driver import Fault, Parser, Sample
from agent.driver_lines import LineFormat, LineParser
from agent.driver_socket import Clients, DatagramParser
from agent.ports_socket import Listener
from agent.testing import FakeContext, FakePort


def parser() -> Parser:
    return LineParser(LineFormat(format="scalar"))


class FakeListener(FakePort):
    """Clients that wait to be let in; None: one that is gone again."""

    def __init__(self) -> None:
        super().__init__("here")
        self.waiting: list[FakePort | None] = []

    def accept(self) -> FakePort | None:
        self.read()
        return self.waiting.pop(0) if self.waiting else None

    def knock(self, client: FakePort | None) -> None:
        self.waiting.append(client)
        self.feed(b"?")


def serving(ctx: FakeContext, most: int = 2, greeting: bytes = b"") -> tuple[Clients, FakeListener]:
    listener = FakeListener()
    made = Clients(ctx, cast(Listener, listener), parser, most=most, greeting=greeting)
    made.start()
    return made, listener


def test_each_client_has_a_parser_of_its_own_and_is_forgotten_when_it_leaves() -> None:
    ctx = FakeContext("d")
    clients, listener = serving(ctx, greeting=b"hello")
    one, two = FakePort("one"), FakePort("two")
    listener.knock(one)
    listener.knock(None)
    listener.knock(two)
    assert (len(clients), one.written, two.written) == (2, b"hello", b"hello")
    one.feed(b"1")
    two.feed(b"2\n")
    one.feed(b"3\n")
    assert ctx.samples == [Sample({"value": 2}), Sample({"value": 13})]
    one.hang_up()
    assert (len(clients), one.closed, two.closed, ctx.losses) == (1, True, False, [])


def test_one_too_many_is_hung_up_on_until_another_has_left() -> None:
    ctx = FakeContext("d")
    clients, listener = serving(ctx, most=1)
    first, second, third = FakePort("first"), FakePort("second"), FakePort("third")
    listener.knock(first)
    listener.knock(second)
    assert (second.closed, len(clients)) == (True, 1)
    assert ctx.faults == [Fault("refused", "second: 1 clients are connected already")]
    first.hang_up()
    listener.knock(third)
    assert (third.closed, len(clients)) == (False, 1)


def test_a_client_that_is_gone_before_its_greeting_takes_nobody_with_it() -> None:
    ctx = FakeContext("d")
    clients, listener = serving(ctx, greeting=b"hello")
    gone = FakePort("gone")
    gone.hang_up()
    listener.knock(gone)
    ctx.run()
    assert (len(clients), gone.closed, ctx.losses) == (0, True, [])


def test_at_the_stop_everybody_is_hung_up_on() -> None:
    ctx = FakeContext("d")
    clients, listener = serving(ctx)
    peers = [FakePort("one"), FakePort("two")]
    for peer in peers:
        listener.knock(peer)
    clients.stop()
    assert ([peer.closed for peer in peers], len(clients)) == ([True, True], 0)


def test_a_datagram_needs_no_ending_and_does_not_go_on_in_the_next() -> None:
    datagrams = DatagramParser(parser(), b"\n")
    found = [[*datagrams.feed(data)] for data in (b"1", b"2\n3\n", b"", b"4")]
    assert found == [[Sample({"value": 1})], [Sample({"value": 2}), Sample({"value": 3})], [], [Sample({"value": 4})]]
