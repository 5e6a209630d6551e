"""GPIO lines at work: what inputs and counters tell, totals that survive restarts, outputs that switch themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from agent.driver import Context, Fault, GpioPort, Handle, Sample, Value
from agent.driver_gpio import ChipLines, EdgeParser, OutputConfig
from agent.edges import PulseMeter
from agent.logline import line


class Totals:
    """The meters of a device's counters, kept in its state (``Context.save_state``)."""

    def __init__(self, ctx: Context, names: Iterable[str]) -> None:
        self._ctx = ctx
        self._names = tuple(names)
        self._saved: dict[str, Any] = {}
        self.meters: dict[str, PulseMeter] = {}
        """By counter; empty until ``load``."""

    def load(self) -> None:
        """Go on with what was saved. May block: for ``Driver.open``."""
        self._saved = self._ctx.load_state() if self._names else {}
        self.meters = {name: PulseMeter.saved(self._saved.get(name)) for name in self._names}

    def save(self) -> None:
        """Keep them, if a pulse has come since they were kept last."""
        now = {name: meter.state() for name, meter in self.meters.items()}
        if now != self._saved:
            self._saved = now
            self._ctx.save_state(now)


class OpenLines:
    """The lines of a request that was granted; made anew at each start of its driver."""

    def __init__(self, ctx: Context, config: ChipLines, port: GpioPort, meters: dict[str, PulseMeter]) -> None:
        """meters: of the counters, by name; pulses are added to them."""
        self._ctx = ctx
        self._config = config
        self._port = port
        self._parser = EdgeParser(config, port.offsets, meters)
        self._places = {name: place for place, name in enumerate(config.lines())}

    def take(self) -> None:
        """Read the edges that have come, and tell them. Raises DeviceLost."""
        items = list(self._parser.feed(self._port.read()))
        if self._ctx.blocked:  # counted all the same; inputs are told by the next report
            items = [item for item in items if isinstance(item, Fault)]
        elif self._parser.gaps:
            items.append(Sample(self._levels(sorted(self._parser.gaps))))
            self._parser.gaps.clear()
        if items:
            self._ctx.emit(*items)

    def report(self) -> None:
        """All that there is. Where a kernel does not wake us when the chip goes, this is how it is noticed."""
        told = self._levels(chain(self._config.inputs, self._config.outputs))
        if not self._ctx.blocked:
            self._ctx.emit(Sample({**told, **self._parser.totals(round(self._ctx.now() * 1e9))}))

    def set_level(self, name: str, active: bool) -> None:
        """Make an output active, or not. Raises DeviceLost."""
        self._port.set_level(self._places[name], active)

    def _levels(self, names: Iterable[str]) -> dict[str, Value]:
        levels = self._port.levels()
        return {name: levels[self._places[name]] for name in names}


class Switches:
    """The outputs of a device: set by commands, switched by themselves at the end of a pulse and by the dead man."""

    def __init__(
        self, ctx: Context, outputs: Mapping[str, OutputConfig], set_level: Callable[[str, bool], object]
    ) -> None:
        """set_level: makes the output of that name active, or not. Raises DeviceLost."""
        self._ctx = ctx
        self._outputs = outputs
        self._set_level = set_level
        self._pulses: dict[str, Handle] = {}  # their ends, by output
        self._dead_men: list[Handle] = []

    def set(self, name: str, active: bool) -> None:
        """As a command says; a pulse ends by itself."""
        self._cancel_pulse(name)
        self._switch(name, active)
        if active and (pulse := self._outputs[name].pulse):
            self._pulses[name] = self._ctx.after(pulse, self._switch, name, False, name=f"{name}.pulse")

    def link_changed(self, up: bool) -> None:
        """The broker is there, or gone: then the dead man's time begins."""
        for timer in self._dead_men:
            timer.cancel()
        self._dead_men.clear()
        for name, output in self._outputs.items():
            if not up and output.dead_man:
                self._dead_men.append(self._ctx.after(output.dead_man, self._fall_back, name, name=f"{name}.dead_man"))

    def stop(self) -> None:
        """Leave each as ``on_stop`` says. Raises DeviceLost."""
        for name, output in self._outputs.items():
            if output.on_stop != "keep":
                self._set_level(name, output.on_stop == "on")

    def _fall_back(self, name: str) -> None:
        self._cancel_pulse(name)
        self._ctx.log.warning(line("output.fallback", device=self._ctx.device, output=name))
        self._switch(name, self._outputs[name].fallback == "on")

    def _switch(self, name: str, active: bool) -> None:
        self._set_level(name, active)
        self._ctx.emit(Sample({name: active}))

    def _cancel_pulse(self, name: str) -> None:
        if name in self._pulses:
            self._pulses.pop(name).cancel()
