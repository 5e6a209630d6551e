"""A real Home Assistant against a real agent and Mosquitto: `make homeassistant`. Prints what was seen, line by line.

Outside CI: Home Assistant and what it needs are some 800 MB from PyPI, installed once into build/homeassistant-<version
of Python>, and it wants a newer Python than the agent does. CI checks the payloads against a schema instead
(tests/unit/test_homeassistant_schema.py).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from house import Changes, House, install

from agent.testing import Broker, PtyPort
from agent.testing.outstation import Outstation
from agent.testing.toml import dumps

ROOT = Path(__file__).resolve().parents[2]

DRIVER = '''
from agent.driver import Driver, Output, Sample


class Panel(Driver):
    """One output of each kind, in memory: what is set is what it shows."""

    outputs = (
        Output("pump", device_class="switch"),
        Output("level", "number", "%", 0, 100),
        Output("mode", "text", choices=("off", "eco", "full")),
        Output("label", "text", longest=20),
        Output("reset", "button", device_class="restart"),
    )

    def start(self, port):
        self.state = {"pump": False, "level": 10, "mode": "eco", "label": "none", "pressed": 0}
        self.ctx.every(0.5, self.report, name="panel.report")

    def report(self):
        self.ctx.emit(Sample({**self.state}))

    def set(self, output, value, done):
        if output == "reset":
            self.state["pressed"] += 1
        else:
            self.state[output] = value
        self.report()
        done(None)
'''

CHANNELS = {
    "temperature": {"unit": "°C", "device_class": "temperature"},
    "humidity": {"unit": "%", "device_class": "humidity"},
    "pressure": {"unit": "hPa", "device_class": "atmospheric_pressure"},
    "rainfall": {"unit": "mm", "device_class": "precipitation", "state_class": "total_increasing"},
    "energy": {"unit": "kWh", "device_class": "energy"},
    "raining": {"device_class": "moisture"},
}
LINE = (
    '{{"temperature": {}, "humidity": 44.1, "pressure": 1013.25, "rainfall": 3.2, "energy": 12.75, "raining": false, '
    '"sky": "clear"}}'
)

# entity -> state, unit, device class, state class
WANTED: dict[str, tuple[str, str | None, str | None, str | None]] = {
    "sensor.box_weather_temperature": ("21.5", "°C", "temperature", "measurement"),
    "sensor.box_weather_humidity": ("44.1", "%", "humidity", "measurement"),
    "sensor.box_weather_pressure": ("1013.25", "hPa", "atmospheric_pressure", "measurement"),
    "sensor.box_weather_rainfall": ("3.2", "mm", "precipitation", "total_increasing"),
    "sensor.box_weather_energy": ("12.75", "kWh", "energy", "total_increasing"),
    "binary_sensor.box_weather_raining": ("off", None, "moisture", None),
    "sensor.box_weather_sky": ("clear", None, None, None),
    "switch.box_panel_pump": ("off", None, "switch", None),
    "number.box_panel_level": ("10", "%", None, None),
    "select.box_panel_mode": ("eco", None, None, None),
    "text.box_panel_label": ("none", None, None, None),
    "button.box_panel_reset": ("unknown", None, "restart", None),
    "sensor.box_panel_pressed": ("0", None, None, "measurement"),
}
FOLLOWED = 50
WITHIN = 1.0
"""Seconds in which a new value has to be shown."""


def say(what: str) -> None:
    print(what, flush=True)


def plugin(folder: Path) -> dict[str, str]:
    """An installed distribution that offers the driver ``panel``; the environment in which the agent finds it."""
    (folder / "outstation_panel.py").write_text(DRIVER)
    metadata = folder / "outstation_panel-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[outstation.drivers]\npanel = outstation_panel:Panel\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def config(*devices: dict[str, Any], discovery: str = "on", **mqtt: str) -> dict[str, Any]:
    return {
        "agent": {"id": "box"},
        "mqtt": mqtt,
        "homeassistant": {"discovery": discovery},
        "device": list(devices),
    }


@contextmanager
def running(given: dict[str, Any], broker: Broker, env: dict[str, str], outbox: Path) -> Iterator[Outstation]:
    """An agent that keeps its outbox over several starts; ended in order."""
    with Outstation({**given, "outbox": {"path": str(outbox)}}, broker, env=env) as agent:
        yield agent
        if agent.running:
            assert agent.terminate() == 0


def shown(house: House, entity: str) -> tuple[str | None, ...]:
    found = house.state(entity) or {"state": None, "attributes": {}}
    more = found["attributes"]
    return (found["state"], *(more.get(key) for key in ("unit_of_measurement", "device_class", "state_class")))


def tell(house: House, weather: PtyPort, value: str, timeout: float = 20.0) -> None:
    """Send a line with this temperature, once a second, until Home Assistant shows it.

    An entity is announced by the first reading that has its channel; Home Assistant subscribes to what it has been told
    of about a second later, and shows what comes from then on.
    """
    sent = 0.0

    def told() -> bool:
        nonlocal sent
        if time.monotonic() >= sent + 1.0:
            weather.send(LINE.format(value))
            sent = time.monotonic()
        return house.shows("sensor.box_weather_temperature") == value

    house.until(told, timeout, f"temperature {value}")


def sees_all(house: House, weather: PtyPort) -> None:
    tell(house, weather, "21.5")
    for entity, wanted in WANTED.items():
        house.until(lambda e=entity, w=wanted: shown(house, e) == w, 10, f"{entity} as {wanted}")
    say(f"  {'entity':<38}{'state':<10}{'unit':<6}{'device class':<22}state class")
    for entity, wanted in WANTED.items():
        state, unit, kind, more = (text or "" for text in wanted)
        say(f"  {entity:<38}{state:<10}{unit:<6}{kind:<22}{more}".rstrip())
    diagnostics = {name: one["state"] for name, one in house.entities("sensor.box_").items() if name not in WANTED}
    say("  diagnostics of the agent: " + ", ".join(f"{name.removeprefix('sensor.box_')}" for name in diagnostics))
    assert len(diagnostics) == 8, diagnostics
    house.until(lambda: "unknown" not in {house.shows(name) for name in diagnostics}, 10, "figures of the agent itself")


def follows(house: House, weather: PtyPort) -> None:
    changes = Changes(house, "sensor.box_weather_temperature")
    took = []
    for number in range(FOLLOWED):
        value = f"{22 + number / 10:.1f}"
        begin = time.monotonic()
        weather.send(LINE.format(value))
        took.append(house.until(lambda value=value: changes.when(value), 5, value) - begin)
    changes.close()
    took.sort()
    assert took[-1] < WITHIN, took
    say(
        f"  {FOLLOWED} new values, from the write to the serial line to Home Assistant's new state: "
        f"median {1000 * took[len(took) // 2]:.0f} ms, at most {1000 * took[-1]:.0f} ms"
    )


def switches(house: House, agent: Outstation) -> None:
    for entity, service, data, state, field, value in (
        ("switch.box_panel_pump", "turn_on", {}, "on", "pump", True),
        ("switch.box_panel_pump", "turn_off", {}, "off", "pump", False),
        ("number.box_panel_level", "set_value", {"value": 42.5}, "42.5", "level", 42.5),
        ("select.box_panel_mode", "select_option", {"option": "full"}, "full", "mode", "full"),
        ("text.box_panel_label", "set_value", {"value": "12"}, "12", "label", "12"),
    ):
        house.call(entity, service, **data)
        house.until(lambda entity=entity, state=state: house.shows(entity) == state, 5, f"{entity} {state}")
        assert agent.readings("panel")[-1].fields[field] == value
        say(f"  {entity}: {service} {' '.join(map(str, data.values()))}".rstrip() + f" -> the driver reports {value!r}")
    house.call("button.box_panel_reset", "press")
    house.until(lambda: house.shows("sensor.box_panel_pressed") == "1", 5, "pressed")
    say("  button.box_panel_reset: press -> the driver was pressed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make homeassistant", description=(__doc__ or "").partition("\n")[0])
    newest = subprocess.run([ROOT / "tools" / "pythons"], check=True, capture_output=True, text=True).stdout.split()[-1]
    parser.add_argument("--python", default=newest, help="for Home Assistant; default: this machine's newest")
    parser.add_argument("--version", help="of Home Assistant; default: the newest that this Python can run")
    parser.add_argument("--keep", action="store_true", help="leave Home Assistant's folder there, and name it")
    options = parser.parse_args()
    probe = [options.python, "-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')"]
    version = subprocess.run(probe, check=True, capture_output=True, text=True).stdout.strip()
    python = install(ROOT / "build" / f"homeassistant-{version}", options.python, options.version)
    about = [python, "-I", "-c", "import homeassistant.const as c; print(c.__version__)"]
    release = subprocess.run(about, check=True, capture_output=True, text=True).stdout.strip()
    say(f"Home Assistant {release} on Python {version}")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="outstation-homeassistant-"))
        if options.keep:
            say(f"in {folder}")
        else:
            import shutil

            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "house").mkdir()
        (folder / "plugin").mkdir()
        run(stack, python, folder)
    say("all as it should be")
    return 0


def run(stack: ExitStack, python: Path, folder: Path) -> None:
    env = plugin(folder / "plugin")
    outbox = folder / "outbox.db"
    broker = stack.enter_context(Broker("mosquitto"))
    line = stack.enter_context(PtyPort())
    house = stack.enter_context(House(python, folder / "house"))
    house.start()
    house.own()
    house.add_mqtt(broker.port)
    weather = {"name": "weather", "driver": "lines", "port": line.path, "format": "json", "channels": CHANNELS}
    panel = {"name": "panel", "driver": "panel"}

    with running(config(weather, panel), broker, env, outbox) as agent:
        say("every channel, with unit and class")
        sees_all(house, line)
        say("a value is followed")
        follows(house, line)
        say("outputs are switched")
        switches(house, agent)

        say("what is unplugged is unavailable, and only that")
        line.unplug()
        house.until(lambda: house.shows("sensor.box_weather_temperature") == "unavailable", 5, "unavailable")
        assert house.shows("switch.box_panel_pump") == "off"
        line.replug()
        house.until(lambda: house.shows("sensor.box_weather_temperature") != "unavailable", 5, "available again")

        say("Home Assistant restarts, and has all of it again")
        house.stop()
        house.start()
        house.until(lambda: set(WANTED) <= set(house.entities("box_")), 60, "all entities again")
        agent.wait_log(r"homeassistant\.online")
        tell(house, line, "19.5")

        say("the agent is killed: all of it is unavailable, by its Will")
        agent.kill()
        house.until(lambda: all(house.shows(e) == "unavailable" for e in WANTED), 5, "all unavailable")

    kept = {entity for entity in WANTED if "_panel_" in entity}

    def without_weather() -> None:
        house.until(lambda: not house.entities("_weather_"), 10, "no weather")
        house.until(lambda: kept <= set(house.entities("_panel_")), 10, "the panel")
        say(f"  {len(WANTED) - len(kept)} entities gone, {len(kept)} left")

    say("the device weather leaves the configuration, by a reload: so do its entities, and no others")
    with running(config(weather, panel), broker, env, outbox) as agent:
        house.until(lambda: set(WANTED) <= set(house.entities("box_")), 20, "all entities")
        agent.config_path.write_text(dumps({**agent.config, "device": [panel]}))
        agent.signal(signal.SIGHUP)
        without_weather()

    say('mqtt.topic = "site/{agent}/{device}": the same entities from there')
    with running(config(weather, panel, topic="site/{agent}/{device}"), broker, env, outbox):
        tell(house, line, "17.5")

    say('mqtt.format = "values": the same entities from bare values')
    with running(config(weather, panel, format="values"), broker, env, outbox):
        tell(house, line, "18.5")
        house.until(lambda: house.shows("binary_sensor.box_weather_raining") == "off", 10, "off")
        house.until(lambda: house.shows("sensor.box_weather_sky") == "clear", 10, "clear")

    say("weather leaves while the agent is stopped: the next start takes it back")
    with running(config(panel), broker, env, outbox):
        without_weather()

    say('discovery = "remove": nothing is left')
    with running(config(weather, panel, discovery="remove"), broker, env, outbox):
        house.until(lambda: not house.entities("box_"), 10, "nothing")

    noted = [
        text for text in house.log.splitlines() if "mqtt" in text.lower() and ("WARNING" in text or "ERROR" in text)
    ]
    say(f"Home Assistant's log: {len(noted)} warnings or errors about MQTT")
    assert not noted, "\n".join(noted)


if __name__ == "__main__":
    raise SystemExit(main())
