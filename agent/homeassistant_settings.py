"""What ``[homeassistant]`` may say."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class HomeAssistantSettings(BaseModel):
    """Home Assistant finds the devices by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    discovery: Literal["off", "on", "remove"] = Field(
        "off",
        description="on: announce all devices. remove: take back what was announced. off: do nothing about it.",
    )
    prefix: str = Field(
        "homeassistant",
        pattern=r"^[^+#\s/\x00]+(/[^+#\s/\x00]+)*$",
        max_length=128,
        description="Home Assistant's discovery prefix.",
    )
