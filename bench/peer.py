"""What the agent stands beside: other ways from a serial line to a broker, started alike and known by their names.

Each reads one line's pty. Those that are not installed are left out, and `missing` says so.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import common

FLOOR, BARE, READLINE, AIOMQTT, MQTT_IO, MOSQUITTO_PUB = (
    "floor",
    "bare",
    "bare readline",
    "aiomqtt",
    "mqtt-io",
    "mosquitto_pub",
)
AGENT = "outstation"


_SCRIPTS = {
    FLOOR: "floor.py",
    BARE: "bare.py",
    READLINE: "bare_readline.py",
    AIOMQTT: "aiomqtt_serial.py",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """Who reads the line, and as what it is told to do it."""

    who: str
    qos: int = 1
    batch: int | str = 1
    durability: str = "spill"

    @property
    def name(self) -> str:
        """As rows of results name it."""
        return f"{AGENT} {self.batch} {self.durability}" if self.who == AGENT else self.who

    @property
    def topic(self) -> str:
        """Where its readings come, if its line is called ``live``."""
        return "mqttio/stream/live" if self.who == MQTT_IO else "outstation/one/live/telemetry"


OTHERS = (
    Setup(READLINE),
    Setup(BARE),
    Setup(AIOMQTT),
    Setup(MQTT_IO, qos=0),
    Setup(MOSQUITTO_PUB),
    Setup(FLOOR),
)


def missing(who: str) -> str | None:
    """Why it cannot run here; None if it can."""
    module = {AIOMQTT: "aiomqtt", MQTT_IO: "mqtt_io"}.get(who)
    if module is not None and importlib.util.find_spec(module) is None:
        return f"{who} is not installed (requirements-bench.txt)"
    if who == MOSQUITTO_PUB and shutil.which(who) is None:
        return f"{who} is not installed (apt install mosquitto-clients)"
    return None


def start(stage: common.Stage, setup: Setup, line: common.Line) -> common.Child:
    """A process that publishes what ``line`` says at ``setup.topic``; the line's link is ``tty-live``."""
    if setup.who == AGENT:
        return stage.agent(
            [common.serial_device("live", line)],
            agent="one",
            mqtt={"qos": setup.qos, "batch": setup.batch},
            outbox={"durability": setup.durability},
        )
    if script := _SCRIPTS.get(setup.who):
        return stage.peer(script, "one", line)
    return stage.run(_mqtt_io(stage, line) if setup.who == MQTT_IO else _mosquitto_pub(stage, line), "one")


def _mqtt_io(stage: common.Stage, line: common.Line) -> list[str | Path]:
    # It polls; 0.01 s is the least that it allows.
    config = stage.folder / "mqtt-io.yml"
    config.write_text(
        f"mqtt: {{host: 127.0.0.1, port: {stage.broker.port}, topic_prefix: mqttio}}\n"
        "logging: {version: 1}\n"
        "stream_modules:\n"
        f"  - {{name: live, module: serial, device: {line.link}, baud: 9600, read_interval: 0.01, write: no}}\n"
    )
    return [sys.executable, "-m", "mqtt_io", config]


def _mosquitto_pub(stage: common.Stage, line: common.Line) -> list[str | Path]:
    publish = f"exec mosquitto_pub -p {stage.broker.port} -i one -q 1 -l -t outstation/one/live/telemetry"
    return ["sh", "-c", f"{publish} <{line.link}"]
