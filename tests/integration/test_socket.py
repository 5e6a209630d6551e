"""The socket driver on real sockets: TCP, UDP and Unix, as a client and as a server."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from streams import Station, station

from agent.driver import Fault, PortError, Sample
from agent.driver_socket import Clients
from agent.ports_socket import Address, open_client, open_server
from agent.testing import FakeContext
from drivers.socket import Socket, SocketConfig

SCALAR = {"lines": {"format": "scalar"}}


@pytest.fixture
def at() -> Iterator[Station]:
    with station() as made:
        yield made


def listening(at: Station, **options: Any) -> Address:
    """A server of ours at work; its address."""
    at.add(Socket, **{"listen": "tcp://:0"} | SCALAR | options)
    at.start()
    at.until(lambda: at.state() == "online")
    port = at.supervisor.devices["d"]._port
    assert port is not None
    return Address.of(port.name)


def dial(address: Address) -> socket.socket:
    return socket.create_connection((address.host, address.port))


@pytest.mark.parametrize(
    ("options", "where", "said"),
    [
        ({}, "listen", "either connect or listen"),
        ({"connect": "tcp://a:1", "listen": "tcp://:1"}, "listen", "either connect or listen"),
        ({"connect": "tcp://a"}, "connect", "the port is missing"),
        ({"connect": "tcp://:1"}, "connect", "the host is missing"),
        ({"connect": "tcp://a:99999"}, "connect", "out of range"),
        ({"connect": "http://a:1"}, "connect", "write tcp://"),
        ({"connect": "tcp://user@a:1"}, "connect", "write tcp://"),
        ({"connect": "unix://run/x"}, "connect", "a whole path"),
        ({"listen": f"unix:///{'x' * 107}"}, "listen", "at most 107 bytes"),
        ({"listen": "udp://:1", "wakeup": "x"}, "wakeup", "knows nobody"),
        ({"listen": "unix:///x", "mode": "rw"}, "mode", "match"),
        ({"listen": "tcp://:1", "clients": 0}, "clients", "greater than or equal to 1"),
        ({"listen": "tcp://:1", "lines": None}, "frames", "either [device.lines] or [device.frames]"),
        ({"listen": "tcp://:1", "lines": {"format": "csv"}}, "lines.columns", "needs it"),
    ],
)
def test_what_can_never_work_is_refused_by_name(options: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SocketConfig(**{"name": "d", "driver": "socket"} | SCALAR | options)
    (error, *_) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == where
    assert said in error["msg"]


def test_addresses_are_written_as_they_are_read() -> None:
    for url in ("tcp://localhost:1", "udp://[::1]:5", "unix:///run/x.sock"):
        assert str(Address.of(url)) == url


def test_a_client_wakes_its_server_and_reads() -> None:
    ctx = FakeContext("d")
    ctx.start(Socket, connect="tcp://gauge:1", wakeup=r"go\r", **SCALAR)
    assert ctx.port.written == b"go\r"
    ctx.port.feed(b"1\n2")
    ctx.port.hang_up()
    assert ctx.samples == [Sample({"value": 1})]
    assert ctx.faults == [Fault("cut", "the stream ended within a line", b"2")]
    assert ctx.losses == ["tcp://gauge:1 hung up"]


def test_a_client_connects_again(at: Station) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        at.add(Socket, connect=f"tcp://127.0.0.1:{server.getsockname()[1]}", **SCALAR)
        at.start()
        for n in range(3):
            at.until(lambda: at.state() == "online")
            peer, _ = server.accept()
            peer.sendall(b"%d\n" % n)
            at.until(lambda n=n: at.values() == list(range(n + 1)))
            peer.close()
            at.until(lambda: at.state() != "online")
    at.until(lambda: at.supervisor.devices["d"].reason and "is the server there" in at.supervisor.devices["d"].reason)


def test_lines_of_many_clients_are_not_mixed_and_one_that_leaves_takes_no_other_with_it(at: Station) -> None:
    address = listening(at)
    assert address.host == "127.0.0.1"
    first, second = dial(address), dial(address)
    first.sendall(b"1")
    second.sendall(b"2\n")
    at.until(lambda: at.values() == [2])
    first.sendall(b"3\n")
    at.until(lambda: at.values() == [2, 13])
    first.sendall(b"4")
    first.close()
    at.until(lambda: at.faults() == {"cut": 1})
    second.sendall(b"5\n")
    at.until(lambda: at.values() == [2, 13, 5])
    assert at.supervisor.devices["d"].openings == 1
    second.close()


def test_clients_are_bounded_and_a_place_is_free_again(at: Station) -> None:
    address = listening(at, clients=2, wakeup="hello")
    one, two = dial(address), dial(address)
    for peer in (one, two):
        peer.settimeout(20)
        at.until(lambda peer=peer: pending(peer))
        assert peer.recv(9) == b"hello"
    with dial(address) as three:
        at.until(lambda: at.faults() == {"refused": 1})
        three.settimeout(20)
        assert three.recv(9) == b""
    one.close()
    at.until(lambda: len(clients(at)) == 1)
    with dial(address) as four:
        four.sendall(b"4\n")
        at.until(lambda: at.values() == [4])
    two.close()


def pending(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return bool(peer.recv(9, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        peer.settimeout(20)


def clients(at: Station) -> Clients:
    driver = at.supervisor.devices["d"]._driver
    assert isinstance(driver, Socket)
    assert driver._clients is not None
    return driver._clients


def test_stopping_reads_what_has_come_and_hangs_up_on_everybody() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with station() as at:
        peer = dial(listening(at))
        peer.sendall(b"1\n")
        at.until(lambda: at.values() == [1])
        peer.sendall(b"2\n")
        at.stop()
        assert at.values() == [1, 2]
        peer.settimeout(20)
        assert peer.recv(9) == b""
        peer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_datagram_stands_for_itself(at: Station) -> None:
    address = listening(at, listen="udp://:0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect((address.host, address.port))
        for data in (b"1", b"2\n3\n", b"", b"4\n5", b"six", b"7"):
            peer.send(data)
        at.until(lambda: at.values() == [1, 2, 3, 4, 5, 7])
    assert at.faults() == {"number": 1}


def test_a_server_of_datagrams_answers_to_the_client_that_woke_it(at: Station) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        at.add(Socket, connect=f"udp://127.0.0.1:{server.getsockname()[1]}", wakeup="?", **SCALAR)
        at.start()
        at.until(lambda: at.state() == "online")
        data, who = server.recvfrom(9)
        assert data == b"?"
        server.sendto(b"21.5", who)
        at.until(lambda: at.values() == [21.5])


def test_frames_come_over_sockets_too(at: Station) -> None:
    frames = {"sync": "aa", "size": 4, "check": "sum8", "fields": {"level": {"at": 1, "type": "u16"}}}
    address = listening(at, lines=None, frames=frames)
    with dial(address) as peer:
        peer.sendall(bytes.fromhex("aa 01 02 ad 00 aa"))
        peer.sendall(bytes.fromhex("00 07 b1"))
        at.until(lambda: at.fields() == [{"level": 258}, {"level": 7}])


def test_a_unix_socket_is_made_with_its_mode_replaces_a_dead_one_and_goes_with_the_device(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with station() as at:
        listening(at, listen=f"unix://{path}", mode="0606")
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(b"1\n")
            at.until(lambda: at.values() == [1])
        with pytest.raises(PortError, match="somebody listens there"):
            open_server(Address.of(f"unix://{path}"), 0o600)
        client = open_client(Address.of(f"unix://{path}"))
        client.write(b"2\n")
        at.until(lambda: at.values() == [1, 2])
        client.close()
    assert not path.exists()


def test_what_cannot_be_opened_is_told_with_a_remedy(tmp_path: Path) -> None:
    def refusal(url: str, *, serve: bool = True) -> PortError:
        with pytest.raises(PortError) as caught:
            open_server(Address.of(url), 0o600) if serve else open_client(Address.of(url))
        return caught.value

    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "file").touch()
    assert "no socket" in str(refusal(f"unix://{tmp_path}/file"))
    assert (tmp_path / "file").exists()
    assert refusal(f"unix://{tmp_path}/gone/x").reason == "failed"
    assert refusal(f"unix://{tmp_path}/gone", serve=False).reason == "missing"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal(f"tcp://:{port}").reason == "busy"
    assert refusal(f"tcp://127.0.0.1:{port}", serve=False).reason == "failed"
    assert refusal("tcp://192.0.2.1:9").reason == "missing"
    assert len(os.listdir("/proc/self/fd")) == before
