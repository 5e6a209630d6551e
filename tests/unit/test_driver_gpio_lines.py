"""GPIO lines at work without their driver: what edges and reports tell, and totals that are kept."""

from __future__ import annotations

from typing import Any

import pytest

from agent.driver import DeviceLost, Sample
from agent.driver_gpio import ChipLines
from agent.driver_gpio_lines import OpenLines, Totals
from agent.testing import FakeContext, FakeGpio

CONFIG = ChipLines(
    chip="c",
    inputs={"door": {"line": 1, "active_low": True}},
    counters={"water": {"line": 2, "show": ["total"]}},
    outputs={"pump": {"line": 3}},
)


def opened(ctx: FakeContext, totals: Totals) -> tuple[OpenLines, FakeGpio]:
    port = FakeGpio("c", CONFIG.requests())
    return OpenLines(ctx, CONFIG, port, totals.meters), port


def loaded(ctx: FakeContext) -> Totals:
    totals = Totals(ctx, CONFIG.counters)
    totals.load()
    return totals


def test_edges_are_told_and_pulses_counted_until_the_report() -> None:
    ctx = FakeContext("d")
    lines, port = opened(ctx, loaded(ctx))
    port.drive(1, True)
    port.drive(2, True)
    lines.take()
    lines.take()
    assert [sample.fields for sample in ctx.samples] == [{"door": False}]
    lines.set_level("pump", True)
    lines.report()
    assert ctx.samples[1:] == [Sample({"door": False, "pump": True, "water": 1.0})]
    assert port.level(3)


def test_while_nobody_takes_readings_pulses_are_counted_and_the_chip_is_looked_at() -> None:
    ctx = FakeContext("d")
    totals = loaded(ctx)
    lines, port = opened(ctx, totals)
    ctx.blocked = True
    port.drive(1, True)
    port.drive(2, True)
    lines.take()
    lines.report()
    assert (ctx.emitted, totals.meters["water"].pulses) == ([], 1)
    port.remove()
    with pytest.raises(DeviceLost):
        lines.report()


def test_totals_go_on_where_they_were_and_are_written_when_they_have_changed() -> None:
    ctx = FakeContext("d")
    writes: list[Any] = []
    save, ctx.save_state = ctx.save_state, lambda state: (writes.append(state), save(state))[1]  # type: ignore[method-assign,func-returns-value]
    totals = loaded(ctx)
    totals.meters["water"].add(1, 4)
    totals.save()
    totals.save()
    assert writes == [{"water": [5, 4]}]
    again = loaded(ctx)
    again.save()
    assert again.meters["water"].pulses == 5
    assert len(writes) == 1
