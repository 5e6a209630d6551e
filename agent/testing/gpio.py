"""FakeGpio: GPIO lines in memory. It does what agent.ports_gpio.GpioLines does; one contract holds both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from json import dumps, loads
from typing import Any

from agent.edges import EVENT, FALLING, RISING
from agent.errors import DeviceLost
from agent.ports_gpio import EVENTS, GpioLine


class FakeGpio:
    """The lines that a driver has requested, and the world at their other end::

    ctx.gpio.drive(17, False)     # line 17 of the chip is pulled low: an edge, if it was high
    ctx.gpio.level(22)            # what the driver's output gives: True is high
    ctx.gpio.remove()             # the chip is gone: read, levels and set_level raise DeviceLost

    Levels are what a voltmeter shows; ``active_low`` is between them and the driver. Edges come as the kernel gives
    them, debounced: drive what is left after that. A line by name has the offset that it is given in ``offsets``.
    """

    def __init__(
        self,
        chip: str,
        lines: Sequence[GpioLine],
        *,
        now_ns: Callable[[], int] = lambda: 0,
        offsets: dict[str, int] | None = None,
        found: dict[int, bool] | None = None,
    ) -> None:
        """found: levels that lines have already, by offset; others are low."""
        self.name = chip
        self.lines = tuple(lines)
        self.offsets = tuple(
            line.line if isinstance(line.line, int) else (offsets or {}).get(line.line, 100 + place)
            for place, line in enumerate(lines)
        )
        self.on_blocked: Callable[[bool], object] | None = None
        self.on_input: Callable[[], object] | None = None
        """Set by FakeContext: called when there is something to read."""
        self.closed = False
        self._now_ns = now_ns
        self._gone = False
        self._woken = False  # for the hang-up
        self.world = dict.fromkeys(self.offsets, False) | (found or {})
        """Levels by offset."""
        self._events: deque[bytes] = deque(maxlen=EVENTS)  # the kernel drops the oldest too
        self._numbers = dict.fromkeys(self.offsets, 0)
        self._all = 0
        for offset, line in zip(self.offsets, lines, strict=True):
            if line.output and line.value is not None:
                self.world[offset] = line.value != line.active_low

    # -- the world's side ---------------------------------------------------------------------------------------------

    def drive(self, offset: int, high: bool) -> None:
        """The world makes a line high or low. Where it was so already nothing happens."""
        line = self.lines[self.offsets.index(offset)]
        if self._gone or self.world[offset] == high:
            return
        self.world[offset] = high
        active = high != line.active_low
        if line.edges == "none" or (line.edges == "rising" and not active):
            return
        self._numbers[offset] += 1
        self._all += 1
        kind = RISING if active else FALLING
        self._events.append(EVENT.pack(self._now_ns(), kind, offset, self._all, self._numbers[offset]))
        self._wake()

    def level(self, offset: int) -> bool:
        """What a line is: True is high."""
        return self.world[offset]

    def remove(self) -> None:
        """The chip is gone, as an expander that is unplugged. Linux before 6.6 wakes nobody for that, and nor do we."""
        self._gone = True

    def feed(self, data: bytes) -> None:
        """Edges as a kernel has told them, from a recording."""
        self._events.append(data)
        self._wake()

    def hang_up(self) -> None:
        """The chip is gone, and the kernel says so, as Linux from 6.6 on does."""
        self._gone = self._woken = True
        self._wake()

    # -- the driver's side: driver.GpioPort ---------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        """Whether there is an edge to read."""
        return not self.closed and (bool(self._events) or self._woken)

    def fileno(self) -> int:
        raise TypeError("FakeGpio is watched by FakeContext alone")

    def read(self) -> bytes:
        self._check()
        data = b"".join(self._events)
        self._events.clear()
        return data

    def levels(self) -> tuple[bool, ...]:
        self._check()
        pairs = zip(self.offsets, self.lines, strict=True)
        return tuple(self.world[offset] != line.active_low for offset, line in pairs)

    def set_level(self, place: int, active: bool) -> None:
        self._check()
        line = self.lines[place]
        if not line.output:  # EPERM
            raise DeviceLost(f"{self.name}: line {self.offsets[place]} is no output")
        self.world[self.offsets[place]] = active != line.active_low

    def write(self, data: bytes) -> None:
        raise TypeError(f"{self.name}: a GPIO line is set by set_level, not by {len(data)} bytes")

    def flush(self) -> None:
        """Nothing ever waits."""

    def close(self) -> None:
        self.closed = True

    def _wake(self) -> None:
        if self.on_input is not None:
            self.on_input()

    def _check(self) -> None:
        if self.closed:
            raise DeviceLost(f"{self.name} is closed")
        if self._gone:
            raise DeviceLost(f"{self.name} is gone: No such device")


class Beside:
    """What FakeContext has beside ports: GPIO lines, and what a driver keeps over restarts."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        """What the driver has saved; give it to the next FakeContext to start the agent again."""
        self.gpio_offsets: dict[str, int] = {}
        """Offsets of GPIO lines that the configuration gives by name."""
        self.gpio_levels: dict[int, bool] = {}
        """Levels of GPIO lines, by offset: what a driver finds when it opens them; True is high."""

    def request(self, chip: str, lines: Sequence[GpioLine], now_ns: Callable[[], int]) -> FakeGpio:
        """The lines, in a world that stays as it is when they are closed."""
        gpio = FakeGpio(chip, lines, now_ns=now_ns, offsets=self.gpio_offsets, found=self.gpio_levels)
        self.gpio_levels = gpio.world
        return gpio

    def load_state(self) -> dict[str, Any]:
        return self.state

    def save_state(self, state: dict[str, Any]) -> None:
        self.state = loads(dumps(state))
