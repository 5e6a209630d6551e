"""The rules of a device: what goes out, when, with which time, and that nothing vanishes uncounted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from agent.model import Channel, Fault, Sample
from agent.rules import GROUPS, NAMES, Item, Rules
from agent.rules_settings import RuleSettings, published

SECOND = 1_000_000_000


def make(**settings: Any) -> Rules:
    return Rules(RuleSettings(**settings))


def sent(items: list[Item]) -> list[tuple[float, dict[str, Any]]]:
    """(seconds at which it was taken, fields) of each sample."""
    return [((item.mono_ns or 0) / SECOND, item.fields) for item in items if isinstance(item, Sample)]


def faults(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.kind, item.detail) for item in items if isinstance(item, Fault)]


class Feed:
    """Samples with one channel ``t`` at given seconds, and the timer that the rules ask for, at its own time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.out: list[Item] = []

    def at(self, seconds: float, **fields: Any) -> Feed:
        now = round(seconds * SECOND)
        self.until(seconds)
        self.out += self.rules.take(Sample(fields), now)
        return self

    def until(self, seconds: float) -> Feed:
        while (due := self.rules.due_ns) is not None and due < round(seconds * SECOND):
            self.out += self.rules.expire(due)
        return self

    @property
    def sent(self) -> list[tuple[float, dict[str, Any]]]:
        return sent(self.out)

    def balance(self) -> None:
        found = self.rules.report()
        assert found["taken"] + found["made"] == sum(
            found[name] for name in ("passed", "suppressed", "merged", "refused", "held")
        )


# ---- news


def test_on_change_lets_out_what_differs_and_counts_the_rest() -> None:
    feed = Feed(make(on_change=True))
    for second, value in enumerate([1, 1, 2, 2.0, 2, True, True, "1", None, None, 1]):
        feed.at(second, t=value)
    assert feed.sent == [
        (0, {"t": 1}),
        (2, {"t": 2}),
        (5, {"t": True}),
        (7, {"t": "1"}),
        (8, {"t": None}),
        (10, {"t": 1}),
    ]
    assert feed.rules.counts.suppressed == 5
    feed.balance()


def test_a_deadband_compares_with_what_went_out_so_that_a_drift_is_seen() -> None:
    feed = Feed(make(deadband=1.0))
    for second in range(10):
        feed.at(second, t=second * 0.5)
    assert [fields["t"] for _, fields in feed.sent] == [0, 1.5, 3.0, 4.5]


def test_a_difference_of_just_the_deadband_is_no_news() -> None:
    assert len(Feed(make(deadband=2)).at(0, t=1).at(1, t=3).at(2, t=-1).sent) == 1


def test_a_percentage_is_of_the_value_that_went_out() -> None:
    feed = Feed(make(deadband="10 %"))
    for second, value in enumerate([100, 110, 111, 100, 99.5, -100, -109, 0, 0, 0.001]):
        feed.at(second, t=value)
    assert [fields["t"] for _, fields in feed.sent] == [100, 111, 99.5, -100, 0, 0.001]


def test_a_channels_own_deadband_and_one_that_is_never_news() -> None:
    rules = make(deadband=1, channels={"t": {"deadband": 5}, "uptime": {"triggers": False}})
    feed = Feed(rules).at(0, t=0, h=0, uptime=0).at(1, t=4, h=0, uptime=10).at(2, t=4, h=1.5, uptime=20)
    assert feed.sent == [(0, {"t": 0, "h": 0, "uptime": 0}), (2, {"t": 4, "h": 1.5, "uptime": 20})]
    feed.at(3, t=6, h=2, uptime=30)  # t went out as 4: the whole reading counts as sent
    assert len(feed.sent) == 2


def test_other_channels_of_a_device_with_one_deadband_go_by_any_change() -> None:
    feed = Feed(make(channels={"t": {"deadband": 1}})).at(0, t=0, door=False).at(1, t=0.5, door=False)
    assert len(feed.sent) == 1
    assert len(feed.at(2, t=0.5, door=True).sent) == 2


