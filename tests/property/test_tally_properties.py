"""The judge of readings against a judge that keeps everything, and against an agent whose losses are known."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.ranges import Ranges
from agent.tally import Arrival, DeviceTally

NUMBERS = st.integers(1, 40)


def numbers(ranges: Ranges) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(st.lists(st.tuples(st.booleans(), NUMBERS, st.integers(0, 6)), max_size=60))
def test_ranges_are_a_set_of_numbers(steps: list[tuple[bool, int, int]]) -> None:
    ranges, model = Ranges(), set[int]()
    for adding, first, width in steps:
        if adding:
            last = first
            while last < first + width and last not in model:
                last += 1
            last -= first in model or last in model  # up to the first that is in it: none may be
            ranges.add(first, last)
            model |= set(range(first, last + 1))
        elif run := ranges.find(first):
            low, high = max(run[0], first), min(run[1], first + width)
            ranges.discard(low, high)
            model -= set(range(low, high + 1))
        assert numbers(ranges) == model
        assert ranges.count == len(model)
        pairs = list(ranges)
        assert all(before[1] + 1 < after[0] for before, after in pairwise(pairs))  # merged, ordered
        assert ranges.pairs == len(pairs)
        assert bool(ranges) == bool(model)
        for number in range(50):
            assert (number in ranges) == (number in model)
    lowest = sorted(model)[:1]
    if lowest:
        first, last = ranges.pop_first()
        assert [first] == lowest
        assert ranges.count == len(model) - (last - first + 1)
    rest = ranges.take_all()
    assert not ranges
    assert ranges.count == 0
    assert rest == pairs_of(model)[1:]


def pairs_of(model: set[int]) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for number in sorted(model):
        if pairs and pairs[-1][1] == number - 1:
            pairs[-1] = (pairs[-1][0], number)
        else:
            pairs.append((number, number))
    return pairs


class Naive:
    """The rules of agent/tally.py, number by number: each number has one word, and nothing is ever forgotten."""

    def __init__(self) -> None:
        self.word: dict[int, str] = {}
        self.live = self.backfill = False
        self.streams: dict[bool, list[int]] = {False: [], True: []}
        self.duplicates = self.disorder = 0

    def count(self, seq: int, *, resumed: bool, backfill: bool) -> None:
        word = self.word
        known = word.get(seq)
        if known == "received":
            self.duplicates += 1
            return
        if known is None and word:
            for number in range(max(word) + 1, seq):
                heard = self.live or (backfill and self.backfill)
                word[number] = "missing" if heard else "unheard"
            for number in range(seq + 1, min(word)):
                word[number] = "unheard"
        if known == "apart":
            number = seq - 1
            while word.get(number) == "apart":
                word[number] = "missing"
                number -= 1
        word[seq] = "received"
        if resumed:
            number = seq - 1
            while word.get(number) == "missing":
                word[number] = "apart"
                number -= 1
        self.disorder += any(other > seq for other in self.streams[backfill])
        self.streams[backfill].append(seq)
        if backfill:
            self.backfill = True
        else:
            self.live = True

    def interrupt(self) -> None:
        self.word = {number: "unheard" if word == "missing" else word for number, word in self.word.items()}
        self.live = self.backfill = False

    def all(self, word: str) -> set[int]:
        return {number for number, said in self.word.items() if said == word}


STEP = st.one_of(
    st.tuples(st.integers(2, 40), st.booleans(), st.booleans()),  # 1 might begin anew: a case of its own
    st.just(None),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60))
def test_any_arrivals_are_judged_as_by_one_who_keeps_everything(steps: list[tuple[int, bool, bool] | None]) -> None:
    tally, naive = DeviceTally(), Naive()
    for step in steps:
        if step is None:
            tally.interrupt()
            naive.interrupt()
            continue
        seq, resumed, backfill = step
        tally.count(Arrival(seq, {"n": seq}, resumed=resumed, backfill=backfill))
        naive.count(seq, resumed=resumed, backfill=backfill)
        assert numbers(tally.missing) == naive.all("missing")
        assert numbers(tally.apart) == naive.all("apart")
        assert numbers(tally.unheard) == naive.all("unheard")
        assert tally.received == len(naive.all("received"))
        assert (tally.duplicates, tally.disorder) == (naive.duplicates, naive.disorder)
        assert (tally.first, tally.last) == (min(naive.word), max(naive.word))
        assert (tally.reused, tally.restarts) == (0, 0)


READING = st.fixed_dictionaries(
    {
        "skip": st.sampled_from([0, 0, 0, 0, 1, 5]),  # an unclean end before it: the numbers go on in another range
        "backfill": st.booleans(),
        "lost": st.sampled_from([False, False, False, True]),
        "again": st.sampled_from([0, 0, 0, 1, 2]),
    }
)


@settings(max_examples=300)
@given(st.lists(READING, max_size=40), st.data())
def test_what_an_agent_loses_and_repeats_is_found_and_nothing_else(
    plan: list[dict[str, int]], data: st.DataObject
) -> None:
    """However the two streams come beside each other, each in order: the end tells which were lost."""
    streams: dict[bool, list[Arrival]] = {False: [], True: []}
    expected: dict[str, set[int]] = {"missing": set(), "apart": set()}
    seq = 1
    resumed = False
    gap: set[int] = set()
    repeats = 0
    for reading in plan:
        resumed = resumed or reading["skip"] > 0
        gap |= set(range(seq + 1, seq + 1 + reading["skip"]))
        seq += 1 + reading["skip"]
        if reading["lost"]:
            gap.add(seq)
            resumed = False  # the marked reading itself was lost: the next one carries no mark
            continue
        arrival = Arrival(seq, {"n": seq}, resumed=resumed, backfill=bool(reading["backfill"]))
        streams[arrival.backfill] += [arrival] * (1 + reading["again"])
        repeats += reading["again"]
        expected["apart" if resumed else "missing"] |= gap
        gap, resumed = set(), False
    tally = DeviceTally()
    tally.count(Arrival(1, {"n": 1}))
    while streams[False] or streams[True]:
        both = streams[False] and streams[True]
        backfill = data.draw(st.booleans()) if both else bool(streams[True])
        tally.count(streams[backfill].pop(0))
    assert numbers(tally.missing) == expected["missing"]
    assert numbers(tally.apart) == expected["apart"]
    assert tally.lost == len(expected["missing"])
    assert (tally.duplicates, tally.disorder, tally.reused, tally.restarts) == (repeats, 0, 0, 0)
    assert not tally.unheard
    assert tally.holds == (not expected["missing"])
