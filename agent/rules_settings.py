"""What ``[device.rules]`` may say, and what becomes of a device's channels by it. The rules themselves: ``rules``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.model import Channel
from agent.quantity import Interval

LONGEST: Final = 30 * 86_400.0
"""Seconds of the longest interval or window: past a month it is a mistake in the unit."""
EXPRESSION_LENGTH: Final = 512
"""Characters of an expression: the longest formula of a datasheet that we know (BME280's humidity) has 230."""

_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def _deadband(value: float | str) -> float | str:
    if isinstance(value, str) and not _PERCENT.fullmatch(value):
        raise ValueError('a deadband is a number in the unit of the channel, or a percentage as "1%"')
    if isinstance(value, float) and not 0 <= value < math.inf:
        raise ValueError("a deadband is finite and not negative")
    return value


def _expression(text: str) -> str:
    try:
        from agent.rules_compute import Expression  # what it needs is an extra, and most devices compute nothing
    except ImportError as error:
        if error.name != "simpleeval":
            raise
        raise ValueError("to compute needs the package simpleeval; pip install 'outstation[rules]'") from None
    Expression(text)
    return text


Deadband: TypeAlias = Annotated[float | str, AfterValidator(_deadband)]
"""A number in the channel's unit, or a percentage of the value that was sent last."""

Aggregate: TypeAlias = Literal["mean", "min", "max", "last", "count"]

Aggregates: TypeAlias = Aggregate | Annotated[tuple[Aggregate, ...], Field(min_length=1)]
"""One word: the channel keeps its name. A list: a channel for each, ``<channel>_<aggregate>``."""


class ChannelRules(BaseModel):
    """The rules of one channel, by its name in readings: ``[device.rules.channels.<name>]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadband: Deadband | None = Field(None, description="As in rules, for this channel.")
    triggers: bool = Field(
        True, description="false: a change of this channel alone is no news; it goes along with the others."
    )
    aggregate: Aggregates | None = Field(None, description="As in rules, for this channel.")
    low: float | None = Field(
        None, allow_inf_nan=False, description='Least plausible value; less is left out, and a fault of kind "range".'
    )
    high: float | None = Field(
        None, allow_inf_nan=False, description='Largest plausible value; more is left out, and a fault of kind "range".'
    )
    compute: Annotated[str, Field(max_length=EXPRESSION_LENGTH), AfterValidator(_expression)] | None = Field(
        None, description="The channel is computed: an expression of the other channels of the same reading."
    )
    unit: str = Field("", description="Unit of a computed channel.")
    device_class: str | None = Field(None, description="Home Assistant's word for a computed quantity.")
    state_class: str | None = Field(None, description="Home Assistant's word for how it behaves in time.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}")
        if self.compute is None and (self.unit or self.device_class or self.state_class):
            raise ValueError("unit, device_class and state_class are for computed channels; the driver knows its own")
        if not self.triggers and self.deadband is not None:
            raise ValueError("triggers = false leaves deadband nothing to decide; leave one of them out")
        return self


class RuleSettings(BaseModel):
    """What is published of a device's readings, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_change: bool = Field(
        False, description="Publish a reading only if one of its channels differs from what went out last."
    )
    deadband: Deadband | None = Field(
        None,
        description="The same, and numbers have to differ by more than this: a number in the unit of the channel, or "
        '"1%" of the value that went out last.',
    )
    min_interval: Interval | None = Field(
        None,
        le=LONGEST,
        description="At most one reading in this time; the newest of those between goes out at its end.",
    )
    max_interval: Interval | None = Field(
        None,
        le=LONGEST,
        description="Where on_change or deadband hold readings back, the newest goes out at the latest so long after "
        "the one before.",
    )
    window: Interval | None = Field(
        None,
        le=LONGEST,
        description="Publish one reading for each window of this length: what aggregate makes of the readings in it. "
        "Windows begin at whole multiples of it in UTC.",
    )
    aggregate: Aggregates | None = Field(
        None,
        description="With window: mean (the default), min, max, last or count. A list gives a channel for each: "
        '["min", "max"] makes <channel>_min and <channel>_max.',
    )
    check_range: bool = Field(
        False,
        description="Also hold values against the limits that the driver itself declares for its channels.",
    )
    channels: dict[Annotated[str, Field(min_length=1, max_length=128)], ChannelRules] = Field(
        {}, description="Rules of single channels, by their name in readings; with compute, a channel more."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        own = self.channels.values()
        if self.max_interval is not None:
            if not self.selective:
                raise ValueError("max_interval ends what on_change or deadband hold back, and neither is set")
            if self.min_interval is not None and self.max_interval < self.min_interval:
                raise ValueError("max_interval is less than min_interval")
        if self.window is not None and self.min_interval is not None:
            raise ValueError("window and min_interval: a window gives one reading anyway; leave min_interval out")
        if self.window is None and (self.aggregate is not None or any(rules.aggregate is not None for rules in own)):
            raise ValueError('aggregate needs window = "1m", or however long')
        if not self.selective and any(not rules.triggers for rules in own):
            raise ValueError("triggers = false is for on_change and deadband, and neither is set")
        return self

    @property
    def selective(self) -> bool:
        """Some readings are held back because they say nothing new."""
        return (
            self.on_change or self.deadband is not None or any(r.deadband is not None for r in self.channels.values())
        )

    @property
    def active(self) -> bool:
        """There is something to do at all."""
        return bool(self.selective or self.min_interval or self.window or self.check_range or self.channels)

    def band(self, channel: str) -> tuple[float, float] | None:
        """By how much a number has to change to be news: (in its unit, as a fraction); None: it never is news.

        A channel without a word of its own has that of the device; once there is any, the least is: any change.
        """
        own = self.channels.get(channel)
        if own is not None and not own.triggers:
            return None
        value = self.deadband if own is None or own.deadband is None else own.deadband
        percent = _PERCENT.fullmatch(value) if isinstance(value, str) else None
        if percent is not None:
            return 0.0, float(percent[1]) / 100
        return float(value or 0.0), 0.0

    def outputs(self, channel: str) -> Iterator[tuple[str, Aggregate]]:
        """What a window makes of a channel: (name, how)."""
        own = self.channels.get(channel)
        how = (own and own.aggregate) or self.aggregate or "mean"
        if isinstance(how, str):
            yield channel, how
        else:
            for word in dict.fromkeys(how):
                yield f"{channel}_{word}", word


def published(rules: RuleSettings | None, channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """The channels that come out of the rules, of those that go in; as far as both are known beforehand."""
    if rules is None:
        return tuple(channels)
    known = {channel.name: channel for channel in channels}
    for name, own in rules.channels.items():
        if own.compute is not None:
            known[name] = Channel(name, own.unit, own.low, own.high, own.device_class, own.state_class)
        elif name in known and (own.low, own.high) != (None, None):
            known[name] = replace(known[name], low=own.low, high=own.high)
    if rules.window is None:
        return tuple(known.values())
    return tuple(
        Channel(name) if how == "count" else replace(channel, name=name)
        for channel in known.values()
        for name, how in rules.outputs(channel.name)
    )
