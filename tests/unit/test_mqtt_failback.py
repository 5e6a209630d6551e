"""When to return to the first broker: by the clock that is handed in, and by nothing else."""

from __future__ import annotations

import pytest

from agent.mqtt_failback import Steadiness
from agent.mqtt_probe import connect
from agent.mqtt_settings import MqttSettings


def make(settle: float = 10.0, *, jitter: float = 1.0) -> Steadiness:
    steadiness = Steadiness(settle, 1.25, lambda: jitter)
    steadiness.start(0.0)
    return steadiness


def back(steadiness: Steadiness, now: float, returns_at: float) -> tuple[float, int]:
    """Probe a first broker that is good from ``returns_at`` on: (when it is returned to, how many probes that took)."""
    now += steadiness.at_other(now)
    for probes in range(1, 10_000):
        if now < returns_at:
            now += steadiness.bad(now)
            continue
        pause = steadiness.good(now)
        if pause is None:
            return now, probes
        now += pause
    raise AssertionError("never")


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("away", "latest", "probes"), [(20.0, 14.0, 40), (600.0, 55.0, 160), (86_400.0, 75.0, 3100)])
def test_the_return_is_late_by_a_share_of_the_time_away_and_what_it_has_to_settle(
    jitter: float, away: float, latest: float, probes: int
) -> None:
    steadiness = make(jitter=jitter)
    now, count = back(steadiness, 0.0, away)
    assert away + 10.0 <= now <= away + latest
    assert count <= probes
    assert steadiness.away_s == now


def test_one_bad_probe_in_between_and_it_has_to_settle_from_the_start() -> None:
    steadiness = make()
    assert steadiness.good(100.0) is not None
    assert steadiness.good(109.0) is not None
    steadiness.bad(109.5)
    assert steadiness.good(110.5) is not None
    assert steadiness.good(120.0) is not None
    assert steadiness.good(120.6) is None


def test_in_between_it_is_looked_at_too() -> None:
    steadiness = make()
    assert steadiness.good(0.0) == 2.5
    assert steadiness.good(9.0) == 1.0


def test_what_only_a_person_can_mend_is_asked_once_a_minute() -> None:
    assert make().bad(1.0, human=True) == 60.0
    assert make(jitter=0.0).bad(1.0, human=True) == 30.0


def test_returns_that_do_not_last_become_rarer_and_one_that_does_makes_it_good() -> None:
    steadiness = make()
    now, waits = 0.0, []
    for _ in range(9):
        begun = now
        now, _ = back(steadiness, now, now)
        waits.append(now - begun)
        steadiness.at_first()
        now += 1.0  # and it is gone again
    assert [round(wait / 10, 0) for wait in waits[:4]] == [1, 2, 4, 8]
    assert 600 <= waits[-1] < 700, "ten minutes at last"
    now, _ = back(steadiness, now, now)
    steadiness.at_first()
    now += 16 * 600.0
    begun = now
    now, _ = back(steadiness, now, now)
    assert now - begun < 13


def test_a_return_that_never_arrives_counts_as_one_that_did_not_last() -> None:
    steadiness = make()
    now, _ = back(steadiness, 0.0, 0.0)
    steadiness.at_other(now)
    assert steadiness.settle == 20.0


def test_a_first_broker_that_was_lost_without_a_return_before_is_returned_to_without_delay() -> None:
    steadiness = make()
    steadiness.at_first()
    steadiness.at_other(3.0)
    assert steadiness.settle == 10.0


def test_time_away_counts_from_the_loss() -> None:
    steadiness = make()
    steadiness.at_first()
    assert steadiness.at_other(100_000.0) == 1.25


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"),
        ({"version": "5"}, b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02id"),
        ({"username": "bob", "keepalive": 300}, b"\x10\x13\x00\x04MQTT\x04\xc2\x01\x2c\x00\x02id\x00\x03bob\x00\x02pw"),
    ],
)
def test_the_connect_of_a_probe(settings: dict[str, object], expected: bytes) -> None:
    packet = connect(MqttSettings.model_validate(settings), "id", b"pw")
    assert packet[2:] == expected[2:]
    assert packet[1] == len(packet) - 2


def test_a_connect_longer_than_one_byte_can_say() -> None:
    packet = connect(MqttSettings(), "x" * 200, None)
    assert packet[:3] == b"\x10\xd4\x01"
    assert len(packet) == 3 + 212
