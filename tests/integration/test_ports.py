"""Ports on real ptys and sockets: what opening says, what reading and writing do, what unplugging looks like."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import serial

from agent import ports, ports_errors, ports_list
from agent.errors import DeviceLost, PortError
from agent.ports import WRITE_LIMIT, SerialPort, SerialSettings, open_serial


@dataclass
class Wire:
    """A pty: the device's end, and the path that the agent opens."""

    master: int
    path: str

    def unplug(self) -> None:
        os.close(self.master)
        self.master = -1


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    master, slave = os.openpty()
    tty.setraw(slave)
    link = tmp_path / "ttyTEST"
    link.symlink_to(os.ttyname(slave))
    os.close(slave)
    wire = Wire(master, str(link))
    yield wire
    if wire.master >= 0:
        wire.unplug()


@pytest.fixture
def open_port() -> Iterator[Callable[..., SerialPort]]:
    opened: list[SerialPort] = []

    def open_port(path: str, **settings: Any) -> SerialPort:
        opened.append(open_serial(SerialSettings(port=path, **settings)))
        return opened[-1]

    yield open_port
    for port in opened:
        port.close()


def readable(port: SerialPort, timeout: float = 5.0) -> bool:
    return bool(select.select([port], [], [], timeout)[0])


def refusal(path: str, **settings: Any) -> PortError:
    with pytest.raises(PortError) as caught:
        open_serial(SerialSettings(port=path, **settings))
    return caught.value


Open = Callable[..., SerialPort]
ROOT = Path(__file__).parents[2]


# ---- reading and writing


def test_bytes_go_both_ways_unchanged(wire: Wire, open_port: Open) -> None:
    port = open_port(wire.path)
    every = bytes(range(256))
    os.write(wire.master, every)
    assert readable(port)
    assert port.read() == every
    port.write(every)
    assert os.read(wire.master, 1000) == every


def test_nothing_to_read_is_not_a_hang_up(wire: Wire, open_port: Open) -> None:
    """With pyserial's VMIN 0 the kernel says b"" to both."""
    port = open_port(wire.path)
    assert port.read() == b""
    os.write(wire.master, b"x")
    assert readable(port)
    assert port.read() == b"x"
    assert port.read() == b""


def test_unplugging_is_device_lost_for_reading_and_writing(wire: Wire, open_port: Open) -> None:
    port = open_port(wire.path)
    wire.unplug()
    assert readable(port)
    with pytest.raises(DeviceLost, match="ttyTEST hung up"):
        port.read()
    with pytest.raises(DeviceLost, match="ttyTEST is gone"):
        port.write(b"x")
    port.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENXIO, errno.ENODEV, errno.ECONNRESET])
