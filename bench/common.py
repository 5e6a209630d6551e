"""What all benchmarks of the whole agent share: a broker, a lean subscriber, serial lines on ptys, and a child that is
measured.

Everything is measured from outside the agent: what was written to a pty, with CLOCK_MONOTONIC, against what a
subscriber of the broker got. The agent's own word counts for nothing here. Each benchmark starts what it needs below a
folder of its own, ends it, and leaves nothing behind. Linux, Mosquitto >= 2.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import box

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
AGENT = [sys.executable, "-m", "agent", "run", "-c"]


def wait_for(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """Poll condition every 2 ms; what it gave once that is true. Raises TimeoutError, which names what."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout} s")
        time.sleep(0.002)
    return value


def sleep_until(moment: float) -> None:
    """moment: seconds of CLOCK_MONOTONIC."""
    if (left := moment - time.monotonic()) > 0:
        time.sleep(left)


# ---- the end


def _leave(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what is being ended from here on shall be
    raise SystemExit(128 + number)


@contextmanager
def in_order(end: Callable[[], object]) -> Iterator[None]:
    """Call end at the end, also where SIGTERM or a closed terminal is the end, which else would end us alone.

    Signals that come meanwhile change nothing: what was started would be left behind. On the main thread alone.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] is not signal.SIG_IGN]  # nohup(1) wants to outlive it
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_IGN)
        try:
            end()
        finally:
            for number in ours:
                signal.signal(number, before[number])


def run(command: Sequence[str], **env: str) -> int:
    """Its exit status. A signal that ends us ends it first, which ends what it has started."""
    with ExitStack() as ends, in_order(ends.close):
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env})
        ends.callback(process.wait)
        ends.callback(process.terminate)  # of one that was waited for already it does nothing
        return process.wait()


# ---- the broker


class Broker:
    """A Mosquitto of our own on a free port of 127.0.0.1, killed and started again at will.

    ``durable`` keeps sessions over a kill (``save`` writes them): a subscriber with a session then misses nothing, so
    that what is lost was lost by the agent. ``quiet``: it logs errors alone; a line for each packet costs it as much as
    the packet.
    """

    def __init__(self, folder: Path, *, durable: bool = False, quiet: bool = False) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
        if program is None:
            raise SystemExit("bench: Mosquitto is not installed (apt install mosquitto)")
        self.program = program
        self.folder = folder
        self.durable = durable
        self.quiet = quiet
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.log = folder / "mosquitto.log"
        self.addresses = ["127.0.0.1"]
        """Where it listens; more may be added before the start, for clients in another network namespace."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self.folder / "mosquitto.conf"
        lines = [
            *(f"listener {self.port} {address}" for address in self.addresses),
            "allow_anonymous true",
            "set_tcp_nodelay true",  # Nagle in the broker would be measured as ours
            "max_queued_messages 0",
            "max_inflight_messages 0",
            "log_dest stderr",
            "log_type error" if self.quiet else "log_type all",
        ]
        if self.durable:
            lines += ["persistence true", f"persistence_location {self.folder}/", "autosave_interval 0"]
        if os.geteuid() == 0:
            lines.append("user root")  # it would become "mosquitto", who may not write to our folder
        config.write_text("\n".join(lines) + "\n")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-c", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_for(self._listens, 10, "Mosquitto's start")

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def save(self) -> None:
        """Have sessions and subscriptions written to disk."""
        assert self.process
        database = self.folder / "mosquitto.db"
        before = database.stat().st_mtime_ns if database.exists() else 0
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: database.exists() and database.stat().st_mtime_ns != before, 5, "Mosquitto's save")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


# ---- the subscriber


@dataclass(slots=True)
class Message:
    """A PUBLISH as it came; ``at``: CLOCK_MONOTONIC in seconds when the bytes were read from the socket."""

    topic: str
    payload: bytes
    retain: bool
    at: float


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length = len(body)
    size = bytearray()
    while True:
        length, digit = divmod(length, 128)
        size.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(size) + body


