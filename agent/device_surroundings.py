"""What all devices share, handed to each when it is made."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import Clock
from agent.context import Owner
from agent.events import EventManager
from agent.hotplug import PathWatch
from agent.model import Reading

if TYPE_CHECKING:
    from agent.parsing import ParsingHost


@dataclass(slots=True)
class Surroundings:
    """One for all devices.

    sink takes the readings of one device, in order; on_state is told of every device that comes or goes;
    owners finds the device of an event.
    """

    manager: EventManager
    clock: Clock
    sink: Callable[[Sequence[Reading]], object]
    next_seq: Callable[[str], int]
    on_state: Callable[[str, bool], object]
    paths: PathWatch
    rng: random.Random = field(default_factory=random.Random)
    owners: dict[Any, Owner] = field(default_factory=dict)
    blocked: bool = False
    """The outbox is full, and takes no more (``policy = "block"``)."""
    parsing: ParsingHost | None = None
    """Where slow parsers go, if not to threads."""
    link_up: bool = False
    state_file: Callable[[str], Path | None] = lambda _: None
    """Where a device keeps what its driver saves."""