def test_every_error_of_the_descriptor_is_device_lost(
    wire: Wire, open_port: Open, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    port = open_port(wire.path)

    def fail(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        with pytest.raises(DeviceLost, match=os.strerror(code)):
            port.read()


def test_what_the_device_does_not_take_waits_in_order_and_goes_out_by_flush(wire: Wire, open_port: Open) -> None:
    port = open_port(wire.path)
    told: list[bool] = []
    port.on_blocked = told.append
    sent = b""
    while not port.pending:
        chunk = f"{len(sent):08}".encode() * 128
        port.write(chunk)
        sent += chunk
    assert told == [True]
    port.write(b"then")
    port.flush()
    assert told == [True], "still blocked: said once"
    got = os.read(wire.master, 65536)
    port.write(b"last")  # there is room for it now, but others come first
    sent += b"thenlast"
    while len(got) < len(sent):
        port.flush()  # before the read, which would wait for what only a flush sends
        got += os.read(wire.master, 65536)
    assert got == sent
    assert port.pending == 0
    assert told == [True, False]


def test_a_device_that_takes_nothing_is_lost_once_the_buffer_is_full(wire: Wire, open_port: Open) -> None:
    port = open_port(wire.path)
    while not port.pending:
        port.write(bytes(1024))
    while port.pending <= WRITE_LIMIT - 1024:
        port.write(bytes(1024))
    with pytest.raises(DeviceLost, match="takes nothing"):
        port.write(bytes(1024))
    assert port.pending <= WRITE_LIMIT


def test_closing_is_idempotent_does_not_wait_for_unsent_bytes_and_leaves_no_descriptor(
    wire: Wire, open_port: Open
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    port = open_port(wire.path)
    assert len(os.listdir("/proc/self/fd")) == before + 1, "one descriptor a port: a thousand of them must fit"
    while not port.pending:
        port.write(bytes(4096))
    port.close()
    port.close()
    assert port.fileno() == -1
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(DeviceLost, match="closed"):
        port.read()
    with pytest.raises(DeviceLost, match="closed"):
        port.write(b"x")


# ---- line settings


def test_line_settings_reach_the_driver(wire: Wire, open_port: Open) -> None:
    port = open_port(wire.path, baudrate=38400, bytesize=7, parity="odd", stopbits=2, flow="rtscts")
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(port.fileno())
    assert (ispeed, ospeed) == (termios.B38400, termios.B38400)
    assert cflag & termios.PARODD
    assert cflag & termios.CSTOPB
    assert cflag & termios.CRTSCTS
    assert cc[termios.VMIN] in (1, b"\x01")
    assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert not oflag & termios.OPOST
    assert not iflag & termios.ICRNL


def test_the_bit_rate_of_an_open_port_can_be_changed(wire: Wire, open_port: Open) -> None:
    port = open_port(wire.path, baudrate=300, bytesize=7, parity="even")
    before = termios.tcgetattr(port.fileno())
    port.set_baudrate(9600)
    after = termios.tcgetattr(port.fileno())
    assert after[4:6] == [termios.B9600, termios.B9600]
    assert after[:2] + after[3:4] + after[6:] == before[:2] + before[3:4] + before[6:]
    with pytest.raises(PortError, match="cannot be set to 12345 Bd: no such bit rate"):
        port.set_baudrate(12345)


def test_the_bit_rate_behind_raw_tcp_is_the_servers(open_port: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = open_port(f"socket://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(PortError, match=r"the server's own; .*rfc2217"):
            port.set_baudrate(9600)


@pytest.mark.parametrize("baudrate", [74880, 250000, 31250, 3_686_400])
def test_exotic_baud_rates(wire: Wire, open_port: Open, baudrate: int) -> None:
    port = open_port(wire.path, baudrate=baudrate, stopbits=1.5)
    buffer = bytearray(64)
    fcntl.ioctl(port.fileno(), 0x802C542A, buffer)  # TCGETS2, asm-generic/ioctls.h
    assert int.from_bytes(buffer[40:44], sys.byteorder) == baudrate


def test_modem_lines_are_left_down_unless_asked_for(
    wire: Wire, open_port: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pty has no modem lines: what is held here is what pyserial is told before it opens."""
    lines: list[tuple[bool, bool]] = []
    real = serial.Serial.open

    def spy(self: serial.Serial) -> None:
        lines.append((self.dtr, self.rts))
        real(self)

    monkeypatch.setattr(serial.Serial, "open", spy)
    open_port(wire.path).close()
    open_port(wire.path, dtr=True, rts=True)
    assert lines == [(False, False), (True, True)]


def test_modem_lines_fall_with_the_port_unless_told_otherwise(wire: Wire, open_port: Open) -> None:
    def hupcl(port: SerialPort) -> bool:
        return bool(termios.tcgetattr(port.fileno())[2] & termios.HUPCL)

    fd = os.open(wire.path, os.O_RDWR | os.O_NOCTTY)
    line = termios.tcgetattr(fd)
    line[2] |= termios.HUPCL
    termios.tcsetattr(fd, termios.TCSANOW, line)
    os.close(fd)
    port = open_port(wire.path)
    assert hupcl(port)
    port.close()
    assert not hupcl(open_port(wire.path, dtr=True, hang_up=False))


def test_rs485_reaches_the_kernel_and_a_driver_that_does_otherwise_is_refused(
    wire: Wire, open_port: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pty has no RS-485: the kernel's struct serial_rs485 is held against linux/serial.h."""
    said: list[tuple[int, ...]] = []
    can = 0xFF
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: bytes = b"", *more: bool) -> Any:
        if request == 0x542F:  # TIOCSRS485
            said.append(struct.unpack("=8I", argument))
            return argument
        if request == 0x542E:  # TIOCGRS485
            return struct.pack("=8I", said[-1][0] & can, *said[-1][1:])
        return real(fd, request, argument, *more)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    open_port(wire.path, rs485={}).close()
    open_port(
        wire.path,
        rs485={
            "rts_on_send": False,
            "rts_after_send": True,
            "delay_before_send": "2ms",
            "delay_after_send": "1ms",
            "hear_own": True,
            "terminate": True,
        },
    )
    # SER_RS485_ENABLED 1, RTS_ON_SEND 2, RTS_AFTER_SEND 4, RX_DURING_TX 16, TERMINATE_BUS 32
    assert said == [(1 | 2, 0, 0, 0, 0, 0, 0, 0), (1 | 4 | 16 | 32, 2, 1, 0, 0, 0, 0, 0)]
    can = ~2
    assert "does not take these levels" in str(refusal(wire.path, rs485={}, exclusive=False))


def test_a_port_without_rs485_says_so_and_is_left_closed(wire: Wire) -> None:
    before = len(os.listdir("/proc/self/fd"))
    error = refusal(wire.path, rs485={})
    assert error.reason == "unsupported"
    assert f"{wire.path} has no RS-485 mode" in str(error)
    assert "leave it out" in error.remedy
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_usb_name_is_opened_by_what_it_means_now(
    wire: Wire, open_port: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_list, "resolve", {"usb:0403:6001": wire.path}.__getitem__)
    os.write(wire.master, b"")
    port = open_port("usb:0403:6001")
    os.write(wire.master, b"x")
    assert readable(port)
    assert (port.name, port.read()) == (wire.path, b"x")


# ---- what opening says


def test_missing_names_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "ttyUSB7"
    here.touch()
    monkeypatch.setattr(ports_errors, "_USUAL", (str(tmp_path / "ttyUSB*"),))
    error = refusal(str(tmp_path / "ttyUSB0"))
    assert error.reason == "missing"
    assert str(error).endswith(f"does not exist; plug the device in; now here: {here}")


def test_missing_behind_a_link(tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    link.symlink_to("../ttyUSB0")
    error = refusal(str(link))
    assert (error.reason, str(error.args[0])) == ("missing", f"{link} points to ../ttyUSB0, which does not exist")


def test_a_bare_name_is_told_to_be_a_path() -> None:
    assert "/dev/ttyUSB0" in refusal("ttyUSB0").remedy


_HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_busy_names_who_holds_it_and_ends_with_him(wire: Wire, open_port: Open, tmp_path: Path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(_HOLD)
    other = subprocess.Popen(
        [sys.executable, str(script), wire.path, "--password=secret"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "held\n"
        error = refusal(wire.path)
        assert error.reason == "busy"
        assert f"{script} (pid {other.pid})" in str(error)
        assert "secret" not in str(error)
        assert open_port(wire.path, exclusive=False).read() == b""
        other.stdin.close()
    open_port(wire.path)


def test_busy_is_known_from_the_lock_where_the_descriptors_of_others_are_hidden(wire: Wire, tmp_path: Path) -> None:
    node = os.stat(wire.path)
    inode = f"{os.major(node.st_dev):02x}:{os.minor(node.st_dev):02x}:{node.st_ino}"
    (tmp_path / "812").mkdir()
    (tmp_path / "812" / "cmdline").write_bytes(b"/usr/sbin/ModemManager\0")
    (tmp_path / "locks").write_text(
        f"1: POSIX  ADVISORY  WRITE 7 {inode} 0 EOF\n2: FLOCK  ADVISORY  WRITE 812 {inode} 0 EOF\n"
    )
    error = ports_errors.port_error(wire.path, errno.EAGAIN, "busy", proc=tmp_path)
    assert str(error.args[0]).endswith("in use by ModemManager (pid 812)")
    assert "mask --now ModemManager" in error.remedy


def test_two_openings_in_one_agent_are_told_as_such(wire: Wire, open_port: Open) -> None:
    open_port(wire.path)
    assert "this agent itself" in str(refusal(wire.path))
    assert open_port(wire.path, exclusive=False).read() == b""


_AS_NOBODY = """
import os, sys
import serial
from agent.errors import PortError
from agent.ports import SerialSettings, open_serial
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open_serial(SerialSettings(port=sys.argv[1]))
except PortError as error:
    print(error.reason, error, sep="|")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_permission_names_the_group_to_join(wire: Wire) -> None:
    import grp

    node = os.path.realpath(wire.path)
    group = grp.getgrnam("dialout")
    os.chown(node, 0, group.gr_gid)
    os.chmod(node, 0o660)
    os.chmod(Path(wire.path).parent, 0o755)

    def attempt() -> str:
        return subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, node], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.strip()

    said = attempt()
    assert said.startswith("permission|user nobody may not open")
    assert "sudo usermod -aG dialout nobody" in said
    os.chmod(node, 0o600)
    said = attempt()
    assert "crw-------" in said
    assert "udev rule" in said


def test_permission_of_a_service_that_may_not_use_the_device(wire: Wire) -> None:
    error = ports_errors.port_error(wire.path, errno.EPERM, "")
    assert error.reason == "permission"
    assert f"DeviceAllow={os.path.realpath(wire.path)} rw" in error.remedy


@pytest.mark.parametrize("url", ["loop://", "spy:///dev/ttyS0", "nonsense://x"])
def test_urls_without_a_descriptor_name_what_to_use(url: str) -> None:
    error = refusal(url)
    assert error.reason == "unsupported"
    assert url in str(error)
    assert "socket://host:port" in error.remedy


@pytest.mark.parametrize(
    "url", ["socket://", "socket://host", "socket://host:99999", "socket://[::1", "rfc2217://host"]
)
def test_a_socket_url_that_is_none(url: str) -> None:
    assert refusal(url).reason == "unsupported"


def test_what_is_no_serial_port(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refusal(str(tmp_path / "file"))
    assert (error.reason, "is not a serial port" in str(error)) == ("failed", True)
    assert refusal("/dev/null").reason == "failed"
    assert refusal(str(tmp_path)).reason == "failed"


def test_a_failed_opening_leaves_no_descriptor(wire: Wire, open_port: Open) -> None:
    open_port(wire.path)
    before = len(os.listdir("/proc/self/fd"))
    for path in (wire.path, "/dev/null", "/nowhere"):
        refusal(path)
    assert len(os.listdir("/proc/self/fd")) == before


# ---- socket://


def test_a_tcp_serial_server(open_port: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        port = open_port(url)
        assert port.name == url
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"21.5\n")
            assert readable(port)
            assert port.read() == b"21.5\n"
            assert port.read() == b""
            port.write(b"go")
            assert peer.recv(10) == b"go"
            with socket.socket(fileno=os.dup(port.fileno())) as same:
                assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "or a dead server looks silent for ever"
        assert readable(port)
        with pytest.raises(DeviceLost, match="hung up"):
            port.read()
    port.close()
    error = refusal(url)
    assert (error.reason, "refused" in str(error)) == ("failed", True)


def test_the_import_of_pyserial_waits_for_the_first_port() -> None:
    code = "import agent.ports, sys; sys.exit('serial' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
    assert "serial" not in vars(ports)
