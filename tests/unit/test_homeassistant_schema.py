"""Discovery payloads against Home Assistant's own rules, written down here as a schema.

Source: Home Assistant's documentation, "MQTT" (device discovery payload, and the page of each platform), "Sensor" and
"Binary sensor" (device classes with their units), developer documentation "Sensor entity" (state classes of a device
class). Its own schemas are voluptuous and come with all of Home Assistant: `make homeassistant` lets it judge itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.codec import Topics
from agent.driver import Channel, Driver, Output
from agent.homeassistant import Discovery, Kind
from agent.registry import discover

Topic = Annotated[str, Field(pattern=r"^[^#+\x00]+$", max_length=65535)]

UNITS: dict[str, str] = {
    "apparent_power": "VA",
    "aqi": "",
    "atmospheric_pressure": "Pa bar cbar hPa inHg kPa mbar mmHg psi",
    "battery": "%",
    "carbon_dioxide": "ppm",
    "carbon_monoxide": "ppm",
    "conductivity": "S/cm mS/cm µS/cm",
    "current": "A mA",
    "data_size": "B kB MB GB KiB MiB GiB",
    "distance": "mm cm m km in ft yd mi",
    "duration": "d h min s ms",
    "energy": "J kJ MJ GJ Wh kWh MWh",
    "frequency": "Hz kHz MHz GHz",
    "gas": "m³ ft³ CCF",
    "humidity": "%",
    "illuminance": "lx",
    "irradiance": "W/m²",
    "moisture": "%",
    "pm1": "µg/m³",
    "pm10": "µg/m³",
    "pm25": "µg/m³",
    "power": "mW W kW MW",
    "power_factor": "% ",
    "precipitation": "cm in mm",
    "pressure": "Pa bar cbar hPa inHg kPa mbar mmHg psi",
    "reactive_power": "var",
    "signal_strength": "dB dBm",
    "speed": "m/s km/h mph kn mm/s",
    "temperature": "°C °F K",
    "voltage": "µV mV V kV",
    "volume": "L mL m³ ft³",
    "volume_flow_rate": "m³/h L/min",
    "water": "L m³ ft³",
    "weight": "kg g mg µg",
    "wind_speed": "m/s km/h mph kn",
}
COUNTED = {"energy", "gas", "water", "volume"}
"""What is a total, and may not be a measurement."""
_BINARY = """
    battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light lock moisture motion
    moving occupancy opening plug power presence problem running safety smoke sound tamper update vibration window