def test_a_new_channel_is_news() -> None:
    assert len(Feed(make(on_change=True)).at(0, t=1).at(1, t=1, h=2).at(2, t=1).sent) == 2


def test_what_is_no_number_is_not_suppressed_in_silence() -> None:
    feed = Feed(make(deadband=1)).at(0, t=1.0).at(1, t=float("nan")).at(2, t=float("nan"))
    assert len(feed.sent) == 3


# ---- rates


def test_min_interval_lets_out_the_first_and_then_the_newest_at_its_end() -> None:
    feed = Feed(make(min_interval=1))
    for tenth in range(25):
        feed.at(tenth / 10, t=tenth)
    assert feed.sent == [(0, {"t": 0}), (1.0, {"t": 10}), (2.0, {"t": 20})]
    feed.until(10)
    assert feed.sent[3:] == [(2.4, {"t": 24})]  # with its own time, though it goes out at 3 s
    assert feed.rules.due_ns is None
    assert feed.rules.counts.suppressed == 21
    feed.balance()


def test_min_interval_begins_anew_when_the_held_one_goes_out() -> None:
    feed = Feed(make(min_interval=1)).at(0, t=1).at(0.9, t=2).at(1.95, t=3)
    assert feed.sent == [(0, {"t": 1}), (0.9, {"t": 2})]  # at 0 and 1 s
    assert feed.rules.due_ns == 2 * SECOND


def test_what_goes_out_together_does_so_in_the_order_of_time() -> None:
    feed = Feed(make(min_interval=10)).at(0, t=1).at(0, h=1).at(2, h=2).at(3, t=2)
    assert sent(feed.rules.expire(10 * SECOND)) == [(2, {"h": 2}), (3, {"t": 2})]


def test_a_change_that_went_back_within_min_interval_is_none() -> None:
    feed = Feed(make(min_interval=1, on_change=True)).at(0, t=1).at(0.2, t=2).at(0.4, t=1).until(5)
    assert feed.sent == [(0, {"t": 1})]
    assert feed.at(5, t=2).at(5.2, t=3).until(7).sent == [(0, {"t": 1}), (5, {"t": 2}), (5.2, {"t": 3})]
    feed.balance()


def test_max_interval_lets_out_the_newest_that_was_held_back_with_its_own_time() -> None:
    feed = Feed(make(on_change=True, max_interval=10))
    for second in range(0, 28, 3):
        feed.at(second, t=7)
    assert [at for at, _ in feed.sent] == [0, 9, 18]  # went out at 0, 10 and 20 s
    feed.balance()


def test_max_interval_makes_no_reading_of_a_silent_device() -> None:
    feed = Feed(make(on_change=True, max_interval=10)).at(0, t=7).at(3, t=7).until(1000)
    assert [at for at, _ in feed.sent] == [0, 3]
    assert feed.rules.due_ns is None
    assert [at for at, _ in feed.at(1000, t=7).sent] == [0, 3, 1000]


def test_readings_with_other_channels_have_a_rate_of_their_own() -> None:
    feed = Feed(make(min_interval=10)).at(0, t=1).at(1, h=1).at(2, t=2).at(3, h=2).until(60)
    assert feed.sent == [(0, {"t": 1}), (1, {"h": 1}), (2, {"t": 2}), (3, {"h": 2})]


def test_noise_that_makes_ever_new_names_is_bounded_and_loses_nothing() -> None:
    rules = make(on_change=True, min_interval=1, max_interval=60)
    feed = Feed(rules)
    for number in range(3 * NAMES):
        feed.at(number * 1e-3, **{f"n{number}": 1}).at(number * 1e-3, t=number)
    assert len(rules._groups) <= GROUPS
    assert len(rules._last) <= NAMES
    assert len(rules._bands) <= NAMES
    feed.balance()


# ---- windows


