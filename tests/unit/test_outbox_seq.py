"""Numbers are never given twice, whatever the disk does and whenever the process ends."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from agent.outbox_seq import FIRST_RANGE, LARGEST_RANGE, Numbering
from agent.outbox_store import Numbers


def numbering(jump: int = 10**12) -> Numbering:
    return Numbering(lambda: jump)


def test_a_new_device_begins_at_one() -> None:
    numbers = numbering()
    numbers.begin({}, ["a", "b"])
    assert numbers.wanted() == {"a": FIRST_RANGE + 1, "b": FIRST_RANGE + 1}
    numbers.confirm(numbers.wanted())
    assert [numbers.take("a"), numbers.take("a"), numbers.take("b")] == [1, 2, 1]
    assert numbers.resumed == set()


def test_after_a_clean_end_it_goes_on_and_after_another_behind_the_range() -> None:
    numbers = numbering()
    numbers.begin({"a": Numbers(12, resumed=False), "b": Numbers(65_537, resumed=True)}, ["a", "b", "c"])
    assert numbers.resumed == {"b"}
    assert [numbers.take(device) for device in "abc"] == [12, 65_537, 1]
    assert numbers.exact() == {"a": 13, "b": 65_538, "c": 2}


def test_a_range_is_renewed_at_half_and_grows() -> None:
    numbers = numbering()
    numbers.begin({}, ["a"])
    numbers.confirm(numbers.wanted())
    for expected in (FIRST_RANGE * 4, FIRST_RANGE * 16, FIRST_RANGE * 64, LARGEST_RANGE, LARGEST_RANGE):
        while not numbers.short:
            last = numbers.take("a")
        (end,) = numbers.wanted().values()
        assert end - (last + 1) == expected
        numbers.confirm({"a": end})
        # A simulated long run: no need to take millions one by one.
        numbers._next["a"] = numbers._check["a"] - 1


def test_where_the_disk_does_not_take_a_new_range_numbers_jump_ahead_and_say_so() -> None:
    numbers = numbering(jump=10**12)
    numbers.begin({}, ["a"])
    numbers.confirm(numbers.wanted())
    taken = [numbers.take("a") for _ in range(FIRST_RANGE + 2)]
    assert taken[:FIRST_RANGE] == list(range(1, FIRST_RANGE + 1))
    assert taken[FIRST_RANGE:] == [10**12, 10**12 + 1]
    assert numbers.resumed == {"a"}


def test_a_file_that_turns_up_late_takes_no_number_back() -> None:
    numbers = numbering()
    numbers.begin({}, ["a"], 10**12)
    assert numbers.resumed == {"a"}
    numbers.resumed.clear()
    assert numbers.take("a") == 10**12
    numbers.begin({"a": Numbers(70_000, resumed=True)}, ["a"])
    assert numbers.take("a") == 10**12 + 1
    numbers.begin({"a": Numbers(10**13, resumed=True)}, ["a"])
    assert numbers.take("a") == 10**13
    assert numbers.resumed == {"a"}


@patch("agent.outbox_seq.FIRST_RANGE", 100)
@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["confirm", "crash", "clean", "refused"])), max_size=30))
def test_no_number_is_given_twice_over_crashes(steps: list[tuple[int, str]]) -> None:
    disk: dict[str, Numbers] = {}
    seen: list[int] = []
    jumps = 10**9

    def jump() -> int:
        nonlocal jumps
        jumps += 10**6  # the clock: more than numbers given meanwhile
        return jumps

    def start() -> Numbering:
        made = Numbering(jump)
        made.begin(disk, ["d"])
        for device, end in made.wanted().items():
            disk[device] = Numbers(end, resumed=True)
        made.confirm({device: known.following for device, known in disk.items()})
        return made

    numbers = start()
    for count, step in steps:
        seen += [numbers.take("d") for _ in range(count)]
        if step == "confirm":
            for device, end in numbers.wanted().items():
                disk[device] = Numbers(end, resumed=True)
                numbers.confirm({device: end})
        elif step == "crash":
            numbers = start()
        elif step == "clean":
            disk = {device: Numbers(following, resumed=False) for device, following in numbers.exact().items()}
            numbers = start()
    assert len(seen) == len(set(seen))
    if jumps == 10**9:  # the disk never failed for longer than a range lasts
        assert seen == sorted(seen)


# ---- devices that come later


def test_a_device_that_comes_later_waits_for_its_range() -> None:
    numbers = numbering()
    numbers.begin({"old": Numbers(12, resumed=False)}, ["a"])
    numbers.confirm(numbers.wanted())
    called: list[str] = []
    numbers.reserve(["a"], lambda: called.append("known"), wait=True)
    assert called == ["known"]
    numbers.reserve(["a", "b", "old"], lambda: called.append("new"), wait=True)
    wanted = numbers.wanted()
    assert wanted == {"b": FIRST_RANGE + 1, "old": FIRST_RANGE + 12}
    numbers.confirm({"b": wanted["b"]})
    assert called == ["known"]
    numbers.confirm({"old": wanted["old"]})
    assert called == ["known", "new"]
    assert [numbers.take(name) for name in ("a", "b", "old")] == [1, 1, 12]
    assert numbers.resumed == set()


def test_a_disk_that_does_not_answer_holds_no_device_up() -> None:
    numbers = numbering(jump=5000)
    numbers.begin({}, ["a"])
    called: list[str] = []
    numbers.reserve(["b"], lambda: called.append("b"), wait=True)
    numbers.reserve(["c"], lambda: called.append("c"), wait=True)
    numbers.give_up()
    assert called == ["b", "c"]
    numbers.reserve(["d"], lambda: called.append("d"), wait=False)
    assert called == ["b", "c", "d"]
    assert [numbers.take(name) for name in "bcd"] == [5000, 5000, 5000]
    assert {"b", "c", "d"} <= numbers.resumed
