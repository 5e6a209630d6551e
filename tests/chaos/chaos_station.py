"""An outstation under attack: the real agent on recorded devices, a broker behind a relay, a subscriber that judges."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Self

from chaos_device import Device
from chaos_judge import Arrival, Break, Breaks, Verdict, judge
from chaos_shims import Reads, merged
from relay import Relay

from agent.testing.children import environment
from agent.testing.toml import dumps
from bench import common

PATIENCE = 60.0
"""Seconds for what must happen; reached only by a run that fails."""

MEMORY = Path("/dev/shm")
"""A tmpfs (shm_overview(7)), not there in some containers. On a disk that is busy, a page that is shared with the agent
and its log would make it wait; and so would the outbox, while kill -9 leaves the page cache, and needs no disk."""

QUICK = {"retry_min": "50ms", "retry_max": "200ms"}
"""A link that does not wait long: it is the outbox that is tried here, and not the back-off."""


class Ledger:
    """What the subscriber got, sorted by device; each message is taken apart once."""

    def __init__(self, recorder: common.Recorder) -> None:
        self._recorder = recorder
        self._lock = Lock()  # stations side by side ask it
        self._seen = 0
        self._arrivals: dict[str, list[Arrival]] = {}
        self._states: dict[str, list[tuple[float, bytes]]] = {}

    def arrivals(self, topic: str) -> list[Arrival]:
        """topic: "<agent>/<device>"."""
        with self._lock:
            self._update()
            return self._arrivals.setdefault(topic, [])

    def states(self, topic: str) -> list[tuple[float, bytes]]:
        """Messages at a topic that is no telemetry, below the base topic, with the time of their arrival."""
        with self._lock:
            self._update()
            return self._states.setdefault(topic, [])

    def _update(self) -> None:
        messages = self._recorder.messages
        begin, self._seen = self._seen, len(messages)  # more may come meanwhile, on the recorder's thread
        for message in messages[begin : self._seen]:
            name, _, last = message.topic.partition("/")[2].rpartition("/")
            if last != "telemetry":
                self._states.setdefault(f"{name}/{last}", []).append((message.at, message.payload))
                continue
            readings = json.loads(message.payload)
            self._arrivals.setdefault(name, []).extend(
                _arrival(reading, message.at) for reading in (readings if isinstance(readings, list) else [readings])
            )


def _arrival(reading: Mapping[str, Any], at: float) -> Arrival:
    return Arrival(
        number=reading["fields"].get("n", -1),
        seq=reading["seq"],
        at=at,
        wall=datetime.fromisoformat(reading["ts"]).timestamp(),
        fields=reading["fields"],
        resumed=reading.get("resumed", False),
        backfill=reading.get("backfill", False),
        unsynced=reading.get("clock") == "unsynced",
    )


def expected(number: int) -> dict[str, Any]:
    """What the reading of that line holds."""
    fields: dict[str, Any] = json.loads(common.body(number))
    return fields


class Station:
    """One agent with one recorded device (or more), which is started, killed and judged."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        *,
        devices: Sequence[str] = ("d",),
        shims: Sequence[Mapping[str, str]] = (),
        url: str | None = None,
        state: Path | None = None,
        more: Sequence[dict[str, Any]] = (),
        **tables: dict[str, Any],
    ) -> None:
        """url: of the broker; default: through a relay of its own, which can be cut. shims: environments of more shims.

        state: the directory of the outbox. more: tables of devices that are not ours; tables: the configuration.
        """
        self.stage = stage
        self.name = name
        self.reads = Reads(stage.folder, name)
        self.devices = {each: Device(stage.folder / f"{name}-{each}", self.reads) for each in devices}
        for device in self.devices.values():
            device.plug()
            stage.stack.callback(device.close)
        self.relay = stage.relay() if url is None else None
        self.state = state or stage.folder / f"{name}-state"
        self.state.mkdir(exist_ok=True)
        self.kills: list[Break] = []
        self.cuts: list[Break] = []
        self.child: common.Child | None = None
        self.tables: dict[str, Any] = {
            "agent": {"id": name, **tables.pop("agent", {})},
            "mqtt": {"urls": [url or self.relay.url], **QUICK, **tables.pop("mqtt", {})},
            "outbox": {"path": str(self.state / "outbox.db"), **tables.pop("outbox", {})},
            **tables,
            "device": [*(common.serial_device(each, Path(made.path)) for each, made in self.devices.items()), *more],
        }
        self._env = environment(merged([self.reads.env, *shims]))

    @property
    def device(self) -> Device:
        """The only, or first, one."""
        return next(iter(self.devices.values()))

    # ---- its life

    def start(self) -> None:
        """Start the agent, and do not wait."""
        config = self.stage.folder / f"{self.name}.toml"
        config.write_text(dumps(self.tables))
        self.child = common.Child([*common.AGENT, config], self.log_file, **self._env)
        self.stage.children.append(self.child)

    @property
    def log_file(self) -> Path:
        return self.stage.folder / f"{self.name}.log"

    @property
    def log(self) -> str:
        """All it has logged, over all its starts."""
        return self.log_file.read_text(errors="replace")

    def open(self) -> None:
        """Wait until it has opened all its ports: from now on the devices may speak."""
        self.until(lambda: all(device.opened() for device in self.devices.values()), "opening of the ports")
        for device in self.devices.values():
            device.begin()

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """Wait for it. Raises AssertionError, with the end of its log, when it does not come or the agent ends."""
        child = self.child

        def ended_or() -> Any:
            if child is not None and child.process.poll() is not None:
                raise AssertionError(
                    f"{self.name} ended, status {child.process.poll()}, before: {what}\n{child.tail()}"
                )
            return condition()

        try:
            return common.wait_for(ended_or, timeout, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{child.tail() if child else ''}") from None

    def kill(self) -> None:
        """kill -9."""
        assert self.child is not None
        begun = time.monotonic()
        self.child.process.kill()
        self.wait(-signal.SIGKILL)
        self.kills.append(Break(begun, time.monotonic()))

    def terminate(self) -> None:
        """A clean stop, which has to be one."""
        assert self.child is not None
        self.child.process.terminate()
        self.wait(0)

    def wait(self, status: int) -> None:
        """Wait for its end. Raises AssertionError if that is not with this status."""
        assert self.child is not None
        found = self.child.process.wait(PATIENCE)
        assert found == status, f"{self.name} ended with status {found}\n{self.child.tail()}"
        self.stage.children.remove(self.child)
        self.child = None
        for device in self.devices.values():
            device.closed()

    def cut(self) -> None:
        """Take the broker away from it."""
        assert self.relay is not None
        with self.breaking():
            self.relay.cut()

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """What is done within breaks its link."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.cuts.append(Break(begun, time.monotonic()))

    def mend(self) -> None:
        assert self.relay is not None
        self.relay.mend()

    # ---- what came of it

    def arrivals(self, device: str | None = None) -> list[Arrival]:
        return self.stage.ledger.arrivals(f"{self.name}/{device or next(iter(self.devices))}")

    def status(self) -> dict[str, Any]:
        """The latest status report that came; empty before the first."""
        reports = self.stage.ledger.states(f"{self.name}/status")
        found: dict[str, Any] = json.loads(reports[-1][1]) if reports and reports[-1][1] else {}
        return found

    def settle(self, lines: int = 5) -> None:
        """Wait until all has arrived that will: last lines of each device, behind everything else, are through."""
        for device in self.devices.values():
            for _ in range(lines):
                device.line()
        for name, device in self.devices.items():
            wanted = device.number - 1
            self.until(
                lambda name=name, wanted=wanted: any(a.number == wanted for a in self.arrivals(name)[-2000:]),
                f"arrival of line {wanted} of {name}",
            )

    def verdict(self, *, bound: float = 0.0, times: bool = True) -> Verdict:
        """The judge's, of all devices. times: judge ``ts`` too, by the true clock."""
        offset = time.time() - time.monotonic() if times else None
        breaks = Breaks(self.kills, self.cuts)
        verdict = Verdict()
        for name, device in self.devices.items():
            verdict += judge(
                device.lines(),
                self.arrivals(name),
                breaks,
                bound=bound,
                wall_offset=offset,
                fields=expected,
            )
        return verdict


class Stage:
    """A folder, a broker, the judge's subscription: all that stations share. Everything is gone at the end."""

    def __init__(self, *, address: str | None = None) -> None:
        """address: where the broker listens besides 127.0.0.1."""
        self._stage = common.Stage(durable=True, parent=MEMORY if MEMORY.is_dir() else None)
        self.folder: Path = self._stage.folder
        self.broker: common.Broker = self._stage.broker
        self.children: list[common.Child] = self._stage.children
        self.stack = ExitStack()
        if address is not None:
            self.broker.addresses.append(address)
        self.recorder: common.Recorder
        self.ledger: Ledger

    def __enter__(self) -> Self:
        self.stack.callback(self._stage.close)
        try:
            self.broker.start()
            # At QoS 1, with a session that the broker has on disk: what the judge misses, the agent has lost.
            self.recorder = self._stage.recorder("outstation/#", session="judge")
            self.broker.save()
        except BaseException:
            self.stack.close()
            raise
        self.ledger = Ledger(self.recorder)
        return self

    def __exit__(self, *_: object) -> None:
        # First the agents: without a broker they would only log.
        for child in self.children:
            child.process.kill()
            child.process.wait()
        self.stack.close()

    def on_disk(self, name: str) -> Path:
        """A directory where temporary files are: for an outbox on a real disk, as the machine has it."""
        folder = Path(tempfile.mkdtemp(prefix=f"outstation-{name}-"))
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def relay(self) -> Relay:
        return self.stack.enter_context(Relay(self.broker.port))