def window(values: list[Any], **settings: Any) -> dict[str, Any]:
    """Of one window of a minute."""
    feed = Feed(make(window=60, **settings))
    for second, value in enumerate(values):
        feed.at(second, t=value)
    ((_, fields),) = feed.until(1000).sent
    feed.balance()
    return fields


def test_each_aggregate() -> None:
    words = ["mean", "min", "max", "last", "count"]
    expected = {"t_mean": 2.5, "t_min": 1, "t_max": 4, "t_last": 3, "t_count": 4}
    assert window([4, 1, 2, 3], aggregate=words) == expected


@pytest.mark.parametrize(
    ("word", "value"), [("mean", 2.5), ("min", 1), ("max", 4), ("last", 3), ("count", 4), (None, 2.5)]
)
def test_one_word_keeps_the_name(word: str | None, value: Any) -> None:
    assert window([4, 1, 2, 3], aggregate=word) == {"t": value}


def test_the_mean_shows_no_dust_of_binary_fractions() -> None:
    assert window([0.1, 0.1, 0.1]) == {"t": 0.1}


def test_a_mean_of_what_is_true_is_the_share_of_time() -> None:
    assert window([True, True, False, True]) == {"t": 0.75}


def test_of_text_the_last_stands_for_its_mean_and_null_is_no_value() -> None:
    assert window(["a", "b", None]) == {"t": "b"}
    assert window([None, None], aggregate=["mean", "count"]) == {"t_mean": None, "t_count": 0}
    assert window(["a", 1, 3, "b"]) == {"t": 2.0}


def test_windows_are_whole_minutes_of_utc_and_carry_the_time_of_their_end() -> None:
    rules = make(window=60)
    offset = 1_700_000_000 * SECOND + 25 * SECOND  # 22:13:45 UTC at zero
    assert rules.take(Sample({"t": 1}), 0, offset) == []
    assert rules.due_ns == 15 * SECOND
    assert sent(rules.take(Sample({"t": 2}), 15 * SECOND, offset)) == [(15, {"t": 1.0})]
    assert sent(rules.expire(75 * SECOND)) == [(75, {"t": 2.0})]
    assert rules.due_ns is None  # nothing came: no window


def test_a_step_of_the_clock_moves_no_window_that_is_open() -> None:
    rules = make(window=60)
    rules.take(Sample({"t": 1}), 0, 0)
    rules.take(Sample({"t": 2}), SECOND, 31 * SECOND)
    assert rules.due_ns == 60 * SECOND
    rules.expire(60 * SECOND)
    rules.take(Sample({"t": 2}), 61 * SECOND, 31 * SECOND)
    assert rules.due_ns == 89 * SECOND  # 120 s of the clock


def test_channels_of_different_readings_meet_in_one_window() -> None:
    feed = Feed(make(window=60, channels={"h": {"aggregate": ["max"]}})).at(0, t=1).at(1, h=5).at(2, t=3).until(60.1)
    assert feed.sent == [(60, {"t": 2.0, "h_max": 5})]


def test_a_deadband_of_a_channel_is_one_of_its_aggregates_and_a_count_is_no_news() -> None:
    rules = make(window=60, aggregate=["max", "count"], channels={"t": {"deadband": 1}})
    feed = Feed(rules).at(0, t=1)
    for second in range(60, 70):
        feed.at(second, t=2)
    feed.at(120, t=3).until(200)
    assert feed.sent == [(60, {"t_max": 1, "t_count": 1}), (180, {"t_max": 3, "t_count": 1})]
    feed.balance()


def test_one_value_that_is_none_does_not_spoil_a_window() -> None:
    feed = Feed(make(window=60)).at(0, t=1.0).at(1, t=float("inf"), h=1).at(2, t=float("nan")).until(100)
    assert feed.sent == [(60, {"t": 1.0, "h": 1.0})]
    assert faults(feed.out) == [
        ("number", "t is inf, which has no JSON form"),
        ("number", "t is nan, which has no JSON form"),
    ]
    feed.balance()


