"""A lane against a list: whatever is put, written, taken, acknowledged, read back and lost with the link."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import Reading
from agent.outbox_lane import Lane

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 6)),
        st.tuples(st.just("written"), st.integers(0, 8)),
        st.tuples(st.just("take"), st.integers(0, 6)),
        st.tuples(st.just("ack"), st.integers(0, 5)),
        st.tuples(st.just("load"), st.integers(1, 5)),
        st.tuples(st.just("rewind"), st.just(0)),
        st.tuples(st.just("join"), st.integers(0, 6)),
        st.tuples(st.just("thin"), st.integers(1, 4)),
    ),
    max_size=60,
)


def reading(row: int) -> Reading:
    return Reading("d", row, 0, b"x" * (row % 7), row=row)


def invariants(lane: Lane) -> None:
    rows = [r.row for r in lane.in_memory()]
    assert rows == sorted(set(rows))
    assert lane.away >= 0
    if not lane.away:
        assert not lane.back
        assert lane.away_bytes == 0
    else:
        assert all(r.row <= lane.after for r in lane.front)
        assert all(r.row > lane.upto for r in lane.back)


@settings(max_examples=400, deadline=None)
@given(steps=steps)
def test_order_and_number_are_a_lists(steps: list[tuple[str, int]]) -> None:
    lane = Lane()
    row = written = 0
    waiting: list[int] = []
    flying: list[int] = []
    disk: set[int] = set()
    with patch("agent.outbox_lane.KEEP", 4):
        for step, number in steps:
            if step == "put":
                for _ in range(number):
                    row += 1
                    lane.append(reading(row))
                    waiting.append(row)
            elif step == "written":  # all that is not forgotten, up to some row: never less than before
                upto = min(row, written + number)
                disk |= {r for r in waiting + flying if written < r <= upto}
                written = upto
                lane.let_go(written)
            elif step == "take":
                for _ in range(min(number, len(lane.front))):
                    taken = lane.front.popleft()
                    lane.flying[taken.row] = taken
                    assert taken.row == waiting.pop(0)
                    flying.append(taken.row)
            elif step == "ack":
                if number < len(flying):
                    gone = flying.pop(number)
                    del lane.flying[gone]
                    disk.discard(gone)
            elif step == "load" and lane.away:
                found = sorted(r for r in disk if lane.after < r <= lane.upto)
                ended = len(found) <= number
                assert lane.load([reading(r) for r in found[:number]], all_of_it=ended) == (0, 0)
            elif step == "rewind":
                lane.rewind()
                waiting, flying = flying + waiting, []
            elif step == "join":
                lane.rewind()
                waiting, flying = flying + waiting, []
                newer = Lane()
                fresh = []
                for _ in range(number):
                    row += 1
                    newer.append(reading(row))
                    fresh.append(row)
                    if row % 3 == 0:
                        disk |= {r for r in waiting + fresh if r > written}
                        written = row
                        lane.let_go(written)
                        newer.let_go(written)
                lane.join(newer)
                waiting += fresh
                assert newer.waiting == 0
            elif step == "thin":
                out, _, _ = lane.thin(2, 0, number)
                for r in out:
                    waiting.remove(r.row)
                    disk.discard(r.row)
            assert lane.waiting == len(waiting)
            assert list(lane.flying) == flying
            known = {r.row for r in lane.in_memory()}
            assert [r for r in waiting if r not in known] == sorted(
                r for r in disk if r not in known and lane.after < r <= lane.upto
            )
            invariants(lane)


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 7))
def test_thinning_slice_by_slice_leaves_every_nth(counts: list[int], slice_: int) -> None:
    lane = Lane()
    row = 0
    for device, count in enumerate(counts):
        for seq in range(1, count + 1):
            row += 1
            lane.append(Reading(str(device), seq, 0, b"", row=row))
    total, out = row, 0
    for nth in (2, 4):
        cursor, ended = 0, False
        while not ended:
            dropped, cursor, ended = lane.thin(nth, cursor, slice_)
            out += len(dropped)
        assert all(r.seq % nth == 0 for r in lane.front)
    assert len(lane.front) == sum(count // 4 for count in counts) == total - out
