"""The scripted serial device: that it loses nothing, says what it does not do, and looks like hardware from outside."""

from __future__ import annotations

import os
import re
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.driver import DeviceLost, PortError
from agent.ports import SerialPort, SerialSettings, open_serial
from agent.testing import Pty, PtyPort


@pytest.fixture
def device() -> Iterator[PtyPort]:
    with PtyPort() as device:
        yield device


def connect(device: Pty) -> SerialPort:
    return open_serial(SerialSettings(port=device.path))


def read_exactly(port: SerialPort, size: int) -> bytes:
    """Blocks, by the descriptor's own readiness, until size bytes are there (pytest's timeout ends a failure)."""
    data = b""
    os.set_blocking(port.fileno(), True)
    while len(data) < size:
        data += os.read(port.fileno(), size - len(data))
    os.set_blocking(port.fileno(), False)
    return data


def test_every_byte_passes_unchanged_both_ways(device: PtyPort) -> None:
    """No echo, no line editing, no translation: the bytes that a terminal in its usual mode would eat or change."""
    port = connect(device)
    everything = bytes(range(256))
    device.send(everything)
    assert read_exactly(port, 256) == everything
    port.write(everything)
    assert device.expect(b"\xff") == everything
    assert port.read() == b""  # nothing came back as an echo
    port.close()


def test_the_line_is_raw_even_for_a_program_that_sets_nothing(device: PtyPort) -> None:
    fd = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
    iflag, oflag, _, lflag, *_ = termios.tcgetattr(fd)
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert not iflag & (termios.ICRNL | termios.IXON)
    assert not oflag & termios.OPOST
    os.close(fd)


def test_a_str_is_a_line_and_bytes_are_bytes() -> None:
    with PtyPort(ending=b"\r\n") as device:
        port = connect(device)
        device.send("21.5 °C")
        device.send(b"raw")
        assert read_exactly(port, 13) == "21.5 °C".encode() + b"\r\nraw"
        port.close()


def test_what_is_sent_before_the_program_opens_the_port_waits_for_it(device: PtyPort) -> None:
    """Opening a port discards its input (pyserial): a line sent a moment too early would be lost, now and then."""
    sender = threading.Thread(target=device.send, args=("early",))
    sender.start()
    port = connect(device)
    assert read_exactly(port, 6) == b"early\n"
    sender.join()
    port.close()
    device.wait_closed()
    with pytest.raises(TimeoutError, match="nobody opened"):
        device.send("nobody listens", timeout=0.01)
    port = connect(device)
    device.send("again")
    assert read_exactly(port, 6) == b"again\n"
    port.close()


def test_a_program_that_discards_nothing_gets_what_was_there_before_it() -> None:
    with PtyPort(wait_open=False) as device:
        device.send("before")
        fd = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
        assert os.read(fd, 100) == b"before\n"
        os.close(fd)


def test_a_flood_is_not_cut_by_the_kernels_buffer(device: PtyPort) -> None:
    lines = [f"n={n}" for n in range(20_000)]
    port = connect(device)
    sent = []
    sender = threading.Thread(target=lambda: sent.append(device.flood(lines)))
    sender.start()
    expected = "".join(f"{line}\n" for line in lines).encode()
    assert read_exactly(port, len(expected)) == expected
    sender.join()
    assert sent == [len(expected)]
    port.close()


def test_a_program_that_does_not_read_is_told_of_and_not_lost_on(device: PtyPort) -> None:
    port = connect(device)
    with pytest.raises(TimeoutError, match="takes no more"):
        device.send(b"x" * 100_000, timeout=0.2)
    with pytest.raises(TimeoutError, match="takes no more"):
        device.flood(["x" * 100] * 1000, timeout=0.2)
    port.close()


def test_rules_answer_each_question_once_in_order(device: PtyPort) -> None:
    port = connect(device)
    device.answer("A?", "1")
    device.answer(b"B?", b"two,")
    device.answer(re.compile(rb"C(\d)\?"), lambda question: question[1:2] + b";")
    port.write(b"noise B?C7?A?\nC8")
    assert read_exactly(port, 8) == b"two,7;1\n"
    port.write(b"?")  # the question came in two pieces
    assert read_exactly(port, 2) == b"8;"
    assert device.received == b"noise B?C7?A?\nC8?"
    port.close()


def test_a_newer_rule_wins_and_a_counted_one_ends(device: PtyPort) -> None:
    port = connect(device)
    device.answer(b"?", b"old")
    device.answer(b"?", b"NEW", times=2)
    port.write(b"???")
    assert read_exactly(port, 9) == b"NEWNEWold"
    port.write(b"!!")
    device.expect(b"!!")
    device.answer(b"!", b".")  # from now on: not to what was asked before
    port.write(b"!")
    device.expect(b"!")
    device.send("end")
    assert read_exactly(port, 5) == b".end\n"
    port.close()


def test_a_rule_may_be_silent_and_may_be_late(device: PtyPort) -> None:
    port = connect(device)
    device.answer(b"q", lambda _: None)
    device.answer(b"s", b"slow", delay=0.05)
    device.answer(b"f", b"fast")
    port.write(b"qsf")
    assert read_exactly(port, 8) == b"fastslow"
    port.close()