def test_two_channels_of_one_name_in_a_window_are_a_fault() -> None:
    rules = make(window=60, channels={"t": {"aggregate": ["max"]}})
    feed = Feed(rules).at(0, t=1, t_max=5).until(100)
    assert feed.sent == [(60, {"t_max": 1})]
    assert faults(feed.out) == [("topic", "two channels of the window are t_max")]


def test_a_window_holds_a_bounded_number_of_channels() -> None:
    feed = Feed(make(window=60))
    for number in range(2000):
        feed.at(number * 1e-3, **{f"n{number}": 1})
    feed.until(100)
    assert len(feed.sent[0][1]) == 1024
    assert len(faults(feed.out)) == 2000 - 1024
    feed.balance()


# ---- the end


def test_a_flush_gives_what_min_interval_holds_and_the_part_of_a_window() -> None:
    rules = make(min_interval=10)
    Feed(rules).at(0, t=1).at(1, t=2)
    assert sent(rules.flush(2 * SECOND)) == [(1, {"t": 2})]
    assert rules.flush(3 * SECOND) == []
    rules = make(window=60)
    Feed(rules).at(0, t=1).at(1, t=2)
    assert sent(rules.flush(2 * SECOND)) == [(2.000001, {"t": 1.5})]
    assert rules.flush(3 * SECOND) == []


def test_a_window_that_is_cut_short_does_not_share_the_time_of_the_one_before() -> None:
    rules = make(window=60)
    feed = Feed(rules).at(0, t=1).at(60, t=2)
    assert sent(feed.out + rules.flush(60 * SECOND)) == [(60, {"t": 1.0}), (60.000001, {"t": 2.0})]


def test_a_flush_does_not_repeat_what_is_no_news() -> None:
    rules = make(on_change=True, max_interval=10)
    feed = Feed(rules).at(0, t=1).at(1, t=1)
    assert rules.flush(2 * SECOND) == []
    feed.balance()


def test_a_flush_is_in_the_order_of_time() -> None:
    rules = make(min_interval=10)
    Feed(rules).at(0, t=1).at(0, h=1).at(2, h=2).at(3, t=2)
    assert sent(rules.flush(4 * SECOND)) == [(2, {"h": 2}), (3, {"t": 2})]


# ---- limits


def test_a_value_outside_its_limits_is_left_out_and_said() -> None:
    rules = make(channels={"t": {"low": -40, "high": 85}})
    rules.declare([Channel("t", "°C", -100, 100)])
    out = rules.take(Sample({"t": 851, "h": 40}), SECOND)
    assert sent(out) == [(1, {"h": 40})]
    assert faults(out) == [("range", "t: 851 °C is above 85 °C")]
    out = rules.take(Sample({"t": -40.5}), SECOND)
    assert faults(out) == [("range", "t: -40.5 °C is below -40 °C")]
    assert sent(out) == []
    assert rules.counts.refused == 1
    assert sent(rules.take(Sample({"t": 85}), SECOND) + rules.take(Sample({"t": None}), SECOND))[1][1] == {"t": None}


@pytest.mark.parametrize("check", [True, False])
def test_limits_of_the_driver_count_where_it_is_asked_for(check: bool) -> None:
    rules = make(check_range=check, on_change=True)
    rules.declare([Channel("t", low=0, high=10), Channel("h")])
    assert bool(faults(rules.take(Sample({"t": 11, "h": 1}), 0))) == check


def test_a_sample_of_the_driver_is_never_changed() -> None:
    fields = {"t": 300, "h": 40}
    make(channels={"t": {"high": 85}, "x": {"compute": "h"}}).take(Sample(fields), 0)
    assert fields == {"t": 300, "h": 40}


# ---- computed channels


def test_computed_channels_may_use_each_other_and_replace_what_was_read() -> None:
    pytest.importorskip("simpleeval")
    channels = {"t": {"compute": "t * 1.8 + 32"}, "sum-2": {"compute": "t + h"}, "twice": {"compute": "sum_2 * 2"}}
    out = make(channels=channels).take(Sample({"t": 10, "h": 1}), 0)
    assert sent(out) == [(0, {"t": 50.0, "h": 1, "sum-2": 51.0, "twice": 102.0})]


