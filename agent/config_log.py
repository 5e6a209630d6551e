"""The section [log] of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LogSettings(BaseModel):
    """The log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["error", "warning", "info", "debug"] = Field(
        "info", description="Least severe lines to log. error: somebody must act; debug: every reading."
    )
    format: Literal["auto", "plain", "json"] = Field(
        "auto",
        description="auto: fields under journald, else plain. plain: lines for people. json: JSON Lines on stderr.",
    )
