"""What ``[outbox]`` may say. Validating it imports nothing that works with a disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.quantity import Duration, Interval, Size

Durability = Literal["memory", "spill", "strict"]


class OutboxSettings(BaseModel):
    """How much may wait, for how long, and what survives a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = Field(
        None,
        description="File of the outbox. Default: outbox.db in $STATE_DIRECTORY, else in ~/.local/state/outstation.",
    )
    durability: Durability = Field(
        "spill",
        description="memory: nothing on disk. spill: on disk is what stays unacknowledged for spill_after. "
        "strict: on disk before it is sent.",
    )
    spill_after: Duration = Field(0.25, description="How long a reading may stay unacknowledged in memory alone.")
    max_bytes: Size = Field(256_000_000, ge=65_536, description="Most that may wait, in bytes.")
    max_age: Interval = Field(30 * 86_400.0, description="Readings older than this are dropped.")
    policy: Literal["drop_oldest", "drop_newest", "thin", "block"] = Field(
        "drop_oldest",
        description="When it is full: drop_oldest or drop_newest; thin: keep every n-th of the oldest; "
        "block: stop reading the devices.",
    )
    replay: Literal["fifo", "live_first"] = Field(
        "fifo", description="How a backlog goes out: oldest first, or beside the live readings."
    )
    replay_rate: int | None = Field(
        None,
        ge=1,
        description='Most readings of a backlog in a second under "live_first". Default: what half of mqtt.inflight '
        "takes.",
    )

    def file(self) -> Path:
        """The outbox's file: ``path``, or by default below $STATE_DIRECTORY (systemd.exec(5)) or XDG_STATE_HOME."""
        if self.path is not None:
            return self.path
        state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # several directories are joined by colons
        if state:
            return Path(state) / "outbox.db"
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(home) / "outstation" / "outbox.db"
