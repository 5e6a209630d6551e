"""The whole agent, as a process of its own, between a device on a pty and a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from relay import Relay

from agent.stopping import ONE_BREATH
from agent.testing import Broker, PtyPort
from agent.testing.outstation import Outstation

ROOT = Path(__file__).parents[2]
Start = Callable[..., Outstation]
MakeDevice = Callable[..., PtyPort]


def lines(name: str, device: PtyPort | str, **more: Any) -> dict[str, Any]:
    port = device if isinstance(device, str) else device.path
    return {"name": name, "driver": "lines", "port": port, "format": "json", **more}


def numbers(outstation: Outstation, device: str) -> list[int]:
    return [reading.fields["n"] for reading in outstation.readings(device)]


def burst(device: PtyPort, first: int, last: int) -> None:
    """Lines {"n": first} to {"n": last}."""
    device.flood(json.dumps({"n": n}) for n in range(first, last + 1))


@pytest.fixture
def relay(outstation_broker: Broker) -> Iterator[Relay]:
    with Relay(outstation_broker.port) as relay:
        yield relay


# -- the way of a reading -------------------------------------------------------------------------------------------


def test_a_plain_connection_carries_no_openssl(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start({"device": [lines("weather", serial_device)]})
    serial_device.send('{"n": 1}')
    outstation.next_reading("weather")
    mapped = Path(f"/proc/{outstation.pid}/maps").read_text()
    assert "libc.so" in mapped or "musl" in mapped
    assert not re.findall(r"libssl|libcrypto|_ssl\.|_hashlib\.", mapped)


def test_an_agent_without_devices_is_up_at_once(outstation_start: Start) -> None:
    outstation = outstation_start({})
    outstation.wait_online()
    assert "outbox.degraded" not in outstation.log


def test_a_line_becomes_a_reading_in_the_broker(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start({"device": [lines("weather", serial_device)]})
    serial_device.send('{"temperature": 21.5, "humidity": 44.1}')
    serial_device.send("{broken")
    serial_device.send('{"temperature": 21.6}')
    first, second = outstation.next_reading("weather"), outstation.next_reading("weather")
    assert first.fields == {"temperature": 21.5, "humidity": 44.1}
    assert list(first.fields) == ["temperature", "humidity"]
    assert (first.seq, second.seq) == (1, 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first.ts)
    assert first.ts < second.ts
    assert not first.extra
    status = outstation.wait_status(lambda s: s["devices"]["weather"]["faults"])
    assert status["devices"]["weather"]["faults"]["syntax"]["count"] == 1
    assert status["devices"]["weather"]["faults"]["syntax"]["bytes"] == "{broken"
    assert status["readings"]["added"] == status["readings"]["written"] == 2
    assert status["link"]["state"] == "up"


def test_state_topics_are_retained_for_who_comes_later(
    serial_device: PtyPort, outstation_start: Start, outstation_broker: Broker
) -> None:
    from agent.testing import Subscriber

    channels = {"t": {"unit": "°C", "device_class": "temperature"}}
    outstation = outstation_start({"device": [lines("weather", serial_device, channels=channels)]})
    outstation.status()
    with Subscriber(outstation_broker.url, "outstation/#") as late:
        seen = {}
        while len(seen) < 4:
            message = late.next()
            if message.topic in seen:
                continue
            assert message.retain
            seen[message.topic] = message.payload
    assert seen["outstation/test/availability"] == b"online"
    assert seen["outstation/test/weather/availability"] == b"online"
    info = json.loads(seen["outstation/test/info"])
    assert info["agent"] == "test"
    assert info["devices"]["weather"]["driver"] == "lines"
    assert info["devices"]["weather"]["channels"][0]["name"] == "t"
    assert info["devices"]["weather"]["channels"][0]["unit"] == "°C"
    status = json.loads(seen["outstation/test/status"])
    assert {"ts", "agent", "uptime_s", "versions", "link", "readings", "outbox", "devices", "loop", "workers"} <= set(
        status
    )
    assert status["process"]["rss_bytes"] > 1_000_000
    assert status["hotplug"] == {"degraded": None}


def test_the_host_reports_beside_serial_devices(serial_device: PtyPort, outstation_start: Start) -> None:
    host = {"name": "host", "driver": "host", "interval": "200ms"}
    outstation = outstation_start({"device": [host, lines("weather", serial_device)]})
    first, second = outstation.next_reading("host"), outstation.next_reading("host")
    assert second.seq == first.seq + 1
    assert 0 < second.fields["memory_percent"] <= 100
    serial_device.send('{"n": 1}')
    assert outstation.next_reading("weather").fields == {"n": 1}


def test_batches_are_arrays_in_order(outstation_make_device: MakeDevice, outstation_start: Start, relay: Relay) -> None:
    devices = {name: outstation_make_device() for name in ("a", "b")}
    config = {
        "mqtt": {"batch": 10, "urls": [relay.url]},
        "device": [lines(name, device) for name, device in devices.items()],
    }
    outstation = outstation_start(config)
    relay.cut()
    outstation.wait_log(r"link\.down")
    for device in devices.values():
        burst(device, 1, 45)
    relay.mend()
    for name in devices:
        assert [r.fields["n"] for r in outstation.wait_readings(name, 45)] == list(range(1, 46))
    sizes = [len(m.json()) for m in outstation.subscriber.messages if m.topic.endswith("/telemetry")]
    assert max(sizes) == 10


# -- devices that come and go ---------------------------------------------------------------------------------------


def test_a_port_that_is_missing_at_start_is_taken_when_it_comes(
    serial_device: PtyPort, outstation_start: Start
) -> None:
    serial_device.unplug()
    outstation = outstation_start({"device": [lines("weather", serial_device)]})
    line = outstation.wait_log(r"device\.unavailable device=weather .*")
    assert serial_device.path in line[0]
    outstation.wait_status(lambda s: s["devices"]["weather"]["state"] == "waiting")
    serial_device.replug()
    outstation.wait_online("weather")
    serial_device.send('{"n": 1}')
    assert outstation.next_reading("weather").fields == {"n": 1}


def test_unplugged_and_plugged_in_again(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start({"device": [lines("weather", serial_device)]})
    for number in range(1, 6):
        serial_device.send(json.dumps({"n": number}))
        assert outstation.next_reading("weather").fields == {"n": number}
        serial_device.send(b'{"half": ')
        serial_device.unplug()
        outstation.wait_offline("weather")
        serial_device.replug()
        outstation.wait_online("weather")
    status = outstation.wait_status(lambda s: s["devices"]["weather"]["openings"] == 6)
    assert status["devices"]["weather"]["readings"] == 5
    assert [r.seq for r in outstation.readings("weather")] == [1, 2, 3, 4, 5]


# -- the broker comes and goes --------------------------------------------------------------------------------------


def test_a_lost_broker_costs_no_reading_and_no_order(
    serial_device: PtyPort, outstation_start: Start, relay: Relay
) -> None:
    config = {"mqtt": {"urls": [relay.url]}, "device": [lines("weather", serial_device)]}
    outstation = outstation_start(config, timeout=40.0)  # a link that is lost so often rests for seconds
    last = 0
    for outage in range(1, 4):
        outstation.wait_status(lambda s, n=outage: s["link"]["connects"] >= n)  # before the cut: none comes after it
        relay.cut()
        burst(serial_device, last + 1, last + 300)
        last += 300
        relay.mend()
        while len(set(numbers(outstation, "weather"))) < last:  # what was in flight may arrive twice
            outstation.wait_readings("weather", len(outstation.readings("weather")) + 1)
    first_arrivals = list(dict.fromkeys(numbers(outstation, "weather")))
    assert first_arrivals == list(range(1, last + 1))
    before = len(outstation.readings("weather"))
    serial_device.send('{"n": 0}')
    readings = outstation.wait_readings("weather", before + 1)
    assert readings[-1].extra == {}
    assert any(reading.extra == {"backfill": True} for reading in readings)
    status = outstation.wait_status(lambda s: s["link"]["reconnects"] == 3 and s["outbox"]["depth"] == 0)
    assert status["readings"]["dropped"] == 0


# -- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_delivers_all_that_was_read_and_says_offline_itself(
    number: signal.Signals, serial_device: PtyPort, outstation_start: Start
) -> None:
    outstation = outstation_start({"device": [lines("weather", serial_device)]})
    burst(serial_device, 1, 2000)
    outstation.wait_readings("weather", 500)
    outstation.signal(number)
    assert outstation.wait() == 0
    outstation.wait_offline("weather")
    outstation.wait_offline()
    assert numbers(outstation, "weather") == list(range(1, 2001))
    own = [m for m in outstation.subscriber.messages if m.topic == "outstation/test/availability"]
    assert [m.payload for m in own] == [b"online", b"offline"]  # a Will would be another "offline"
    assert own[-1].at > [m for m in outstation.subscriber.messages if m.topic.endswith("/telemetry")][-1].at
    assert "agent.stopped unsent=0" in outstation.log
    assert "Traceback" not in outstation.log


def stop_without_broker(outstation: Outstation, broker: Broker, device: PtyPort) -> None:
    """A clean stop with seven lines to send and nobody who takes them."""
    broker.freeze()
    try:
        burst(device, 1, 7)
        outstation.signal(signal.SIGTERM)
        assert outstation.wait(5) == 0
    finally:
        broker.thaw()


def test_a_stop_without_broker_and_disk_says_what_is_lost_and_not_that_it_is_kept(
    serial_device: PtyPort, outstation_start: Start, outstation_broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")  # where the outbox's folder should be
    config = {
        "agent": {"stop_timeout": "600ms"},
        "outbox": {"path": str(tmp_path / "file" / "outbox.db")},
        "device": [lines("weather", serial_device)],
    }
    outstation = outstation_start(config)
    stop_without_broker(outstation, outstation_broker, serial_device)
    assert "outbox.lost readings=7" in outstation.log
    assert "agent.kept" not in outstation.log


@pytest.mark.parametrize("durability", ["memory", "spill", "strict"])
def test_a_stop_without_a_broker_ends_in_time_and_keeps_what_it_can(
    serial_device: PtyPort, outstation_start: Start, outstation_broker: Broker, durability: str
) -> None:
    config = {
        "agent": {"stop_timeout": "600ms"},
        "outbox": {"durability": durability},
        "device": [lines("weather", serial_device)],
    }
    outstation = outstation_start(config)
    stop_without_broker(outstation, outstation_broker, serial_device)
    if durability == "memory":
        assert "agent.unsent readings=7" in outstation.log
        return
    assert "agent.kept readings=7" in outstation.log
    outstation.start()
    burst(serial_device, 8, 9)
    readings = outstation.wait_readings("weather", 9)
    while {reading.fields["n"] for reading in readings} != set(range(1, 10)):
        # More than nine: the broker has taken some without saying so.
        readings = outstation.wait_readings("weather", len(readings) + 1)
    assert {reading.seq for reading in readings} == set(range(1, 10))


def test_a_second_stop_signal_ends_it_at_once(
    serial_device: PtyPort, outstation_start: Start, outstation_broker: Broker
) -> None:
    config = {"agent": {"stop_timeout": "10m"}, "device": [lines("weather", serial_device)]}
    outstation = outstation_start(config)
    outstation_broker.freeze()
    try:
        burst(serial_device, 1, 3)
        # There must be something to wait for: else it says offline, and goes.
        while not re.search(r'"depth": [1-9]', outstation.log):
            outstation.signal(signal.SIGUSR1)
            with contextlib.suppress(AssertionError):
                outstation.wait_log(r'"depth": [1-9]', timeout=0.2)
        outstation.signal(signal.SIGTERM)
        outstation.signal(signal.SIGTERM)  # in one breath, as timeout(1) does: the same wish
        outstation.wait_log(r"agent\.stopping signal=SIGTERM")
        status = None
        while status is None:  # the breath began a little after the line in the log
            try:
                status = outstation.wait(ONE_BREATH)
            except AssertionError:
                outstation.signal(signal.SIGTERM)
        assert status == 128 + signal.SIGTERM
    finally:
        outstation_broker.thaw()
    assert "agent.forced signal=SIGTERM" in outstation.log


def test_sigusr1_dumps_the_state_and_sighup_does_not_kill(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start({"device": [lines("weather", serial_device)]})
    outstation.signal(signal.SIGUSR1)
    outstation.wait_log(r"agent\.state")
    outstation.wait_log(r'"name": "weather\.open"')
    outstation.signal(signal.SIGHUP)
    outstation.wait_log(r"config\.unchanged devices=1")
    serial_device.send('{"n": 1}')
    assert outstation.next_reading("weather").fields == {"n": 1}


# -- systemd --------------------------------------------------------------------------------------------------------


def test_what_systemd_hears(serial_device: PtyPort, outstation_start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        outstation = outstation_start({"device": [lines("weather", serial_device)]}, env=env)
        heard = []
        while heard.count("WATCHDOG=1") < 3 or not any("broker up, 1 of 1 devices online" in text for text in heard):
            heard.append(manager.recv(4096).decode())
        assert heard[0].startswith("READY=1\nSTATUS=")
        outstation.signal(signal.SIGTERM)
        while not heard[-1].startswith("STOPPING=1"):
            heard.append(manager.recv(4096).decode())
        assert outstation.wait() == 0


# -- drivers of others ----------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Installs a module with a driver ``Own`` as another distribution would; returns the agent's environment."""

    def install(source: str) -> dict[str, str]:
        site = tmp_path / "site"
        (site / "own-1.0.dist-info").mkdir(parents=True)
        (site / "own-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
        (site / "own-1.0.dist-info" / "entry_points.txt").write_text("[outstation.drivers]\nown = own:Own\n")
        (site / "own.py").write_text(textwrap.dedent(source))
        return {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}

    return install


HANGING = """
    import time
    from agent.driver import Driver

    class Own(Driver):
        '''Hangs.'''

        def start(self, port):
            self.ctx.every(0.2, self.poll)

        def poll(self):
            time.sleep(60)  # the line
"""


def test_a_callback_that_hangs_is_named_with_file_and_line(
    plugin: Callable[[str], dict[str, str]], outstation_start: Start
) -> None:
    outstation = outstation_start({"device": [{"name": "own", "driver": "own"}]}, env=plugin(HANGING))
    number = HANGING.splitlines().index("            time.sleep(60)  # the line") + 1
    outstation.wait_log(rf"own\.py.*{number}", 5)
    assert "own.poll" in outstation.log
    outstation.kill()


def test_a_callback_that_hangs_ends_the_process_where_that_is_asked_for(
    plugin: Callable[[str], dict[str, str]], outstation_start: Start
) -> None:
    config = {"loop": {"on_slow": "stop", "hang_after": "500ms"}, "device": [{"name": "own", "driver": "own"}]}
    outstation = outstation_start(config, env=plugin(HANGING), wait=False)
    assert outstation.wait() == 70
    assert "own.poll" in outstation.log
    assert "own.py" in outstation.log


def test_a_slow_callback_ends_the_loop_in_order_where_that_is_asked_for(
    plugin: Callable[[str], dict[str, str]], outstation_start: Start
) -> None:
    config = {"loop": {"on_slow": "stop"}, "device": [{"name": "own", "driver": "own"}]}
    outstation = outstation_start(config, env=plugin(HANGING.replace("60", "0.3")), wait=False)
    assert outstation.wait() == 70
    assert re.search(r"agent\.ended reason=.*own\.poll", outstation.log)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_heavy_parser_holds_nobody_up(
    kind: str,
    plugin: Callable[[str], dict[str, str]],
    outstation_make_device: MakeDevice,
    outstation_start: Start,
    tmp_path: Path,
) -> None:
    env = plugin("""
        import os
        from agent.driver import Parser, Sample, SerialConfig, StreamDriver

        class Slow(Parser):
            def feed(self, data):
                fd = os.open(os.environ["GATE"], os.O_RDONLY)  # a FIFO: waits for the test
                os.close(fd)
                yield Sample({"bytes": len(data)})

        class Own(StreamDriver):
            '''Waits for the test.'''
            Config = SerialConfig
            heavy = True

            def parser(self):
                return Slow()
    """)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow, quick = outstation_make_device(), outstation_make_device()
    config = {
        "workers": {"kind": kind},
        "device": [{"name": "slow", "driver": "own", "port": slow.path}, lines("quick", quick)],
    }
    outstation = outstation_start(config, env={**env, "GATE": str(gate)})
    slow.send(b"12345678")
    outstation.wait_status(lambda s: s["workers"]["running"] == 1)
    quick.send('{"n": 1}')
    assert outstation.next_reading("quick").fields == {"n": 1}
    assert not outstation.readings("slow")
    os.close(os.open(gate, os.O_WRONLY))
    assert outstation.next_reading("slow").fields == {"bytes": 8}
    processes = outstation.wait_status(lambda s: s["workers"]["running"] == 0)["workers"]["processes"]
    assert processes == ({"processes": 1, "replaced": 0, "parsers": 1} if kind == "process" else None)
    assert outstation.terminate() == 0


# -- configuration --------------------------------------------------------------------------------------------------


def test_a_wrong_configuration_ends_with_78_and_all_that_is_wrong(outstation_start: Start) -> None:
    config = {"device": [{"name": "status", "driver": "lines", "port": "/dev/null", "fromat": "json"}]}
    outstation = outstation_start(config, wait=False)
    assert outstation.wait() == 78
    assert "fromat" in outstation.log
    assert "reserved" in outstation.log
    assert "Traceback" not in outstation.log
