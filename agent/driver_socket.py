"""What a socket has beyond a port: datagrams that stand for themselves, and the clients of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from agent.driver import Context, DeviceLost, Fault, Handle, Parser, Port, Sample
from agent.ports_socket import Listener


class DatagramParser(Parser):
    """A parser that begins anew with each datagram. Unlike other parsers it is fed with whole ones."""

    def __init__(self, inner: Parser, ending: bytes) -> None:
        """ending: what is put behind each datagram, for a last line that has none."""
        self._inner = inner
        self._ending = ending

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        return [*self._inner.feed(data + self._ending), *self._inner.end()]


class Clients:
    """Who is connected to a server, each read by a parser of its own; made anew at each start of its driver."""

    def __init__(
        self, ctx: Context, listener: Listener, parser: Callable[[], Parser], *, most: int, greeting: bytes
    ) -> None:
        """parser: gives one for a client; most: clients at once; greeting: sent to each, b"": nothing."""
        self._ctx = ctx
        self._listener = listener
        self._parser = parser
        self._most = most
        self._greeting = greeting
        self._watches: dict[Port, Handle] = {}

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._watches)

    def start(self) -> None:
        """Let them in."""
        self._ctx.watch(self._listener, self._knock)

    def stop(self) -> None:
        """Hang up on everybody."""
        for client, watch in self._watches.items():
            watch.cancel()
            client.close()
        self._watches.clear()

    def _knock(self) -> None:
        client = self._listener.accept()
        if client is None:
            return
        if len(self._watches) == self._most:
            client.close()
            self._ctx.emit(Fault("refused", f"{client.name}: {self._most} clients are connected already"))
            return
        self._watches[client] = self._ctx.stream(client, self._parser(), on_end=partial(self._left, client))
        if self._greeting:
            try:
                client.write(self._greeting)
            except DeviceLost:  # gone already: what it had sent is read first, and then its end
                return

    def _left(self, client: Port, _: DeviceLost) -> None:
        if self._watches.pop(client, None) is not None:
            client.close()