class Subscriber:
    """MQTT 3.1.1 by hand, as little as it takes: a library's own cost would be measured as latency.

    session: a name keeps a session in the broker over lost connections (with QoS 1).
    """

    def __init__(self, port: int, topics: str = "#", *, session: str = "") -> None:
        self.port = port
        self.topics = topics
        self.session = session
        self._buffer = bytearray()
        self._connect()

    def _connect(self) -> None:
        self._buffer.clear()
        self.socket = socket.create_connection(("127.0.0.1", self.port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clean = 0 if self.session else 2
        self.socket.sendall(_packet(0x10, _string("MQTT") + bytes([4, clean, 0, 0]) + _string(self.session)))
        qos = 1 if self.session else 0
        self.socket.sendall(_packet(0x82, b"\0\1" + _string(self.topics) + bytes([qos])))
        self._held: list[Message] = []
        granted = False
        while not granted:  # messages of a resumed session may come before the SUBACK
            for kind, body, at in self._receive():
                granted = granted or kind >> 4 == 9
                self._held += self._message(kind, body, at)

    def fileno(self) -> int:
        return self.socket.fileno()

    def _receive(self) -> list[tuple[int, bytes, float]]:
        data = self.socket.recv(65536)
        at = time.monotonic()
        if not data:
            raise ConnectionError("the broker closed the connection")
        buffer = self._buffer
        buffer += data
        packets = []
        while len(buffer) >= 2:
            length = shift = 0
            head = 1
            while head < len(buffer):
                digit = buffer[head]
                length |= (digit & 127) << shift
                shift += 7
                head += 1
                if digit < 128:
                    break
            else:
                break
            if len(buffer) < head + length:
                break
            packets.append((buffer[0], bytes(buffer[head : head + length]), at))
            del buffer[: head + length]
        return packets

    def _message(self, kind: int, body: bytes, at: float) -> list[Message]:
        if kind >> 4 != 3:
            return []
        size = int.from_bytes(body[:2], "big")
        rest = body[2 + size :]
        if kind & 0x06:
            self.socket.sendall(b"\x40\x02" + rest[:2])
            rest = rest[2:]
        return [Message(body[2 : 2 + size].decode(), rest, bool(kind & 1), at)]

    def poll(self, timeout: float) -> list[Message]:
        """What has come; waits at most timeout seconds for the first. Raises OSError when the broker is gone."""
        if self._held:
            held, self._held = self._held, []
            return held
        if not select.select([self.socket], [], [], max(0.0, timeout))[0]:
            return []
        return [message for packet in self._receive() for message in self._message(*packet)]

    def close(self) -> None:
        self.socket.close()


class Recorder(threading.Thread):
    """A subscriber on a thread of its own that keeps everything, and connects again when the broker is back."""

    def __init__(self, port: int, topics: str = "#", *, session: str = "") -> None:
        super().__init__(daemon=True)
        self.messages: list[Message] = []
        self.connected = True
        self._subscriber = Subscriber(port, topics, session=session)
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self.messages += self._subscriber.poll(0.05)
            except OSError:
                self.connected = False
                self._subscriber.close()
                while not self._ended.wait(0.01):
                    with suppress(OSError):
                        self._subscriber._connect()
                        self.connected = True
                        break

    def of(self, ending: str) -> list[Message]:
        return [message for message in list(self.messages) if message.topic.endswith(ending)]

    def close(self) -> None:
        self._ended.set()
        self.join(5)
        self._subscriber.close()


# ---- serial lines


class Line:
    """A serial line: a pty in raw mode behind a stable symlink. ``unplug`` takes both away, ``plug`` makes new ones."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.master = -1
        self._slave = -1
        self.plug()

    def plug(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave, termios.TCSANOW)
        os.set_blocking(self.master, False)
        os.symlink(os.ttyname(self._slave), self.link)

    def unplug(self) -> None:
        if self.master >= 0:
            self.link.unlink()
            os.close(self.master)
            os.close(self._slave)
            self.master = self._slave = -1

    def write(self, text: str) -> bool:
        """Send one line; False, and nothing sent, if the reader is so far behind that the kernel's buffer is full."""
        data = text.encode() + b"\n"
        try:
            sent = os.write(self.master, data)
        except BlockingIOError:
            return False
        assert sent == len(data), "the pty took half a line"
        return True


# ---- the child that is measured


_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""As installed: pip compiles all modules, and from a source tree the first start does. Compiled at each start they
would cost 80 ms of it."""


class Child:
    """A process under measurement: the agent or a peer."""

    def __init__(self, command: Sequence[str | Path], log: Path, **env: str) -> None:
        self.log = log
        self.usage: Any = None
        with log.open("ab") as stream:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**_ENVIRONMENT, "PYTHONUNBUFFERED": "1", **env},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads, to the nanosecond: the process's clock (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def _status(self, key: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
        raise KeyError(key)

    def rss(self) -> float:
        """MiB resident now."""
        return self._status("VmRSS:")

    def peak_rss(self) -> float:
        """MiB resident at most so far."""
        return self._status("VmHWM:")

    def written(self) -> int:
        """Bytes that it has had written to disks so far (proc(5), /proc/pid/io)."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes"):
                return int(line.split()[1])
        raise KeyError("write_bytes")

    def switches(self) -> int:
        """Voluntary context switches so far, of all threads: how often it was woken."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    def end(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Send the signal and wait; the exit status (negative: killed by that signal)."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise SystemExit(
                f"bench: process {self.pid} did not end within {timeout} s; its log:\n{self.tail()}"
            ) from None

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


def toml(value: object) -> str:
    """A value on one line; of what we write, a string, number or boolean has the same form in JSON."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def serial_device(name: str, line: Line | Path, **options: object) -> dict[str, object]:
    port = line.link if isinstance(line, Line) else line
    return {"name": name, "driver": "lines", "port": str(port), "format": "json", **options}


class Stage:
    """A folder, a broker in it, and whatever runs beside: all gone at the end."""

    def __init__(self, *, durable: bool = False, quiet: bool = False, parent: Path | None = None) -> None:
        """parent: where the folder is made; default: where temporary files are."""
        self.folder = Path(tempfile.mkdtemp(prefix="outstation-bench-", dir=parent))
        self.broker = Broker(self.folder, durable=durable, quiet=quiet)
        self.children: list[Child] = []
        self.lines: list[Line] = []
        self.recorders: list[Recorder] = []
        self.boxes: list[box.Box] = []

    def line(self, name: str, folder: str = ".") -> Line:
        """folder: below the stage's own, for a second line of the same name."""
        (self.folder / folder).mkdir(exist_ok=True)
        made = Line(self.folder / folder / f"tty-{name}")
        self.lines.append(made)
        return made

    def recorder(self, topics: str = "#", *, session: str = "") -> Recorder:
        made = Recorder(self.broker.port, topics, session=session)
        self.recorders.append(made)
        return made

    def configure(
        self, devices: Sequence[dict[str, object]], *, agent: str = "bench", **tables: dict[str, object]
    ) -> Path:
        """Write the configuration of an agent with these devices, in one step; tables: as mqtt={"qos": 0}."""
        tables = {"agent": {"id": agent}, **tables}
        tables["mqtt"] = {"urls": [self.broker.url], **tables.get("mqtt", {})}
        text = ""
        for table, options in tables.items():
            text += f"[{table}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in options.items())
        for device in devices:
            text += "[[device]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in device.items())
        config = self.folder / f"{agent}.toml"
        draft = config.with_suffix(".new")
        draft.write_text(text)
        return draft.replace(config)

    def agent(
        self, devices: Sequence[dict[str, object]], *, agent: str = "bench", **tables: dict[str, object]
    ) -> Child:
        """`outstation run` with these devices; tables: further tables of the configuration, as mqtt={"qos": 0}."""
        config = self.configure(devices, agent=agent, **tables)
        state = self.folder / f"{agent}-state"
        state.mkdir(exist_ok=True)
        return self.run([*AGENT, config], agent, STATE_DIRECTORY=str(state))

    def bare(self, lines: Sequence[Line], *, name: str = "bare", options: Sequence[str] = ()) -> Child:
        """The script that people write instead: pyserial and paho, nothing else."""
        return self.peer("bare.py", name, *lines, options=options)

    def peer(self, script: str, name: str, *lines: Line, options: Sequence[str] = ()) -> Child:
        """A script of bench/peers, which publishes as agent ``name``; devices are called as the lines' links are."""
        ports = [f"{line.link.name.removeprefix('tty-')}={line.link}" for line in lines]
        return self.run([sys.executable, PEERS / script, str(self.broker.port), name, *options, *ports], name)

    def run(self, command: Sequence[str | Path], name: str, **env: str) -> Child:
        """A process to be measured; in a box of its own where bench/zero.py asks for that."""
        if made := box.asked_for():
            self.boxes.append(made)
            made.open()
            command = made.inside(command)
        child = Child(command, self.folder / f"{name}.log", **env)
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in self.children:
            with suppress(ProcessLookupError):
                if child.process.poll() is None:
                    child.process.kill()
                    child.process.wait()
        for each in self.boxes:
            each.close()
        for recorder in self.recorders:
            recorder.close()
        self.broker.kill()
        for line in self.lines:
            line.unplug()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def stage(*, durable: bool = False, quiet: bool = False) -> Iterator[Stage]:
    with ExitStack() as ends, in_order(ends.close):
        made = Stage(durable=durable, quiet=quiet)
        ends.callback(made.close)
        try:
            made.broker.start()
            yield made
        except (TimeoutError, AssertionError):
            for child in made.children:
                print(f"---- log of {child.log.stem}\n{child.tail()}", file=sys.stderr)
            raise


def body(number: int) -> str:
    """A line as a weather station sends it; number is what the judge goes by."""
    return f'{{"n":{number},"temperature":{20 + number % 50 / 10},"humidity":44.1,"pressure":1013.25}}'


PROBE = -1
"""The number of lines that only ask whether somebody reads already."""


def warm_up(recorder: Recorder, wanted: dict[str, Line], child: Child, timeout: float = 20) -> None:
    """Send probes to each line until its first reading is in the broker, then until all are. wanted: topic -> line."""
    deadline = time.monotonic() + timeout
    while missing := [topic for topic in wanted if not recorder.of(topic)]:
        if time.monotonic() > deadline or child.process.poll() is not None:
            raise TimeoutError(f"no reading came at {missing}")
        for topic in missing:
            wanted[topic].write(body(PROBE))
        time.sleep(0.05)
    # What was written before the port was opened may have been discarded: wait for quiet, not for a count.
    seen = -1
    while seen != len(recorder.messages):
        seen = len(recorder.messages)
        time.sleep(0.3)


# ---- the judge


@dataclass
class Verdict:
    """What became of the numbers 0..sent-1 that were written to one line."""

    sent: int
    received: int
    lost: int
    duplicates: int
    disordered: int

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def judge(sent: int, numbers: Iterable[int]) -> Verdict:
    """First arrivals must come in order; later ones of the same number are duplicates."""
    seen: set[int] = set()
    duplicates = disordered = 0
    last = -1
    for number in numbers:
        if number in seen:
            duplicates += 1
            continue
        seen.add(number)
        disordered += number < last
        last = max(last, number)
    return Verdict(sent, len(seen), sent - len(seen), duplicates, disordered)


def readings(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    """The readings of telemetry messages, batches taken apart."""
    for message in messages:
        body = json.loads(message.payload)
        yield from body if isinstance(body, list) else [body]


def numbers(messages: Iterable[Message]) -> list[int]:
    """The numbers that were written with `body`, in order of arrival, probes left out."""
    found = [reading["fields"]["n"] for reading in readings(messages)]
    return [number for number in found if number != PROBE]


# ---- figures


def quantile(values: Sequence[float], q: float) -> float:
    """By the nearest rank; nan of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)] if ordered else math.nan


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    ms = [value * 1000 for value in seconds]
    return {
        "samples": len(ms),
        "p50_ms": quantile(ms, 0.5),
        "p90_ms": quantile(ms, 0.9),
        "p99_ms": quantile(ms, 0.99),
        "max_ms": max(ms, default=math.nan),
        "mean_ms": statistics.fmean(ms) if ms else math.nan,
    }


def machine() -> dict[str, object]:
    model = ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                model = line.partition(":")[2].strip()
                break
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    made.add_argument("--quick", action="store_true", help="a short run: shows that it works, not the figures")
    return made


Row = dict[str, object]


@dataclass
class Limit:
    """What was promised, in words, and whether it was met. speed: it depends on the machine; a quick run forgives."""

    promise: str
    met: bool
    speed: bool = False


def show(
    name: str,
    rows: Sequence[Row],
    limits: Sequence[Limit],
    options: argparse.Namespace,
    where: dict[str, object],
    ratios: Mapping[str, float] | None = None,
) -> int:
    """Print the table and what was promised; the exit status: 1 if a promise was not met that this run judges.

    ratios: ours beside others' of the same run, more is better; bench/guard.py compares them with earlier ones.
    """

    def text(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
        return str(value)

    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([text(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    load = f"load {where['load_before']:.2f} before"
    print(f"{name}: Python {where['python']}, {where['cores']} cores, {where['cpu'] or where['machine']}, {load}")
    for line in cells:
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    missed = False
    for limit in limits:
        judged = not (limit.speed and options.quick)
        missed |= judged and not limit.met
        verdict = "met" if limit.met else "MISSED" if judged else "missed, not judged in a quick run:"
        print(f"  {verdict:<6}  {limit.promise}")
    sys.stdout.flush()
    if options.json:
        result = {
            "benchmark": name,
            "machine": where,
            "rows": rows,
            "limits": [vars(limit) for limit in limits],
            "ratios": dict(ratios or {}),
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if missed else 0
