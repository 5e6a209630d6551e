"""GPIO lines: switches and contacts, pulse counters (S0, flow, rain, fans), relays.

Device: the lines of one GPIO chip, through the kernel's character device (Linux 5.10 or newer) and libgpiod (extra
``gpio``). ``chip`` is a path, a name, or best a label: ``pinctrl-rp1`` on a Pi 5, ``pinctrl-bcm2711`` on a Pi 4,
``pinctrl-bcm2835`` on older ones; ``gpiodetect`` lists them. ``line`` is the number in the chip (a Pi's BCM number) or
the line's name, as ``"GPIO17"``. Several devices may use lines of one chip.

Wire format: edges as the kernel has them, 48 bytes each (struct gpio_v2_line_event), debounced by it and with its time.

- Inputs: a reading at each change, with the kernel's time, and with the rest every ``interval``. True is active, which
  ``active_low`` turns round, as for a contact to ground with ``bias = "pull-up"``.
- Counters: each change from inactive to active is a pulse. Every ``interval`` a reading has the total as ``<name>``
  (``start + pulses * per_pulse / per_unit``), ``<name>_rate`` (units a ``rate_per``, measured from pulse to pulse),
  ``<name>_frequency`` (pulses a second) and ``<name>_lost``, as ``show`` says. The kernel keeps 1024 edges and numbers
  them all: those that it had to drop are in the total, and in ``_lost``, as their times are unknown; a gap is a fault.
- Outputs: set by ``outstation/<agent>/<device>/<name>/set``, on or off. ``pulse`` switches off by itself. ``dead_man``
  switches to ``fallback`` when there has been no broker for so long; it stays so until the next command.

Totals are kept in a file beside the outbox: written every ``save`` while they change, and at a clean stop. A crash or
power cut loses what was counted since then. Pulses while the agent is not running are not counted.

Source: include/uapi/linux/gpio.h and Documentation/userspace-api/gpio of the kernel; S0: IEC 62053-31.

Sample::

    [[device]]
    name = "cellar"
    driver = "gpio"
    chip = "pinctrl-bcm2711"

    [device.inputs.door]
    line = 17
    bias = "pull-up"
    active_low = true
    debounce = "10ms"
    device_class = "door"

    [device.counters.energy]
    line = "GPIO27"
    bias = "pull-up"
    active_low = true
    debounce = "2ms"
    per_unit = 1000
    unit = "kWh"
    device_class = "energy"

    [device.outputs.pump]
    line = 22
    dead_man = "5m"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.driver import (
    Channel,
    Context,
    DeviceConfig,
    DeviceLost,
    Done,
    Driver,
    Fault,
    GpioLine,
    GpioPort,
    Handle,
    Output,
    Parser,
    Port,
    Sample,
    Value,
    gpiod_lacking,
)
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


class InputConfig(LineConfig):
    """A line that is read."""

    debounce: Duration = Field(0.0, le=10, description="Changes that last shorter are none; by the kernel. 0: off.")


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


class OutputConfig(LineConfig):
    """A line that is set."""

    drive: Literal["push-pull", "open-drain", "open-source"] = Field("push-pull", description="How it drives.")
    initial: Literal["off", "on", "keep"] = Field("off", description="What it is when opened; keep: as it is found.")
    on_stop: Literal["off", "on", "keep"] = Field("off", description="What it is left as at a stop of the agent.")
    pulse: Duration = Field(0.0, description="On lasts so long, then it is off by itself. 0: until told.")
    dead_man: Duration = Field(0.0, description="Without a broker for so long it takes the state fallback. 0: never.")
    fallback: Literal["off", "on"] = Field("off", description="What dead_man sets it to.")


class GpioConfig(DeviceConfig):
    """Lines of one chip, by the name of their channel."""

    chip: str = Field(min_length=1, description="Path, name or label of the GPIO chip; gpiodetect lists them.")
    inputs: dict[Name, InputConfig] = Field({}, description="Lines that are read, by name of the channel.")
    counters: dict[Name, CounterConfig] = Field({}, description="Lines whose pulses are counted.")
    outputs: dict[Name, OutputConfig] = Field({}, description="Lines that are set.")
    interval: Interval = Field(10.0, description="Time between two readings of all that is here.")
    save: Interval = Field(60.0, description="Time between two writings of the totals to disk, while they change.")

    @model_validator(mode="after")
    def _distinct(self) -> GpioConfig:
        if not 1 <= len(self.lines()) <= MOST_LINES:
            raise ValueError(f"a device has 1 to {MOST_LINES} inputs, counters and outputs")
        names = [channel.name for channel in channels(self)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two channels would be called {', '.join(sorted(twice))}")
        numbers = [each.line for each in self.lines().values()]
        if same := {str(number) for number in numbers if numbers.count(number) > 1}:
            raise ValueError(f"line {', '.join(sorted(same))} is there twice")
        return self

    def lines(self) -> dict[str, LineConfig]:
        """All lines, in the order of the request."""
        return {**self.inputs, **self.counters, **self.outputs}


class EdgeParser(Parser):
    """Edges to readings of inputs; counters take theirs in, and are asked by ``totals``."""

    def __init__(self, config: GpioConfig, offsets: Sequence[int], meters: dict[str, PulseMeter]) -> None:
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
            meter = self._meters[name]
            rate = meter.rate(mono_ns, round(counter.idle * 1e9))
            factor = counter.per_pulse / counter.per_unit
            told = {
                "total": round(counter.start + meter.pulses * counter.per_pulse / counter.per_unit, 9),
                "rate": float(f"{rate * factor * SECONDS[counter.rate_per]:.6g}"),
                "frequency": float(f"{rate:.6g}"),
                "lost": meter.lost,
            }
            fields |= {name if what == "total" else f"{name}_{what}": told[what] for what in counter.show}
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


class Gpio(Driver):
    """GPIO: inputs with debounce and the kernel's time, pulse counters whose totals survive restarts, outputs."""

    Config = GpioConfig

    def __init__(self, config: GpioConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = channels(config)
        self.outputs = tuple(Output(name, device_class=each.device_class) for name, each in config.outputs.items())
        self._places = {name: place for place, name in enumerate(config.lines())}
        self._meters: dict[str, PulseMeter] = {}
        self._saved: dict[str, Any] = {}
        self._timers: dict[str, Handle] = {}  # ends of pulses, by output
        self._dead_men: list[Handle] = []
        self._port: GpioPort

    @classmethod
    def shares(cls, config: GpioConfig) -> None:  # noqa: ARG003
        """Nothing: lines of one chip may be in several devices; a line that is taken is told when it is opened."""
        return

    @classmethod
    def appears(cls, config: GpioConfig) -> str:
        return config.chip if config.chip.startswith("/") else "/dev/gpiochip*"

    @classmethod
    def lacks(cls, config: GpioConfig) -> str | None:  # noqa: ARG003
        return gpiod_lacking()

    def parser(self) -> EdgeParser:
        """For golden cases, whose lines are given by number: of one by name only the kernel knows it."""
        lines = [line.line for line in self.config.lines().values()]
        offsets = [line if isinstance(line, int) else -1 - place for place, line in enumerate(lines)]
        return EdgeParser(self.config, offsets, {name: PulseMeter() for name in self.config.counters})

    def open(self) -> Port:
        self._saved = self.ctx.load_state() if self.config.counters else {}
        self._meters = {name: PulseMeter(*pulses_and_lost(self._saved, name)) for name in self.config.counters}
        return self.ctx.open_gpio(self.config.chip, [request(line) for line in self.config.lines().values()])

    def start(self, port: Any) -> None:
        self._port = port
        self._timers.clear()
        self._dead_men.clear()
        self._parser = EdgeParser(self.config, port.offsets, self._meters)
        self.ctx.watch(port, self._readable)
        self.ctx.every(self.config.interval, self._report, first_after=0.0, name="report")
        if self.config.counters:
            self.ctx.every(self.config.save, self._save, name="save")

    def stop(self) -> None:
        try:
            self._readable()  # what came before the stop
            for name, output in self.config.outputs.items():
                if output.on_stop != "keep":
                    self._port.set_level(self._places[name], output.on_stop == "on")
        except DeviceLost:
            pass  # it is why we stop
        self._save()

    def set(self, output: str, value: Value, done: Done) -> None:
        if output in self._timers:
            self._timers.pop(output).cancel()
        self._switch(output, bool(value))
        if value and (pulse := self.config.outputs[output].pulse):
            self._timers[output] = self.ctx.after(pulse, self._switch, output, False, name=f"{output}.pulse")
        done(None)

    def link_changed(self, up: bool) -> None:
        for timer in self._dead_men:
            timer.cancel()
        self._dead_men.clear()
        for name, output in self.config.outputs.items():
            if not up and output.dead_man:
                self._dead_men.append(self.ctx.after(output.dead_man, self._fall_back, name, name=f"{name}.dead_man"))

    def _fall_back(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()
        self.ctx.log.warning("output.fallback device=%s output=%s", self.ctx.device, name)
        self._switch(name, self.config.outputs[name].fallback == "on")

    def _switch(self, name: str, active: bool) -> None:
        self._port.set_level(self._places[name], active)
        self.ctx.emit(Sample({name: active}))

    def _readable(self) -> None:
        items = list(self._parser.feed(self._port.read()))
        if self.ctx.blocked:  # counted all the same; inputs are told by the next report
            items = [item for item in items if isinstance(item, Fault)]
        elif self._parser.gaps:
            levels = self._port.levels()
            items.append(Sample({name: levels[self._places[name]] for name in sorted(self._parser.gaps)}))
            self._parser.gaps.clear()
        if items:
            self.ctx.emit(*items)

    def _report(self) -> None:
        """All that there is. Where a kernel does not wake us when the chip goes, this is how it is noticed."""
        levels = self._port.levels()
        if not self.ctx.blocked:
            told = {name: levels[self._places[name]] for name in chain(self.config.inputs, self.config.outputs)}
            self.ctx.emit(Sample({**told, **self._parser.totals(round(self.ctx.now() * 1e9))}))

    def _save(self) -> None:
        now = {name: [meter.pulses, meter.lost] for name, meter in self._meters.items()}
        if now != self._saved:
            self._saved = now
            self.ctx.save_state(now)


def pulses_and_lost(state: dict[str, Any], name: str) -> tuple[int, int]:
    """What was saved of a counter; nothing where somebody has written something else."""
    match state.get(name):
        case [int(pulses), int(lost)]:
            return pulses, lost
        case _:
            return 0, 0


def request(line: LineConfig) -> GpioLine:
    """How the line is requested of the kernel."""
    common: dict[str, Any] = {"line": line.line, "active_low": line.active_low, "bias": line.bias}
    if isinstance(line, OutputConfig):
        value = None if line.initial == "keep" else line.initial == "on"
        return GpioLine(**common, output=True, drive=line.drive, value=value)
    assert isinstance(line, InputConfig)
    edges: Literal["rising", "both"] = "rising" if isinstance(line, CounterConfig) else "both"
    return GpioLine(**common, edges=edges, debounce=line.debounce)


def channels(config: GpioConfig) -> tuple[Channel, ...]:
    """Of inputs, counters and outputs, in the order in which a report has them."""
    found = [Channel(name, device_class=line.device_class) for name, line in config.inputs.items()]
    found += [Channel(name, device_class=line.device_class) for name, line in config.outputs.items()]
    for name, line in config.counters.items():
        told = {
            "total": Channel(name, line.unit, device_class=line.device_class, state_class="total_increasing"),
            "rate": Channel(f"{name}_rate", f"{line.unit}/{line.rate_per}", 0, state_class="measurement"),
            "frequency": Channel(f"{name}_frequency", "Hz", 0, None, "frequency", "measurement"),
            "lost": Channel(f"{name}_lost", state_class="total_increasing"),
        }
        found += [told[what] for what in line.show]
    return tuple(found)
