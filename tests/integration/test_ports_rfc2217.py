"""rfc2217:// against a server that others wrote: pyserial's PortManager, with a pty as its port."""

from __future__ import annotations

import os
import select
import socket
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import serial
import serial.rfc2217

from agent.errors import DeviceLost, PortError
from agent.ports import Rfc2217Port, SerialSettings, open_serial
from agent.testing import Pty


class Line(serial.Serial):
    """A pty has no modem lines, and eight data bits always: what is set is remembered, none of the inputs is up."""

    cts = dsr = ri = cd = False  # type: ignore[assignment]

    def _reconfigure_port(self, force_update: bool = False) -> None:
        with suppress(termios.error):
            super()._reconfigure_port(force_update)

    def _update_dtr_state(self) -> None: ...

    def _update_rts_state(self) -> None: ...


class Server:
    """One client at a time; what it is told to set, it sets at ``port``."""

    def __init__(self, path: str) -> None:
        self.port = Line(path, timeout=0, exclusive=False)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def _serve(self) -> None:
        ready = select.select([self._listener, self._end], [], [])[0]
        if self._end in ready:
            return
        self._connection = self._listener.accept()[0]
        manager = serial.rfc2217.PortManager(self.port, self)
        with self._connection, suppress(OSError):
            while self._end not in (ready := select.select([self._connection, self.port, self._end], [], [])[0]):
                if self._connection in ready:
                    data = self._connection.recv(1024)
                    if not data:
                        return
                    self.port.write(b"".join(manager.filter(data)))
                if self.port in ready and (data := self.port.read(1024)):
                    self.write(b"".join(manager.escape(data)))

    def close(self) -> None:
        os.write(self._ended, b"x")
        self._thread.join(10)
        for fd in (self._end, self._ended):
            os.close(fd)
        self._listener.close()
        self.port.close()


@pytest.fixture
def device() -> Iterator[Pty]:
    with Pty() as device:
        yield device


@pytest.fixture
def server(device: Pty) -> Iterator[Server]:
    server = Server(device.path)
    yield server
    server.close()


def take(port: Rfc2217Port, count: int) -> bytes:
    got = b""
    while len(got) < count:
        assert select.select([port], [], [], 10)[0]
        got += port.read()
    return got


def test_the_line_is_set_and_every_byte_passes_both_ways(device: Pty, server: Server) -> None:
    port = open_serial(SerialSettings(port=server.url, baudrate=19200, bytesize=7, parity="even", stopbits=2))
    assert isinstance(port, Rfc2217Port)
    line = server.port
    assert (line.baudrate, line.bytesize, line.parity, line.stopbits) == (19200, 7, "E", 2)
    assert (line.dtr, line.rts) == (False, False), "down unless asked for"
    every = bytes(range(256)) * 3 + b"\xff\xff\xff"
    device.write(every)
    assert take(port, len(every)) == every
    port.write(every)
    got = b""
    while len(got) < len(every):
        assert select.select([device], [], [], 10)[0]
        got += device.read()
    assert got == every
    port.set_baudrate(2400)
    port.write(b"then")
    assert select.select([device], [], [], 10)[0]
    assert device.read() == b"then"
    assert line.baudrate == 2400
    port.close()


def test_a_server_that_goes_is_a_lost_device(server: Server) -> None:
    port = open_serial(SerialSettings(port=server.url))
    server._connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(DeviceLost, match="hung up"):
        take(port, 1)  # type: ignore[arg-type]
    port.close()


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"\xff\xfe\x2c"], "does not speak RFC 2217; if it is raw TCP: socket://"),
        ([], "the server hung up; it may serve one client at a time"),
        # It agrees, and then has 9600 baud, whatever is asked for.
        (
            [
                b"\xff\xfd\x2c",
                b"".join(
                    b"\xff\xfa\x2c" + bytes((100 + code,)) + value + b"\xff\xf0"
                    for code, value in ((1, (9600).to_bytes(4, "big")), (2, b"\x08"), (3, b"\x01"), (4, b"\x01"))
                ),
            ],
            "baudrate 115200 was refused (it has 9600)",
        ),
    ],
)
def test_a_server_that_will_not_says_so(answers: list[bytes], says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                for answer in answers:
                    connection.sendall(answer)
                    connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(PortError) as caught:
            open_serial(SerialSettings(port=f"rfc2217://127.0.0.1:{listener.getsockname()[1]}", baudrate=115200))
        thread.join(10)
    assert says in str(caught.value)
