"""What simulated agents leave retained at a broker, removed again: nobody shall find boards there that never were."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from agent.events import EventManager
from agent.mqtt import Link
from agent.mqtt_settings import MqttSettings


class Sweep:
    """Publishes an empty retained message on each topic (MQTT 3.1.1, section 3.3.1.3), then leaves.

    on_done is called once, with how many topics are left: after ``timeout`` seconds some may be.
    """

    def __init__(
        self,
        manager: EventManager,
        settings: MqttSettings,
        client_id: str,
        topics: Iterable[str],
        log: logging.Logger,
        on_done: Callable[[int], object],
    ) -> None:
        self._manager = manager
        self._topics = deque(topics)
        self._left = len(self._topics)
        self._on_done = on_done
        self._leaving = False
        self._link = link = Link(manager, settings, client_id=client_id, log=log)
        link.on_up = self._pump
        link.on_ack = self._acked
        link.on_refused = lambda _token, _topic, _error: self._acked([None])

    def start(self, timeout: float) -> None:
        self._manager.create_timer_event(timeout, self._leave, repeat=False, name="simulate.sweep")
        self._link.start()

    def _pump(self) -> None:
        link = self._link
        link.cork()
        while self._topics and link.room > 0:
            if not link.publish(self._topics[0], b"", qos=1, retain=True):
                break
            self._topics.popleft()
        link.uncork()

    def _acked(self, tokens: list[Any]) -> None:
        self._left -= len(tokens)
        if self._left <= 0:
            self._leave()
        else:
            self._manager.call_soon(self._pump)  # this may come from within uncork

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._link.stop(lambda: self._on_done(max(0, self._left)))