def test_an_answer_does_not_cut_a_message_in_two(device: PtyPort) -> None:
    port = connect(device)
    device.answer(b"?", b"!")
    port.write(b"?")
    assert read_exactly(port, 1) == b"!"
    sender = threading.Thread(target=device.send, args=("a" * 30_000,))
    sender.start()  # far more than the line holds: it stands in the middle of the message
    first = read_exactly(port, 5000)
    port.write(b"?")
    device.expect(b"??")
    rest = read_exactly(port, 25_002)
    assert first + rest == b"a" * 30_000 + b"\n!"
    sender.join()
    port.close()


def test_a_stuttering_device_sends_piece_by_piece(device: PtyPort) -> None:
    port = connect(device)
    pieces: list[bytes] = []

    def read() -> None:
        os.set_blocking(port.fileno(), True)
        while b"".join(pieces) != b"abcdef\n":
            pieces.append(os.read(port.fileno(), 100))
            gate.set()

    gate = threading.Event()
    device.delay = lambda seconds: gate.wait(10 * seconds)  # type: ignore[method-assign, assignment, return-value]
    reader = threading.Thread(target=read)
    reader.start()
    device.send("abcdef", chunk=3, pause=1.0)
    reader.join(10)
    assert pieces[0] == b"abc"
    port.close()


def test_a_failing_answer_function_fails_the_test() -> None:
    caught: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, caught.append
    try:
        with PtyPort() as device:
            port = connect(device)
            device.answer(b"?", lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
            port.write(b"?")
            with pytest.raises(RuntimeError, match=r"answer function .* failed: ZeroDivisionError"):
                device.expect(b"never")
            port.close()
    finally:
        threading.excepthook = before


def test_expect_takes_up_to_the_match_and_shows_what_came_instead(device: PtyPort) -> None:
    port = connect(device)
    port.write(b"hello world 42 ")
    assert device.expect(b"hello") == b"hello"
    assert device.expect(re.compile(rb"\d+ ")) == b" world 42 "
    port.write(b"other")
    device.expect(b"oth")
    with pytest.raises(AssertionError, match=r"expected b'more' within 0.01 s, but the program wrote b'er'"):
        device.expect(b"more", timeout=0.01)
    assert device.read() == b"er"
    port.close()


def test_garbling_is_repeatable_and_ends(device: PtyPort) -> None:
    port = connect(device)
    clean = bytes(1000)
    got = []
    for _ in range(2):
        device.garble(flips=0.1, drops=0.1, seed=7)
        device.send(clean)
        device.garble()
        device.send(b"\xff")
        data = b""
        while not data.endswith(b"\xff"):
            data += read_exactly(port, 1)
        got.append(data[:-1])
    assert got[0] == got[1]
    assert 850 < len(got[0]) < 950  # 100 of 1000 dropped on average, 5 sigma
    assert 50 < sum(byte != 0 for byte in got[0]) < 140
    assert all(byte.bit_count() <= 1 for byte in got[0])
    with pytest.raises(ValueError, match="share"):
        device.garble(flips=10)
    port.close()


def test_unplugged_it_hangs_up_and_is_gone_until_it_is_plugged_in(device: PtyPort) -> None:
    port = connect(device)
    device.unplug()
    assert not os.path.lexists(device.path)
    with pytest.raises(DeviceLost):
        port.read()
    with pytest.raises(PortError) as missing:
        connect(device)
    assert missing.value.reason == "missing"
    with pytest.raises(RuntimeError, match="unplugged"):
        device.send("x")
    device.unplug()  # idempotent
    path = device.path
    device.replug()
    assert device.path == path
    again = connect(device)
    device.send("back")
    assert read_exactly(again, 5) == b"back\n"
    for one in (port, again):
        one.close()


def test_unplugging_ends_a_send_that_is_under_way(device: PtyPort) -> None:
    port = connect(device)
    failure: list[BaseException] = []

    def send() -> None:
        try:
            device.send(b"x" * 100_000)
        except RuntimeError as error:
            failure.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    read_exactly(port, 1)  # it is under way
    device.unplug()
    sender.join(5)
    assert "unplugged" in str(failure[0])
    port.close()


def test_close_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    device = PtyPort()
    with device:
        directory = Path(device.path).parent
        port = connect(device)
        device.send("x")
        assert threading.active_count() == threads + 1
        port.close()
    device.close()
    assert not directory.exists()
    assert threading.active_count() == threads
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_link_may_stand_where_the_user_wants_it(tmp_path: Path) -> None:
    with PtyPort(tmp_path / "ttyUSB0") as device:
        assert device.path == str(tmp_path / "ttyUSB0")
        assert os.readlink(device.path).startswith("/dev/pts/")
    assert list(tmp_path.iterdir()) == []


def test_without_a_thread_the_bare_pty_knows_when_the_program_is_ready() -> None:
    """What the demo's simulations go by, on the event manager."""
    threads = threading.active_count()
    with Pty() as line:
        assert line.read() == b""
        assert not line.ready
        port = connect(line)
        line.read()
        assert line.ready
        written = 0
        while taken := line.write(b"x" * 100_000):  # the kernel may still be making room behind it
            written += taken
            assert written < 1_000_000, "full: nothing is lost, nothing waits"
        port.close()
        line.read()
        assert not line.ready
        assert threading.active_count() == threads