"""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Component(Strict):
    name: str = Field(min_length=1)
    unique_id: str = Field(min_length=1)
    default_entity_id: str | None = Field(None, pattern=r"^[a-z_]+\.[a-z0-9_]+$")
    entity_category: Literal["diagnostic", "config"] | None = None
    state_topic: Topic | None = None
    value_template: str | None = None


class Sensor(Component):
    p: Literal["sensor"]
    device_class: str | None = None
    state_class: Literal["measurement", "total", "total_increasing"] | None = None
    unit_of_measurement: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Sensor:
        if self.device_class is not None:
            unit = self.unit_of_measurement or ""
            if unit not in UNITS[self.device_class].split(" "):
                raise ValueError(f"{self.device_class} is not in {unit!r}")
            if self.device_class in COUNTED and self.state_class == "measurement":
                raise ValueError(f"{self.device_class} is a total")
        return self


class BinarySensor(Component):
    p: Literal["binary_sensor"]
    device_class: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> BinarySensor:
        if self.device_class is not None and self.device_class not in _BINARY.split():
            raise ValueError(f"{self.device_class} is no class of a binary sensor")
        return self


class Settable(Component):
    command_topic: Topic


class Switch(Settable):
    p: Literal["switch"]
    device_class: Literal["outlet", "switch"] | None = None
    payload_on: str
    payload_off: str


class Number(Settable):
    p: Literal["number"]
    device_class: str | None = None
    mode: Literal["auto", "box", "slider"]
    min: float = 1.0
    max: float = 100.0
    step: float = Field(1.0, ge=0.001)
    unit_of_measurement: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Number:
        if self.min >= self.max:
            raise ValueError("min is not below max")
        return self


class Select(Settable):
    p: Literal["select"]
    options: list[str] = Field(min_length=1)


class Text(Settable):
    p: Literal["text"]
    max: int = Field(255, ge=0, le=255)


class Button(Settable):
    p: Literal["button"]
    device_class: Literal["identify", "restart", "update"] | None = None
    payload_press: str


class Gone(Strict):
    """A component with its platform alone is to be removed."""

    p: Literal["sensor", "binary_sensor"]


class About(Strict):
    ids: list[str] = Field(min_length=1)
    name: str
    mf: str
    mdl: str
    sw: str
    via_device: str | None = None


class Origin(Strict):
    name: str
    sw: str


class Availability(Strict):
    topic: Topic


class Payload(Strict):
    dev: About
    o: Origin
    availability: list[Availability]
    availability_mode: Literal["all", "any", "latest"]
    state_topic: Topic | None = None
    qos: Literal[0, 1, 2]
    cmps: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")],
        Sensor | BinarySensor | Switch | Number | Select | Text | Button | Gone,
    ] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Payload:
        ids = [one.unique_id for one in self.cmps.values() if not isinstance(one, Gone)]
        if len(ids) != len(set(ids)):
            raise ValueError("a unique_id stands twice")
        for name, one in self.cmps.items():
            reads = isinstance(one, Sensor | BinarySensor)
            if reads and not (self.state_topic or one.state_topic):
                raise ValueError(f"{name} has no state_topic")
        return self


def discovery(bare: bool) -> Discovery:
    return Discovery("box", Topics("box"), "homeassistant", bare=bare)


def announced(
    channels: Sequence[Channel] = (),
    outputs: Sequence[Output] = (),
    kinds: Mapping[str, Kind] | None = None,
    gone: Mapping[str, Kind] | None = None,
    bare: bool = False,
) -> Payload:
    raw = discovery(bare).device("weather", "lines", channels, outputs, kinds or {}, gone or {})
    assert raw is not None
    return Payload.model_validate_json(raw)


@pytest.mark.parametrize("bare", [False, True])
def test_every_platform_is_as_home_assistant_wants_it(bare: bool) -> None:
    outputs = (
        Output("pump"),
        Output("valve", device_class="switch"),
        Output("level", "number", "%", 0, 100),
        Output("free", "number"),
        Output("mode", "text", choices=("a", "b")),
        Output("label", "text", longest=4000),
        Output("reset", "button", device_class="restart"),
    )
    kinds: dict[str, Kind] = {"t 1": "number", "door": "bool", "note": "text", "größe": "number", "pump": "bool"}
    found = announced((Channel("t 1", "°C"),), outputs, kinds, {"old": "number", "shut": "bool"}, bare)
    assert {one.p for one in found.cmps.values()} == {
        *("sensor", "binary_sensor", "switch", "number", "select", "text", "button"),
    }
    assert isinstance(found.cmps["old"], Gone)
    Payload.model_validate_json(discovery(bare).agent())


@pytest.mark.parametrize("device_class", sorted(UNITS))
def test_a_state_class_that_nobody_has_named_fits_the_device_class(device_class: str) -> None:
    unit = UNITS[device_class].split(" ")[0]
    announced((Channel("x", unit, device_class=device_class),), kinds={"x": "number"})


REGISTRY = discover()
DRIVERS = [entry.cls for entry in map(REGISTRY.load, REGISTRY.names) if entry.cls is not None]


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.__name__)
def test_the_channels_that_a_driver_declares_are_valid(driver: type[Driver]) -> None:
    channels = driver.channels if isinstance(driver.channels, tuple) else ()
    if channels:
        announced(channels, kinds={channel.name: "number" for channel in channels})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("device_class", "volts", "volts"),
        ("unit_of_measurement", "bananas", "bananas"),
        ("expire_after", 60, "expire_after"),
        ("object_id", "x", "object_id"),
    ],
)
def test_the_schema_itself_refuses(field: str, value: Any, said: str) -> None:
    good = announced((Channel("x", "V", device_class="voltage"),), kinds={"x": "number"}).model_dump(exclude_none=True)
    good["cmps"]["x"][field] = value
    with pytest.raises((ValidationError, KeyError), match=re.escape(said)):
        Payload.model_validate(good)
