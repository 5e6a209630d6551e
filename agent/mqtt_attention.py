"""When to read acknowledgements: as seldom as does no harm, since a wake-up for one costs as much as a reading."""

from __future__ import annotations

from collections.abc import Callable

from agent.events import EventManager, TimerEvent
from agent.mqtt_inflight import InFlight
from agent.mqtt_wire import Wire

_GROUP = 64  # bytes, sixteen PUBACKs: from here on even a broker that answers in no hurry is listened to
_LATEST = 0.2  # seconds; less than what an outbox may wait before it writes to a disk (spill_after)


class Attention:
    """Lets a connection be woken for what comes only where that matters (docs/decisions/010). look: reads what came."""

    def __init__(self, manager: EventManager, wire: Wire, flying: InFlight, look: Callable[[], object]) -> None:
        self._manager = manager
        self._wire = wire
        self._flying = flying
        self._look = look
        self._timer: TimerEvent | None = None
        self._always = False
        self._late = 0

    def always(self) -> None:
        """Read at once whatever comes, from now on."""
        self._always = True
        self._wire.report_from(1)

    def rest(self, window: int) -> None:
        """After publishing: read what has come meanwhile, and be woken for what follows only where that matters.

        While there is room a PUBACK changes nothing: read along with the next message it costs no wake-up of its own,
        which is half of all that a board with many slow devices has. A timer sees to the last ones.
        """
        if self._always or len(self._flying) * 2 > window:
            self._wire.report_from(1)
            return
        if self._wire.report_from(_GROUP):
            self._look()
        if not self._flying:
            return
        if self._timer is None:
            self._timer = self._manager.create_timer_event(_LATEST, self._swept, repeat=False, name="mqtt.acks")
        else:
            self._timer.reschedule(_LATEST)

    def cancel(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _swept(self) -> None:
        self._look()
        if not self._flying:
            self._late = 0
            return
        # The broker takes its time: let its answer wake us, and all of them if that is its way.
        self._wire.report_from(1)
        self._late += 1
        self._always = self._always or self._late >= 3
