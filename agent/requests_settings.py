"""What ``[requests]`` may say: which requests over MQTT are answered, and how many."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RequestSettings(BaseModel):
    """What may be asked of the agent at `outstation/<agent>/request/<op>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enable: tuple[Literal["ping", "status", "config", "read", "reload", "set", "log-level", "restart"], ...] = Field(
        (), description="Requests that are answered. Whoever may publish below request/ at the broker may make them."
    )
    rate: float = Field(
        10.0,
        ge=0.1,
        le=1000,
        description="Requests a second at most, twice as many at once; what is more is refused.",
    )
