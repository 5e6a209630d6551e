"""What the publisher counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts of readings since the start; a reading sent again after a lost link counts as written again."""

    written: int
    acknowledged: int
    in_flight: int
    oversized: int
    """Set aside: larger than the broker or mqtt.max_packet allows."""
    refused: int
    """Set aside: the broker answered that it does not take them."""
