"""One attempt at a connection, seen from the loop: on a worker, and within ``connect_timeout`` whatever it does."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import LinkError
from agent.events import EventManager, WorkRejected
from agent.mqtt_connect import Attempt, open_wire
from agent.mqtt_errors import too_late
from agent.mqtt_wire import Wire


class Dial:
    """Opens a wire; what comes of it is told once, on the loop's thread.

    on_wire: it stands. The time goes on until ``done``, as the broker's CONNACK belongs to the attempt. on_error: it
    failed, or has taken too long. Neither is called after ``give_up``.
    """

    def __init__(
        self,
        manager: EventManager,
        attempt: Attempt,
        on_wire: Callable[[Attempt, Wire], object],
        on_error: Callable[[LinkError], object],
    ) -> None:
        self.attempt = attempt
        self._manager = manager
        self._on_wire = on_wire
        self._on_error = on_error
        self._over = False
        self._timeout = attempt.settings.connect_timeout
        self._timer = manager.create_timer_event(
            self._timeout, self._too_late, repeat=False, name="mqtt.connect_timeout"
        )

    def start(self, key: str) -> None:
        """key: attempts of one key run one after another. One for each broker of a link: a name server that hangs for
        one of them holds one thread, and not the attempts at the others."""
        try:
            self._manager.execute_work(
                open_wire,
                self.attempt,
                on_done=self._opened,
                on_error=self._not_opened,
                key=key,
                timeout=self._timeout + 1.0,
                name="mqtt.connect",
            )
        except WorkRejected as error:
            self._fail(LinkError("timeout", f"no worker is free to connect ({error})", "see [loop] workers"))

    def done(self) -> None:
        """The broker has accepted us."""
        self._over = True
        self._timer.cancel()

    def give_up(self) -> None:
        """Nobody waits for it any more. The worker is woken, and what comes of it is closed."""
        if not self._over:
            self.done()
            self.attempt.give_up()

    def _opened(self, wire: Wire) -> None:
        if self._over:
            wire.close()
        else:
            self._on_wire(self.attempt, wire)

    def _not_opened(self, error: BaseException) -> None:
        if isinstance(error, LinkError):
            self._fail(error)
        elif isinstance(error, TimeoutError):
            self._too_late()
        else:  # a defect of ours, or an error that nobody has met yet; it must not end the agent
            self._fail(LinkError("lost", f"{self.attempt.url.address}: {error!r}", "tell the developers"))

    def _too_late(self) -> None:
        self._fail(too_late(self.attempt.stage, self.attempt.url, self._timeout))

    def _fail(self, error: LinkError) -> None:
        if not self._over:
            self.give_up()
            self._on_error(error)