def test_what_cannot_be_computed_is_a_fault_and_the_rest_goes_out() -> None:
    pytest.importorskip("simpleeval")
    rules = make(channels={"q": {"compute": "t / h"}, "r": {"compute": "t * 1000", "high": 5, "unit": "W"}})
    out = rules.take(Sample({"t": 1, "h": 0}), 0)
    assert sent(out) == [(0, {"t": 1, "h": 0})]
    assert faults(out) == [("compute", "q: float division by zero"), ("range", "r: 1000 W is above 5 W")]
    assert faults(rules.take(Sample({"t": "x", "h": 1}), 0))[0] == ("compute", "q: text where a number is due")


def test_without_its_channels_a_computed_one_is_not_there() -> None:
    pytest.importorskip("simpleeval")
    rules = make(channels={"q": {"compute": "t / h"}, "t": {"high": 5}})
    assert sent(rules.take(Sample({"t": 1}), 0)) == [(0, {"t": 1})]
    out = rules.take(Sample({"t": 6, "h": 1}), 0)  # t is left out, so that nothing is made of it
    assert sent(out) == [(0, {"h": 1})]
    assert faults(out) == [("range", "t: 6 is above 5")]


def test_channels_are_written_as_identifiers() -> None:
    pytest.importorskip("simpleeval")
    out = make(channels={"x": {"compute": "bme_280_t + _1_t"}}).take(Sample({"bme-280/t": 1, "1-t": 2}), 0)
    assert sent(out)[0][1]["x"] == 3.0


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deadband": "1"}, 'a percentage as "1%"'),
        ({"deadband": -1.0}, "not negative"),
        ({"max_interval": 60}, "neither is set"),
        ({"max_interval": 1, "min_interval": 2, "on_change": True}, "less than min_interval"),
        ({"window": 60, "min_interval": 5}, "leave min_interval out"),
        ({"aggregate": "mean"}, "needs window"),
        ({"window": 60, "aggregate": []}, "aggregate"),
        ({"window": 60, "aggregate": "median"}, "aggregate"),
        ({"window": 0}, "greater than 0"),
        ({"window": "31d"}, "less than or equal"),
        ({"channels": {"t": {"aggregate": "mean"}}}, "needs window"),
        ({"channels": {"t": {"low": 2, "high": 1}}}, "low = 2 is above high = 1"),
        ({"channels": {"t": {"unit": "W"}}}, "for computed channels"),
        ({"channels": {"t": {"triggers": False}}}, "neither is set"),
        ({"channels": {"t": {"triggers": False, "deadband": 1}}}, "leave one of them out"),
        ({"channels": {"t": {"deadbnad": 1}}}, "deadbnad"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RuleSettings.model_validate_json(json.dumps(settings), strict=True)


def test_an_empty_table_is_no_rule() -> None:
    assert not RuleSettings().active
    assert all(
        RuleSettings(**rule).active
        for rule in ({"on_change": True}, {"deadband": 0.0}, {"min_interval": 1}, {"window": 1}, {"check_range": True})
    )


def test_the_channels_that_come_out() -> None:
    pytest.importorskip("simpleeval")
    read = [Channel("t", "°C", -40, 85, "temperature"), Channel("n")]
    assert published(None, read) == tuple(read)
    rules = RuleSettings(channels={"t": {"high": 50}, "x": {"compute": "t", "unit": "K"}})
    assert published(rules, read) == (Channel("t", "°C", None, 50, "temperature"), Channel("n"), Channel("x", "K"))
    rules = RuleSettings(window=60, channels={"t": {"aggregate": ["max", "count"]}})
    assert [c.name for c in published(rules, read)] == ["t_max", "t_count", "n"]
    assert published(rules, read)[0] == Channel("t_max", "°C", -40, 85, "temperature")
