"""Whether the broker is still there: noticed within one and a half keepalives of the last byte that came."""

from __future__ import annotations

from collections.abc import Callable

from agent.events import EventManager
from agent.mqtt_wire import Wire

_TICKS = 4  # a keepalive
_SILENT = 5  # ticks without a byte; the first one may come just after a byte, so that these are 1.25 to 1.5 keepalives


class Pulse:
    """Looks at a connection four times a keepalive (in seconds).

    look: reads what came, which may still wait to be read; ping: sends what is due, True once a whole keepalive was
    silent; silent: the broker had a quarter of a keepalive for its answer. (paho itself would wait for two keepalives.)
    """

    def __init__(
        self,
        manager: EventManager,
        keepalive: float,
        wire: Wire,
        look: Callable[[], object],
        ping: Callable[[bool], object],
        silent: Callable[[], object],
    ) -> None:
        self._wire = wire
        self._look = look
        self._ping = ping
        self._silent = silent
        self._seen = wire.received
        self._quiet = 0
        self._timer = manager.create_timer_event(keepalive / _TICKS, self._tick, name="mqtt.keepalive")

    def cancel(self) -> None:
        """The connection has ended."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._look()
        if not self._timer.active:
            return
        received = self._wire.received
        self._quiet = self._quiet + 1 if received == self._seen else 0
        self._seen = received
        if self._quiet >= _SILENT:
            self._silent()
        else:
            self._ping(self._quiet == _TICKS)
