"""The instruments of bench/: one that cannot see a loss would promise what it has not measured."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import box, counter, flood, guard, reload
from bench.peer import AGENT, BARE, FLOOR, Setup

# ---- the subscriber


def publish(payload: bytes, topic: bytes = b"t") -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + payload
    size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    return b"\x30" + size + body


def test_payloads_are_joined_whatever_their_size_and_other_packets_passed_over() -> None:
    stream = publish(b"one") + b"\xd0\x00" + publish(b"x" * 200) + publish(b"", b"a/b")
    assert counter.payloads(stream) == (3, b"one" + b"x" * 200)


@pytest.mark.parametrize("left", range(1, 8))
def test_a_packet_that_is_cut_off_is_no_message(left: int) -> None:
    stream = publish(b"one") + publish(b"two")
    assert counter.payloads(stream[:-left]) == (1, b"one")


@pytest.mark.parametrize("last", [12, 13])
def test_the_counter_keeps_all_up_to_the_last_line_and_gives_up_on_one_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    ours, broker = socket.socketpair()
    stdin, told = socket.socketpair()
    data = b"".join(publish(b'{"n":%d,"t":1}' % number) for number in (10, 12))
    with ours, broker, stdin, told, stdin.makefile("r") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        broker.sendall(data)
        told.sendall(json.dumps([last, 0.0]).encode() + b"\n")
        kept, number = counter.record(SimpleNamespace(socket=ours), 10)  # type: ignore[arg-type]
    assert (b"".join(part for _, part in kept), number) == (data, last)


# ---- the flood


def outcome(**figures: Any) -> dict[str, Any]:
    usual = {"sent": 100, "lost": 0, "duplicates": 0, "disordered": 0, "per_message": 1.0, "disk_mb": 0.0}
    return {"per_s": 50_000.0, "cpu_s_per_100k": 1.0, "peak_rss_mib": 40.0, **usual, **figures}


def test_a_row_holds_medians_but_every_loss_and_the_highest_peak() -> None:
    runs = [
        outcome(per_s=1.0),
        outcome(per_s=30.0, lost=5, peak_rss_mib=70.0),
        outcome(per_s=2.0, peak_rss_mib=30.0),
    ]
    made = flood.row(Setup(AGENT, 1, "auto", "strict"), runs)
    assert made["who"] == "outstation auto strict"
    assert (made["per_s"], made["per_s_min"], made["per_s_max"]) == (2.0, 1.0, 30.0)
    assert (made["lost"], made["sent"], made["peak_rss_mib"]) == (5, 300, 70.0)


def rows(**figures: Any) -> list[dict[str, object]]:
    """Of the floor, the bare script, and an agent with these figures."""
    return [
        flood.row(Setup(FLOOR), [outcome()]),
        flood.row(Setup(BARE), [outcome(per_s=8000.0, cpu_s_per_100k=6.0)]),
        flood.row(Setup(AGENT), [outcome(**figures)]),
    ]


@pytest.mark.parametrize("key", ["lost", "duplicates", "disordered"])
def test_a_reading_lost_repeated_or_out_of_order_is_judged_in_a_quick_run_too(key: str) -> None:
    assert all(limit.met for limit in flood.limits(rows()))
    missed = [limit for limit in flood.limits(rows(**{key: 1})) if not limit.met]
    assert [limit.speed for limit in missed] == [False]


@pytest.mark.parametrize("figures", [{"per_s": 11_900.0}, {"peak_rss_mib": 58.0}])
def test_too_slow_or_too_large_is_not_met(figures: dict[str, float]) -> None:
    assert [limit.speed for limit in flood.limits(rows(**figures)) if not limit.met] == [True]


def test_ratios_grow_with_what_is_better() -> None:
    ratios = flood.ratios(rows(per_s=16_000.0, cpu_s_per_100k=2.0))
    assert ratios == {"flood, 1 spill: rate, to bare": 2.0, "flood, 1 spill: CPU, to bare": 3.0}


# ---- the guard


def results(folder: Path, ratios: dict[str, float]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "some.json").write_text(json.dumps({"ratios": ratios}))
    return folder


@pytest.mark.parametrize(("now", "kept"), [(2.0, True), (1.51, True), (1.49, False), (9.0, True)])
def test_a_quarter_worse_than_the_baseline_fails(tmp_path: Path, now: float, kept: bool) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"judged": {"rate": 2.0, "not measured": 5.0}, "unjudged": {"p99": {}}}))
    assert guard.check(results(tmp_path / "run", {"rate": now, "p99": 0.001}), baseline) is kept


def test_only_what_holds_still_is_judged() -> None:
    steady, swinging = [2.0, 2.1, 1.9, 2.0, 2.0], [2.0, 2.1, 1.7, 2.0, 2.0]
    runs = [{"steady": a, "swinging": b} for a, b in zip(steady, swinging, strict=True)]
    runs[0]["once"] = 1.0
    learnt = guard.learn(runs)
    assert learnt["judged"] == {"steady": 2.0}
    assert learnt["unjudged"] == {"swinging": {"median": 2.0, "worst": 1.7}, "once": {"median": 1.0, "worst": 1.0}}


def test_the_baseline_judges_a_flood() -> None:
    judged = json.loads(guard.BASELINE.read_text())["judged"]
    assert [name for name in judged if name.startswith("flood")], "the guard would not see that a flood got slower"
    assert all(value > 0 for value in judged.values())


# ---- the box


def test_a_boxed_command_enters_its_groups_before_it_begins(tmp_path: Path) -> None:
    made = box.Box(0.25, 64_000_000)
    made._groups = [tmp_path / "cpu", tmp_path / "memory"]
    shell, option, script, *rest = made.inside(["python", "-m", "agent"])
    assert (shell, option, rest) == ("sh", "-c", ["sh", "python", "-m", "agent"])
    assert script == f'echo $$ >{tmp_path}/cpu/cgroup.procs && echo $$ >{tmp_path}/memory/cgroup.procs && exec "$@"'


def test_a_box_is_made_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(box.ASK, raising=False)
    assert box.asked_for() is None
    monkeypatch.setenv(box.ASK, "0.25,64000000")
    made = box.asked_for()
    assert made is not None
    assert (made.cores, made.octets) == (0.25, 64_000_000)


# ---- reloads


def test_what_was_written_during_a_reload_is_told_from_the_rest() -> None:
    spans = [(1.0, 1.1), (2.0, 2.1)]
    moments = [0.99, 1.0, 1.1 + reload.AFTER, 1.2, 2.05, 2.2]
    assert reload.split(moments, spans) == [False, True, True, False, True, False]
    assert reload.split(moments, []) == [False] * 6
