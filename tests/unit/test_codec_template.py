"""Topics by a template: which are refused, what they give, and that a topic tells its names again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codec import Topics
from agent.codec_template import Template
from agent.homeassistant import Discovery
from agent.tally import Tally

NAMES = st.text("abAB09_-", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a topic"),
        ("/site/{device}", "not a topic"),
        ("site//{device}", "not a topic"),
        ("site/{device}/", "not a topic"),
        ("$SYS/{device}", "not a topic"),
        ("site/+/{device}", "not a topic"),
        ("site/{device}/#", "not a topic"),
        ("site/{device}\n", "not a topic"),
        ("site/{device", "not a topic"),
        ("site/device}", "not a topic"),
        ("site/{{device}}", "not a topic"),
        ("site/{}", "{} is no placeholder"),
        ("site/{room}/{device}", "{room} is no placeholder; there are {agent}, {device} and {channel}"),
        ("site/{device!r}", "{device!r} is no placeholder"),
        ("site/{agent}-{device}", "two placeholders"),
        ("site/{device}/{device}", "{device} stands twice"),
    ],
)
def test_a_template_that_is_none_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Template(text)


@given(NAMES, NAMES, NAMES, st.sampled_from(["s/{agent}/{device}/{channel}", "{channel}/x-{device}", "{device}/v.1"]))
def test_a_topic_tells_its_names_again_and_fits_the_filter(agent: str, device: str, channel: str, text: str) -> None:
    template = Template(text)
    topic = template.fill(agent=agent, device=device, channel=channel)
    names = {"agent": agent, "device": device, "channel": channel}
    assert template.read(topic) == {name: names[name] for name in template.names}
    wanted = "[^/]+".join(map(re.escape, template.filter().split("+")))
    assert re.fullmatch(wanted, topic)


@pytest.mark.parametrize("topic", ["site/a", "site/a/b/c", "other/a/b", "site/a b/c", "site/a/", "xsite/a/b"])
def test_what_is_not_its_topic_is_not_read(topic: str) -> None:
    assert Template("site/{agent}/{device}").read(topic) is None


def test_topics_follow_it_and_the_rest_stays() -> None:
    plain, moved = Topics("box"), Topics("box", template="site/{agent}/dev-{device}")
    assert moved.telemetry("pump") == "site/box/dev-pump"
    assert moved.set("pump", "on") == plain.set("pump", "on")
    assert moved.device_availability("pump") == plain.device_availability("pump")
    values = Topics("box", template="{device}/{channel}/state")
    assert values.value("pump", "größe") == "pump/gr____e/state"
    assert values.value("pump", "availability") == "pump/availability_/state"


def test_home_assistant_is_told_of_it() -> None:
    for bare, text, wanted in (
        (False, "s/{device}", b'"state_topic":"s/d"'),
        (True, "s/{device}/{channel}", b'"s/d/x"'),
    ):
        discovery = Discovery("box", Topics("box", template=text), "homeassistant", bare=bare)
        assert wanted in (discovery.device("d", "lines", (), (), {"x": "number"}, {}) or b"")


@pytest.mark.parametrize(("text", "key"), [("site/{device}", ("box", "d")), ("{agent}/{device}/r", ("here", "d"))])
def test_a_tally_reads_them(text: str, key: tuple[str, str]) -> None:
    tally = Tally(template=Template(text), agent="box")
    assert tally.add(Template(text).fill(agent="here", device="d"), b'{"ts":"t","seq":1,"fields":{}}')
    assert list(tally.devices) == [key]
    assert not tally.add("outstation/box/d/telemetry", b'{"ts":"t","seq":2,"fields":{}}')
    assert f"not a topic as {text}" in tally.first_garbage
