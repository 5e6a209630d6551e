"""Rules: whatever comes, nothing is lost uncounted, nothing is repeated or out of order, and rates hold."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import Sample
from agent.rules import Item, Rules
from agent.rules_settings import RuleSettings

SECOND = 1_000_000_000

values = st.one_of(
    st.integers(-3, 3), st.floats(-3, 3), st.floats(), st.booleans(), st.none(), st.sampled_from(["", "on", "off"])
)
fields = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
steps = st.lists(st.tuples(st.integers(0, 3 * SECOND), fields), max_size=40)
bands = st.one_of(st.none(), st.floats(0, 2), st.sampled_from(["0%", "10%", "100%"]))


@st.composite
def rule_settings(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"on_change": draw(st.booleans()), "deadband": draw(bands)}
    if draw(st.booleans()):
        found["window"] = draw(st.floats(0.5, 5))
    else:
        found["min_interval"] = draw(st.one_of(st.none(), st.floats(0.1, 3)))
    if found["on_change"]:
        found["max_interval"] = draw(st.one_of(st.none(), st.floats(3, 10)))
    channels: dict[str, Any] = {}
    if draw(st.booleans()):
        channels["a"] = {"low": -1, "high": 1}
    if draw(st.booleans()):
        channels["d"] = {"compute": "a / b"}
    return found | {"channels": channels}


def run(rules: Rules, given_steps: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, Item]]:
    """What goes out and when, the timer at its own time, and the flush at the end."""
    now, out = 0, []
    for pause, sample in given_steps:
        now += pause
        while (due := rules.due_ns) is not None and due < now:
            out += [(due, item) for item in rules.expire(due)]
            assert rules.due_ns is None or rules.due_ns > due
        out += [(now, item) for item in rules.take(Sample(dict(sample)), now, 12345)]
    return out + [(now, item) for item in rules.flush(now)]


@settings(max_examples=200, deadline=None)
@given(rule_settings(), steps)
def test_the_books_balance_and_order_is_kept(chosen: dict[str, Any], given_steps: list[Any]) -> None:
    config = RuleSettings(**chosen)
    rules = Rules(config)
    out = run(rules, given_steps)
    samples = [(at, item) for at, item in out if isinstance(item, Sample)]

    found = rules.report()
    assert found["taken"] == len(given_steps)
    assert found["passed"] == len(samples)
    assert found["held"] == 0
    assert found["taken"] + found["made"] == sum(found[word] for word in ("passed", "suppressed", "merged", "refused"))

    last: dict[tuple[str, ...], tuple[int, int]] = {}
    for at, sample in samples:
        assert sample.mono_ns is not None
        assert sample.fields
        assert sample.mono_ns <= at + 1000  # what a flush makes of a window is a microsecond on
        names = tuple(sample.fields)
        if names in last:
            taken, sent = last[names]
            assert sample.mono_ns >= taken
            if config.min_interval is not None and at < sum(pause for pause, _ in given_steps):  # but for the flush
                assert at - sent >= round(config.min_interval * SECOND)
        last[names] = sample.mono_ns, at


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 2), st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_with_a_deadband_the_broker_is_never_off_by_more(band: float, numbers: list[float]) -> None:
    rules = Rules(RuleSettings(deadband=band))
    seen = math.nan
    for at, number in enumerate(numbers):
        for item in rules.take(Sample({"a": number}), at):
            assert isinstance(item, Sample)
            assert item.fields == {"a": number}
            assert not abs(number - seen) <= band
            seen = number
        assert abs(number - seen) <= band


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SECOND), st.integers(-5, 5)), min_size=1, max_size=60), st.integers(0, 10**18))
def test_windows_hold_each_value_once(given_steps: list[tuple[int, int]], offset: int) -> None:
    rules = Rules(RuleSettings(window=1, aggregate=["count", "min", "max", "mean"]))
    now, out = 0, []
    taken: dict[int, list[int]] = {}
    for pause, number in given_steps:
        now += pause
        taken.setdefault((now + offset) // SECOND, []).append(number)
        out += rules.take(Sample({"a": number}), now, offset)
    out += rules.flush(now)
    expected = [
        {"a_count": len(v), "a_min": min(v), "a_max": max(v), "a_mean": float(f"{sum(v) / len(v):.15g}")}
        for v in taken.values()
    ]
    assert [item.fields for item in out if isinstance(item, Sample)] == expected
    ends = [item.mono_ns or 0 for item in out if isinstance(item, Sample)]
    assert all((end + offset) % SECOND == 0 for end in ends[:-1])
    assert ends == sorted(set(ends))
