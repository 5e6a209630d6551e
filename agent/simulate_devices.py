"""The simulated device: a reading every so often, of the size that a weather sensor's has."""

from __future__ import annotations

import random

from pydantic import Field

from agent.driver import Channel, DeviceConfig, Driver, Port, Sample


class SimulatedConfig(DeviceConfig):
    """Made by the command line alone: no configuration names this driver."""

    interval: float = Field(gt=0, description="Seconds between two readings.")
    phase: float = Field(ge=0, description="Seconds until the first one: boards in a field do not read in step.")


class SimulatedDriver(Driver):
    """Temperature and humidity, which wander; no port and no worker."""

    Config = SimulatedConfig
    channels = (
        Channel("temperature", "°C", -40, 85, "temperature"),
        Channel("humidity", "%", 0, 100, "humidity"),
    )

    def start(self, port: Port | None) -> None:  # noqa: ARG002  (there is none)
        config: SimulatedConfig = self.config
        self._temperature, self._humidity = 21.0, 45.0
        self.ctx.every(config.interval, self._read, first_after=max(config.phase, 1e-3), name="simulated.read")

    def _read(self) -> None:
        self._temperature = min(85.0, max(-40.0, self._temperature + random.uniform(-0.1, 0.1)))
        self._humidity = min(100.0, max(0.0, self._humidity + random.uniform(-0.2, 0.2)))
        self.ctx.emit(Sample({"temperature": round(self._temperature, 2), "humidity": round(self._humidity, 1)}))
