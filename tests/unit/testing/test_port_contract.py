"""FakePort and the real SerialPort over a pty, held to the same words: who tests with the fake, tests the truth."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Protocol

import pytest

from agent.driver import DeviceLost, SerialLine
from agent.ports import WRITE_LIMIT, SerialSettings, open_serial
from agent.testing import FakePort, Pty


class Device(Protocol):
    """The far side of a port, and the port."""

    port: SerialLine

    def say(self, data: bytes) -> None: ...
    def hang_up(self) -> None: ...
    def block(self) -> bytes: ...
    def make_room(self) -> bytes: ...
    def take(self) -> bytes: ...


class Fake:
    def __init__(self) -> None:
        self.port = FakePort("fake")

    def say(self, data: bytes) -> None:
        self.port.feed(data)

    def hang_up(self) -> None:
        self.port.hang_up()

    def block(self) -> bytes:
        """Leave no room: what was written for that."""
        self.port.room = 0
        return b""

    def make_room(self) -> bytes:
        """The device takes what is on its way, and nobody calls flush: what it took."""
        self.port.room = 1000
        return b""

    def take(self) -> bytes:
        self.port.drain()
        return self.port.written


class Real:
    def __init__(self, line: Pty) -> None:
        self.line = line
        self.port = open_serial(SerialSettings(port=line.path))

    def say(self, data: bytes) -> None:
        assert self.line.write(data) == len(data)

    def hang_up(self) -> None:
        self.line.unplug()

    def block(self) -> bytes:
        filled = b""
        while not self.port.pending:
            self.port.write(b"#" * 1000)
            filled += b"#" * 1000
        return filled

    def make_room(self) -> bytes:
        taken = b""
        while not select.select([], [self.port], [], 0)[1]:
            taken += self.line.read()
        return taken

    def take(self) -> bytes:
        data = b""
        while True:
            data += self.line.read()
            if self.port.pending:
                self.port.flush()
            elif not select.select([self.line], [], [], 0.05)[0]:
                return data


@pytest.fixture(params=["fake", "real"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "fake":
        fake = Fake()
        yield fake
        fake.port.close()
        return
    with Pty() as line:
        real = Real(line)
        yield real
        real.port.close()


def readable(port: SerialLine, timeout: float = 0.0) -> bool:
    return bool(select.select([port], [], [], timeout)[0])


def test_reading_never_waits_and_gives_all_that_came(device: Device) -> None:
    assert not readable(device.port)
    assert device.port.read() == b""
    device.say(b"one")
    assert readable(device.port, 5)
    device.say(b"two")
    got = device.port.read()
    while len(got) < 6:
        assert readable(device.port, 5)
        got += device.port.read()
    assert got == b"onetwo"
    assert device.port.read() == b""
    assert not readable(device.port)


def test_a_hang_up_is_readable_and_raises_device_lost_every_time(device: Device) -> None:
    device.hang_up()
    assert readable(device.port, 5)
    for _ in range(2):
        with pytest.raises(DeviceLost):
            device.port.read()
    with pytest.raises(DeviceLost):
        device.port.write(b"x")


def test_what_was_not_read_before_the_hang_up_is_gone(device: Device) -> None:
    device.say(b"late")
    assert readable(device.port, 5)
    device.hang_up()
    with pytest.raises(DeviceLost):
        device.port.read()


def test_a_closed_port_says_so_and_closes_twice(device: Device) -> None:
    device.port.close()
    device.port.close()
    assert device.port.fileno() == -1
    with pytest.raises(DeviceLost, match="closed"):
        device.port.read()
    with pytest.raises(DeviceLost, match="closed"):
        device.port.write(b"x")
    device.port.flush()


def test_the_bit_rate_changes_until_the_device_is_gone(device: Device) -> None:
    device.port.set_baudrate(2400)
    device.hang_up()
    with pytest.raises(DeviceLost):
        device.port.set_baudrate(300)
    device.port.close()
    with pytest.raises(DeviceLost, match="closed"):
        device.port.set_baudrate(300)


def test_what_finds_no_room_waits_and_goes_out_in_order(device: Device) -> None:
    calls: list[bool] = []
    device.port.write(b"first")
    filled = device.block()
    device.port.on_blocked = calls.append
    if not filled:
        device.port.write(b"second")
        assert calls == [True]
    else:
        device.port.write(b"second")  # something waits already: told once, before on_blocked was set
        calls.append(True)
    device.port.write(b"third")
    assert calls == [True]
    assert device.take() == b"first" + filled + b"secondthird"
    assert calls == [True, False]


def test_what_is_written_while_something_waits_does_not_overtake_it(device: Device) -> None:
    filled = device.block()
    device.port.write(b"second")
    taken = device.make_room()
    device.port.write(b"third")  # there is room, but not for this
    assert taken + device.take() == filled + b"secondthird"


def test_a_device_that_takes_nothing_for_good_is_lost(device: Device) -> None:
    device.block()
    device.port.write(b"x" * (WRITE_LIMIT - 1000))
    with pytest.raises(DeviceLost, match="takes nothing"):
        device.port.write(b"x" * 1001)


def test_the_fakes_answers_come_once_each_in_order() -> None:
    port = FakePort()
    port.write(b"B?")  # before there was anyone to answer
    port.answer(b"A?", b"1")
    port.answer(b"B?", lambda: b"2")
    port.write(b"B?A")
    assert port.read() == b"2"
    port.write(b"?A?")
    assert port.read() == b"11"
    assert port.written == b"B?B?A?A?"
