"""A reading of parts: in whose order it is, whose lane each runs in, and what one that hangs costs."""

from __future__ import annotations

from agent.driver import Fault, Sample, Value
from agent.driver_parts import ANSWER, Ask, Collection
from agent.testing import FakeContext

Part = tuple[dict[str, Value], list[Fault]]


def part(name: str, *faults: Fault) -> Part:
    return ({name: 1} if name else {}), [*faults]


def collection(ctx: FakeContext, *names: str) -> Collection:
    asks: dict[str, Ask] = {name: (part, name) for name in names}
    return Collection(ctx, asks)


def test_a_reading_has_all_parts_in_their_order() -> None:
    ctx = FakeContext("d")
    collection(ctx, "b", "a", "c").begin()
    ctx.run()
    assert [list(sample.fields) for sample in ctx.samples] == [["b", "a", "c"]]


def test_each_part_but_the_first_has_a_lane_of_its_own() -> None:
    class Lanes(FakeContext):
        lanes: list[str]

        def submit(self, fn, *args, lane="", **options):  # type: ignore[no-untyped-def]
            self.lanes.append(lane)
            return super().submit(fn, *args, lane=lane, **options)

    ctx = Lanes("d")
    ctx.lanes = []
    collection(ctx, "core", "/", "/mnt").begin()
    assert ctx.lanes == ["", "/", "/mnt"]


def test_what_fails_is_told_beside_what_does_not_and_alone_where_nothing_is_left() -> None:
    ctx = FakeContext("d")
    bad = Fault("unreadable", "x")
    Collection(ctx, {"good": (part, "g"), "bad": (part, "", bad)}).begin()
    ctx.run()
    assert ctx.emitted == [Sample({"g": 1}), bad]
    Collection(ctx, {"bad": (part, "", bad)}).begin()
    ctx.run()
    assert ctx.emitted[2:] == [bad]


def test_one_that_hangs_is_given_up_and_not_asked_twice() -> None:
    ctx = FakeContext("d", work="deferred")
    made = collection(ctx, "quick", "hung")
    made.begin()
    ctx.do_work(1)
    assert ctx.emitted == []
    ctx.advance(ANSWER)
    assert ctx.emitted == [Sample({"quick": 1}), Fault("timeout", f"hung did not answer within {ANSWER:g} s")]
    made.begin()
    ctx.do_work()
    assert ctx.emitted[2:] == [Sample({"quick": 1}), Fault("timeout", "hung has not answered yet")]


def test_nothing_is_asked_while_nobody_would_take_it() -> None:
    ctx = FakeContext("d", work="deferred")
    ctx.blocked = True
    collection(ctx, "a").begin()
    assert ctx.do_work() == 0


def test_one_that_is_wanted_now_is_the_one_under_way() -> None:
    ctx = FakeContext("d", work="deferred")
    made = collection(ctx, "a", "b")
    made.begin()
    told: list[str | None] = []
    made.read_now(told.append)
    ctx.do_work(1)
    assert told == []
    assert ctx.do_work() == 1
    assert (len(ctx.samples), told) == (1, [None])
    made.read_now(told.append)
    assert ctx.do_work() == 2
    assert (len(ctx.samples), told) == (2, [None, None])
