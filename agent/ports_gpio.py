"""GPIO lines: requested by libgpiod on a worker, then read and set by descriptor on the event loop.

libgpiod (PyPI ``gpiod``) finds the chip and requests the lines; from then on there is the request's bare descriptor.
Its own ``read_edge_events`` blocks where nothing is queued, and what the kernel says is 48 bytes an edge, which a
parser can take as they stand (agent/edges.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from glob import glob
from typing import TYPE_CHECKING, Any, Final, Literal

from agent.errors import DeviceLost, PortError

if TYPE_CHECKING:
    import gpiod

EVENTS: Final = 1024
"""Edges that the kernel keeps for us: its most (GPIO_V2_LINES_MAX * 16), for 48 KiB. By itself it is 16 a line."""
READ_SIZE: Final = 48 * EVENTS

_GET: Final = 0xC010B40E  # GPIO_V2_LINE_GET_VALUES_IOCTL
_SET: Final = 0xC010B40F  # GPIO_V2_LINE_SET_VALUES_IOCTL
_VALUES: Final = struct.Struct("=QQ")  # struct gpio_v2_line_values: bits, mask; by place in the request, active is 1


@dataclass(frozen=True, slots=True)
class GpioLine:
    """How one line is requested.

    line: offset in the chip, or its name; debounce: seconds; value: of an output, logical; None keeps what it is.
    """

    line: int | str
    output: bool = False
    edges: Literal["none", "rising", "both"] = "none"
    bias: Literal["as-is", "disabled", "pull-up", "pull-down"] = "as-is"
    drive: Literal["push-pull", "open-drain", "open-source"] = "push-pull"
    active_low: bool = False
    debounce: float = 0.0
    value: bool | None = None


class GpioLines:
    """Requested lines of one chip, by their place in the request. Used on the loop's thread alone.

    Reading and setting levels is an ioctl: some microseconds on the chip itself, about a millisecond on an expander
    behind I2C.
    """

    def __init__(self, fd: int, name: str, offsets: Sequence[int]) -> None:
        """fd: of the request; the lines are ours until it is closed. offsets: of the lines, in the request's order."""
        self.name = name
        self.offsets = tuple(offsets)
        self.on_blocked: Callable[[bool], object] | None = None
        self._fd = fd

    def fileno(self) -> int:
        """Readable while there are edges to read; -1 once closed."""
        return self._fd

    def read(self) -> bytes:
        """Edges that came, as the kernel has them (agent.edges); b"" if there are none. Raises DeviceLost."""
        try:
            return os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:  # ENODEV of a chip that was removed
            raise self._lost(error) from error

    def levels(self) -> tuple[bool, ...]:
        """What each line is now, inputs after debouncing, outputs too; True is active. Raises DeviceLost."""
        values = bytearray(_VALUES.pack(0, (1 << len(self.offsets)) - 1))
        self._ioctl(_GET, values)
        bits, _ = _VALUES.unpack(values)
        return tuple(bool(bits >> place & 1) for place in range(len(self.offsets)))

    def set_level(self, place: int, active: bool) -> None:
        """Set an output, all others stay. Raises DeviceLost."""
        self._ioctl(_SET, bytearray(_VALUES.pack(active << place, 1 << place)))

    def write(self, data: bytes) -> None:
        """Lines take no bytes."""
        raise TypeError(f"{self.name}: a GPIO line is set by set_level, not by {len(data)} bytes")

    def flush(self) -> None:
        """Nothing ever waits."""

    def close(self) -> None:
        """Give the lines back; idempotent. What an output does then is its chip's affair: most keep the level."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def _ioctl(self, number: int, values: bytearray) -> None:
        if self._fd < 0:
            raise DeviceLost(f"{self.name} is closed")
        try:
            fcntl.ioctl(self._fd, number, values)
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> DeviceLost:
        return DeviceLost(f"{self.name} is closed" if self._fd < 0 else f"{self.name} is gone: {error.strerror}")


def gpiod_lacking() -> str | None:
    """What has to be installed before lines can be requested, or None."""
    remedy = "GPIO needs gpiod 2: pip install 'outstation[gpio]'"
    try:
        import gpiod
    except ImportError as error:
        return f"{error}; {remedy}"
    if not hasattr(gpiod, "LineSettings"):  # 1.x, another interface: what pip finds where 2.x has no wheel
        return f"gpiod {gpiod.__version__} is too old; {remedy}"
    return None


def open_gpio(chip: str, lines: Sequence[GpioLine], consumer: str = "outstation") -> GpioLines:
    """Request lines of a chip, given by path, name or label. Blocks: run it on a worker. Raises PortError.

    consumer: who holds the lines, for gpioinfo(1) and the next one who wants them; 31 characters of it.
    """
    if missing := gpiod_lacking():
        raise PortError("unsupported", f"{chip}: {missing}")
    import gpiod

    path = find_chip(chip)
    try:
        with gpiod.Chip(path) as found:
            return _request(found, path, lines, consumer)
    except PortError:
        raise
    except OSError as error:
        raise _chip_error(path, error) from error


def find_chip(chip: str, pattern: str = "/dev/gpiochip*") -> str:
    """The path of the chip with this path, name ("gpiochip0") or label ("pinctrl-rp1"). Raises PortError.

    By label is safest: a Pi 5's moved from gpiochip4 to gpiochip0 with a kernel update.
    """
    if chip.startswith("/"):
        if not os.path.exists(chip):
            raise PortError("missing", f"{chip} does not exist", _there(_chips(pattern)))
        return chip
    chips = _chips(pattern)
    if exact := [path for path in chips if os.path.basename(path) == chip]:
        return exact[0]
    labelled = [path for path, label in chips.items() if label == chip]
    if len(labelled) > 1:
        raise PortError("failed", f"{len(labelled)} chips are labelled {chip}", f"name one: {', '.join(labelled)}")
    if labelled:
        return labelled[0]
    denied = [path for path, label in chips.items() if label is None]
    if denied:
        raise _chip_error(denied[0], PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    raise PortError("missing", f"no GPIO chip is named or labelled {chip}", _there(chips))


def _chips(pattern: str) -> dict[str, str | None]:
    """Label by path; None where it may not be opened. A link to a chip is the chip, once."""
    import gpiod

    found: dict[str, str | None] = {}
    for path in sorted(glob(pattern), key=lambda path: (len(path), path)):
        if os.path.islink(path):
            continue
        try:
            with gpiod.Chip(path) as chip:
                found[path] = chip.get_info().label
        except PermissionError:
            found[path] = None
        except OSError:  # gone again
            continue
    return found


def _there(chips: Mapping[str, str | None]) -> str:
    if not chips:
        return "this machine has no GPIO chips that its kernel shows; look with gpiodetect(1)"
    return "there are " + ", ".join(f"{os.path.basename(path)} ({label or '?'})" for path, label in chips.items())


def _request(chip: gpiod.Chip, path: str, lines: Sequence[GpioLine], consumer: str) -> GpioLines:
    info = chip.get_info()
    name = f"{os.path.basename(path)} ({info.label})"
    offsets: list[int] = []
    for line in lines:
        try:
            offset = chip.line_offset_from_id(line.line)
        except (OSError, ValueError) as error:
            raise PortError(
                "missing",
                f"{name} has no line {line.line}",
                f"its lines are 0 to {info.num_lines - 1}; see gpioinfo(1)",
            ) from error
        if offset in offsets:
            raise PortError("failed", f"{name}: line {line.line} is configured twice, by number and by name")
        offsets.append(offset)
    config: dict[Any, gpiod.LineSettings | None] = {
        offset: _settings(
            line, _kept(chip, offset, line, consumer) if line.value is None and line.output else line.value
        )
        for offset, line in zip(offsets, lines, strict=True)
    }
    try:
        request = chip.request_lines(config, consumer=consumer[:31], event_buffer_size=EVENTS)
    except OSError as error:
        raise _request_error(chip, name, offsets, error) from error
    try:
        fd = os.dup(request.fd)  # the lines stay ours while either is open
    finally:
        request.release()
    os.set_blocking(fd, False)
    return GpioLines(fd, name, offsets)


def _kept(chip: gpiod.Chip, offset: int, line: GpioLine, consumer: str) -> bool:
    """What an output is now, so that taking it over changes nothing: read without touching its direction."""
    import gpiod

    settings = gpiod.LineSettings(active_low=line.active_low)
    try:
        with chip.request_lines({offset: settings}, consumer=consumer[:31]) as request:
            return bool(request.get_value(offset).value)
    except OSError:  # busy, say: the request that follows tells better
        return False


def _settings(line: GpioLine, value: bool | None) -> gpiod.LineSettings:
    import gpiod
    from gpiod.line import Bias, Direction, Drive, Edge, Value

    bias = {"as-is": Bias.AS_IS, "disabled": Bias.DISABLED, "pull-up": Bias.PULL_UP, "pull-down": Bias.PULL_DOWN}
    drive = {"push-pull": Drive.PUSH_PULL, "open-drain": Drive.OPEN_DRAIN, "open-source": Drive.OPEN_SOURCE}
    edges = {"none": Edge.NONE, "rising": Edge.RISING, "both": Edge.BOTH}
    return gpiod.LineSettings(
        direction=Direction.OUTPUT if line.output else Direction.INPUT,
        edge_detection=edges[line.edges],
        bias=bias[line.bias],
        drive=drive[line.drive],
        active_low=line.active_low,
        debounce_period=timedelta(seconds=line.debounce),
        output_value=Value.ACTIVE if value else Value.INACTIVE,
    )


def _request_error(chip: gpiod.Chip, name: str, offsets: Sequence[int], error: OSError) -> PortError:
    if error.errno == errno.EBUSY:
        for offset in offsets:
            info = chip.get_line_info(offset)
            if info.used:
                who = info.consumer or "the kernel"
                return PortError(
                    "busy", f"line {offset} of {name} is held by {who}", "one line has one owner at a time"
                )
    if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENXIO):
        what = "one of the lines cannot do what is asked: bias, drive, edges, or output"
        return PortError("unsupported", f"{name}: {error.strerror}", what)
    if error.errno == errno.E2BIG:
        what = "the kernel takes ten different settings a device; use the same debounce for more lines, or two devices"
        return PortError("unsupported", f"{name}: {error.strerror}", what)
    return PortError("failed", f"{name}: the lines cannot be requested: {error.strerror}")


def _chip_error(path: str, error: OSError) -> PortError:
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "let the agent's user in: sudo usermod -aG gpio USER, or deploy/outstation.service.d/gpio.conf"
        return PortError("permission", f"{path}: {error.strerror}", remedy)
    if error.errno in (errno.ENOTTY, errno.EINVAL):
        return PortError("failed", f"{path} is no GPIO chip", "look with gpiodetect(1)")
    return PortError("missing", f"{path}: {error.strerror}")
