"""GPIO lines as settings, as channels, and as a parser of their edges.

A driver's configuration takes ``ChipLines`` in; what its lines do while they are open stands in ``driver_gpio_lines``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.driver import Channel, Fault, GpioLine, Output, Parser, Sample, Value
from agent.edges import Edge, EdgeFramer, PulseMeter
from agent.quantity import Duration, Interval

MOST_LINES: Final = 64  # of one request: GPIO_V2_LINES_MAX
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]
SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


class LineConfig(BaseModel):
    """What every line may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)] = Field(
        description='Number of the line in its chip, or its name, as "GPIO17".'
    )
    active_low: bool = Field(False, description="Active is low: a contact to ground, a relay board that wants it so.")
    bias: Literal["as-is", "disabled", "pull-up", "pull-down"] = Field("as-is", description="Resistor in the chip.")
    device_class: str | None = Field(None, description="Home Assistant's word for it, as door or energy.")

    def request(self) -> GpioLine:
        """How the line is requested of the kernel."""
        return GpioLine(line=self.line, active_low=self.active_low, bias=self.bias)

    def channel(self, name: str) -> Channel:
        """The channel that tells what it is."""
        return Channel(name, device_class=self.device_class)


class InputConfig(LineConfig):
    """A line that is read."""

    debounce: Duration = Field(0.0, le=10, description="Changes that last shorter are none; by the kernel. 0: off.")

    def request(self) -> GpioLine:
        return replace(super().request(), edges="both", debounce=self.debounce)


class CounterConfig(InputConfig):
    """A line whose pulses are counted."""

    per_pulse: float = Field(1.0, gt=0, description="Units a pulse: 0.2794 for a rain gauge of 0.2794 mm.")
    per_unit: float = Field(1.0, gt=0, description="Pulses a unit: 1000 for a meter of 1000 imp/kWh.")
    unit: str = Field("", description="Unit of the total.")
    start: float = Field(0.0, description="What the meter showed when its first pulse was counted.")
    rate_per: Literal["s", "min", "h"] = Field("h", description="Time that the rate is for: kWh a h is kW.")
    show: tuple[Literal["total", "rate", "frequency", "lost"], ...] = Field(
        ("total", "rate", "lost"), min_length=1, description="What of it is published."
    )
    idle: Interval = Field(300.0, description="Without a pulse for so long the rate is zero.")

    def request(self) -> GpioLine:
        return replace(super().request(), edges="rising")

    def channels(self, name: str) -> list[Channel]:
        """The channels of the counter of that name."""
        told = {
            "total": Channel(name, self.unit, device_class=self.device_class, state_class="total_increasing"),
            "rate": Channel(f"{name}_rate", f"{self.unit}/{self.rate_per}", 0, state_class="measurement"),
            "frequency": Channel(f"{name}_frequency", "Hz", 0, None, "frequency", "measurement"),
            "lost": Channel(f"{name}_lost", state_class="total_increasing"),
        }
        return [told[what] for what in self.show]

    def fields(self, name: str, meter: PulseMeter, mono_ns: int) -> dict[str, Value]:
        """What is published of it now; once a report, as rates are measured from one to the next."""
        rate = meter.rate(mono_ns, round(self.idle * 1e9))
        factor = self.per_pulse / self.per_unit
        told = {
            "total": round(self.start + meter.pulses * self.per_pulse / self.per_unit, 9),
            "rate": float(f"{rate * factor * SECONDS[self.rate_per]:.6g}"),
            "frequency": float(f"{rate:.6g}"),
            "lost": meter.lost,
        }
        return {name if what == "total" else f"{name}_{what}": told[what] for what in self.show}


