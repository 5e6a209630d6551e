"""The judge itself: it sees each kind of harm, and no harm where there is none."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from chaos_judge import Arrival, Break, Breaks, Line, Verdict, judge
from chaos_row import Row, table

pytestmark = pytest.mark.bare

LINES = [Line(number, float(number), number + 0.001) for number in range(10)]


def at(*moments: float) -> list[Break]:
    return [Break(moment, moment) for moment in moments]


WELL = [Arrival(number, number + 1, number + 0.002, number + 1000.001) for number in range(10)]


def test_nothing_is_wrong_with_what_is_right() -> None:
    verdict = judge(LINES, WELL, wall_offset=1000.0)
    assert verdict == Verdict(read=10, arrived=10, worst_ts=verdict.worst_ts)
    assert verdict.worst_ts == pytest.approx(0.0, abs=1e-9)


def test_a_line_that_nobody_read_is_no_loss() -> None:
    verdict = judge([*LINES, Line(10, 10.0, None)], WELL)
    assert (verdict.read, verdict.unread, verdict.lost) == (10, 1, 0)


def test_a_reading_of_a_line_that_nobody_read_is_strange() -> None:
    assert judge([replace(LINES[0], read=None), *LINES[1:]], WELL).strange == 1


def test_a_loss_is_one_unless_a_kill_followed_within_the_bound() -> None:
    arrivals = [*WELL[:5], *(replace(arrival, resumed=arrival.number == 6) for arrival in WELL[6:])]
    assert judge(LINES, arrivals).lost == 1
    for kill, young in ((5.0, 0), (5.011, 1), (5.1, 0)):
        verdict = judge(LINES, arrivals, Breaks(kills=at(kill)), bound=0.02)
        assert (verdict.young, verdict.lost) == (young, 1 - young)
    assert judge(LINES, arrivals, Breaks(kills=at(5.101)), bound=0.02).oldest_loss == pytest.approx(0.1)


def test_a_cut_of_the_link_excuses_no_loss() -> None:
    assert judge(LINES, WELL[:-1], Breaks(cuts=at(9.005)), bound=inf).lost == 1


def test_a_gap_has_to_be_marked() -> None:
    assert judge(LINES, [*WELL[:5], *WELL[6:]]).gaps == 1
    assert judge(LINES, [*WELL[:5], replace(WELL[6], resumed=True), *WELL[7:]]).gaps == 0


def test_order_is_that_of_first_arrivals_in_each_stream() -> None:
    assert judge(LINES, [WELL[1], WELL[0], *WELL[2:]]).disordered == 1
    late = [replace(arrival, backfill=True) for arrival in WELL[:5]]
    assert judge(LINES, [*WELL[5:], *late]).disordered == 0
    assert judge(LINES, [*WELL[5:], *reversed(late)]).disordered == 4


def test_a_duplicate_needs_a_break_between_its_arrivals() -> None:
    again = replace(WELL[9], at=10.5)
    verdict = judge(LINES, [*WELL, again])
    assert (verdict.duplicates, verdict.unprovoked, verdict.disordered) == (1, 1, 0)
    verdict = judge(LINES, [*WELL, again], Breaks(cuts=at(10.0)))
    assert (verdict.duplicates, verdict.unprovoked) == (1, 0)
    assert verdict.oldest_duplicate == pytest.approx(10.0 - 9.002)
    assert judge(LINES, [*WELL, again], Breaks(kills=at(9.0, 11.0))).unprovoked == 1


def test_a_reading_may_arrive_when_its_sender_is_dead() -> None:
    late = replace(WELL[9], at=9.5)
    assert judge(LINES, [*WELL[:9], late, replace(late, at=11.0)], Breaks(kills=at(9.3))).unprovoked == 0


def test_what_was_read_while_the_kill_was_on_its_way_is_lost_by_that_kill() -> None:
    verdict = judge(LINES, WELL[:9], Breaks(kills=[Break(9.0, 9.1)]), bound=0.02)
    assert (verdict.young, verdict.lost) == (1, 0)


def test_a_seq_belongs_to_one_reading_and_a_reading_has_one() -> None:
    assert judge(LINES, [*WELL[:9], replace(WELL[9], seq=3)]).reused == 1
    assert judge(LINES, [*WELL, replace(WELL[9], seq=11, at=10.5)], Breaks(cuts=at(10.0))).reused == 1


def test_what_is_in_a_reading_is_what_the_line_said() -> None:
    told = [replace(arrival, fields={"n": arrival.number}) for arrival in WELL]
    assert judge(LINES, told, fields=lambda number: {"n": number}).strange == 0
    told[4] = replace(told[4], fields={"n": 4, "t": 0})
    assert judge(LINES, told, fields=lambda number: {"n": number}).strange == 1


def test_times_are_held_to_the_reading_of_the_line() -> None:
    wrong = [*WELL[:9], replace(WELL[9], wall=WELL[9].wall - 31.0)]
    assert judge(LINES, wrong, wall_offset=1000.0).worst_ts == pytest.approx(31.0)


def test_verdicts_of_devices_add_up() -> None:
    total = Verdict(read=3, lost=1, oldest_loss=0.2) + Verdict(read=4, lost=2, oldest_loss=0.1)
    assert total == Verdict(read=7, lost=3, oldest_loss=0.2)


@pytest.mark.parametrize("harm", ["lost", "disordered", "reused", "gaps", "strange", "unprovoked"])
def test_a_row_fails_by_each_harm(harm: str) -> None:
    Row("all well", 1, Verdict(read=1)).check()
    verdict = Verdict(read=1)
    setattr(verdict, harm, 1)
    with pytest.raises(AssertionError, match="harmed: not kept"):
        Row("harmed", 1, verdict).check()


def test_what_depends_on_the_machine_is_judged_in_the_long_form_alone() -> None:
    row = Row("slow", 1, Verdict(read=1))
    row.limit("quick", False, speed=True)
    row.check()
    assert row.missed(quick=False) == ["quick"]
    assert "**MISSED: quick**" in table([row])


def test_the_table_is_markdown() -> None:
    head, rule, line = table([Row("kill -9", 2000, Verdict(read=1234567))]).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert "| kill -9 | 2,000 | 1,234,567 | 0 |" in line
