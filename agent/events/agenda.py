"""What is due when: a heap for timers that come one by one, a sorted run for those that come in bulk.

Entries are tuples (due, number, event), which both heapq and list.sort compare in C; the number makes ties come out
in order of creation and keeps the comparison from ever reaching the event. An entry is dead once its event carries
another number.

Arming appends to ``fresh``, and nothing else; before each wait ``sort_in`` puts what is fresh in its place. A few go
to the heap, at O(log n) each. Many at once (more than an eighth of all) are sorted together with everything else into
one run, from whose end they are popped: for 200,000 timers that is four times as fast as pushing and popping each, as
a heap's every pop walks through 17 levels of cold memory. Costs stay O(log n) an entry either way.

That callbacks append to ``fresh`` is also what fixes a turn's batch: what they arm is in nobody's way until the next
wait.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .timers import TimerEvent

Entry = tuple[float, int, "TimerEvent"]

BULK = 64  # fewer than these are never worth a sort
FEW_DEAD = 64  # dead entries that are not worth clearing out


class Agenda:
    """Entries by due time, then number. ``dead`` entries are passed over, and cleared out when they are half of all."""

    __slots__ = ("dead", "fresh", "heap", "most_dead", "run")

    def __init__(self) -> None:
        self.fresh: list[Entry] = []
        self.heap: list[Entry] = []
        self.run: list[Entry] = []  # descending: the next one is the last
        self.dead = 0
        self.most_dead = FEW_DEAD

    def __len__(self) -> int:
        return len(self.fresh) + len(self.heap) + len(self.run)

    def sort_in(self) -> None:
        """Put what is fresh where it belongs."""
        fresh, heap, run = self.fresh, self.heap, self.run
        if len(fresh) > BULK and len(fresh) * 8 > len(run) + len(heap):
            run += heap
            run += fresh
            heap.clear()
            run.sort(reverse=True)  # what is sorted already is merged, not sorted again
        else:
            for entry in fresh:
                heappush(heap, entry)
        fresh.clear()

    def next_due(self) -> float | None:
        """The earliest due time of a living entry, what is fresh included."""
        if self.fresh:
            self.sort_in()
        heap, run = self.heap, self.run
        while run and run[-1][2]._number != run[-1][1]:
            run.pop()
            self.dead -= 1
        while heap and heap[0][2]._number != heap[0][1]:
            heappop(heap)
            self.dead -= 1
        if not heap:
            return run[-1][0] if run else None
        return min(heap[0][0], run[-1][0]) if run else heap[0][0]

    def clear_out(self) -> None:
        """Called when ``dead`` exceeds ``most_dead``: once half of all are dead, drop them.

        Else time-outs that are always cancelled would pile up until they are due.
        """
        if self.dead * 2 > len(self):
            for part in (self.fresh, self.heap, self.run):
                part[:] = [entry for entry in part if entry[2]._number == entry[1]]  # in place: others hold them
            heapify(self.heap)
            self.dead = 0
        self.most_dead = max(FEW_DEAD, len(self) // 2)