class OutputConfig(LineConfig):
    """A line that is set."""

    drive: Literal["push-pull", "open-drain", "open-source"] = Field("push-pull", description="How it drives.")
    initial: Literal["off", "on", "keep"] = Field("off", description="What it is when opened; keep: as it is found.")
    on_stop: Literal["off", "on", "keep"] = Field("off", description="What it is left as at a stop of the agent.")
    pulse: Duration = Field(0.0, description="On lasts so long, then it is off by itself. 0: until told.")
    dead_man: Duration = Field(0.0, description="Without a broker for so long it takes the state fallback. 0: never.")
    fallback: Literal["off", "on"] = Field("off", description="What dead_man sets it to.")

    def request(self) -> GpioLine:
        value = None if self.initial == "keep" else self.initial == "on"
        return replace(super().request(), output=True, drive=self.drive, value=value)


class ChipLines(BaseModel):
    """Lines of one chip, by the name of their channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(min_length=1, description="Path, name or label of the GPIO chip; gpiodetect lists them.")
    inputs: dict[Name, InputConfig] = Field({}, description="Lines that are read, by name of the channel.")
    counters: dict[Name, CounterConfig] = Field({}, description="Lines whose pulses are counted.")
    outputs: dict[Name, OutputConfig] = Field({}, description="Lines that are set.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not 1 <= len(self.lines()) <= MOST_LINES:
            raise ValueError(f"a device has 1 to {MOST_LINES} inputs, counters and outputs")
        names = [channel.name for channel in self.line_channels()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two channels would be called {', '.join(sorted(twice))}")
        numbers = [each.line for each in self.lines().values()]
        if same := {str(number) for number in numbers if numbers.count(number) > 1}:
            raise ValueError(f"line {', '.join(sorted(same))} is there twice")
        return self

    def lines(self) -> dict[str, LineConfig]:
        """All lines, in the order of the request."""
        return {**self.inputs, **self.counters, **self.outputs}

    def requests(self) -> list[GpioLine]:
        """What is asked of the kernel, in that order."""
        return [line.request() for line in self.lines().values()]

    def line_channels(self) -> tuple[Channel, ...]:
        """Of inputs, counters and outputs, in the order in which a report has them."""
        found = [line.channel(name) for name, line in (*self.inputs.items(), *self.outputs.items())]
        found += [channel for name, line in self.counters.items() for channel in line.channels(name)]
        return tuple(found)

    def line_outputs(self) -> tuple[Output, ...]:
        """What may be set."""
        return tuple(Output(name, device_class=line.device_class) for name, line in self.outputs.items())


class EdgeParser(Parser):
    """Edges to readings of inputs; counters take theirs in, and are asked by ``totals``."""

    def __init__(self, config: ChipLines, offsets: Sequence[int], meters: dict[str, PulseMeter]) -> None:
        """offsets: of the lines, in the order of ``config.lines()``."""
        watched = [*config.inputs, *config.counters]
        self._config = config
        self._framer = EdgeFramer(dict(zip(offsets, watched, strict=False)))
        self._meters = meters
        self._last_ns = 0
        self.gaps: set[str] = set()
        """Inputs of which edges were lost; for the driver to look at them, and to clear."""

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        for edge in self._framer.feed(data):
            items += self._taken(edge) if isinstance(edge, Edge) else [edge]
        return items

    def end(self) -> Iterable[Sample | Fault]:
        totals = self.totals(self._last_ns)
        return [*self._framer.end(), *([Sample(totals)] if totals else [])]

    def totals(self, mono_ns: int) -> dict[str, Value]:
        """What counters have to say now; once a report, as rates are measured from one to the next."""
        fields: dict[str, Value] = {}
        for name, counter in self._config.counters.items():
            fields |= counter.fields(name, self._meters[name], mono_ns)
        return fields

    def _taken(self, edge: Edge) -> Iterable[Sample | Fault]:
        self._last_ns = edge.mono_ns
        if edge.missed:
            yield Fault("lost_edges", f"{edge.name}: the kernel had no room for {edge.missed}")
        if (meter := self._meters.get(edge.name)) is not None:
            meter.add(edge.mono_ns, edge.missed)
            return
        if edge.missed:
            self.gaps.add(edge.name)
        yield Sample({edge.name: edge.rising}, edge.mono_ns)
