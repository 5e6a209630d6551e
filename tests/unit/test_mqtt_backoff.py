from __future__ import annotations

import pytest

from agent.errors import LinkError
from agent.mqtt_backoff import Patience

REFUSED = LinkError("refused", "h:1883 refuses the connection")
LOST = LinkError("lost", "h:1883 closed the connection")


def make(*, jitter: float = 1.0, longest: float = 30.0) -> Patience:
    patience = Patience(0.5, longest, "outstation-a", jitter=lambda: jitter)
    patience.begin(0.0)
    return patience


def outage(patience: Patience, length: float) -> tuple[float, int]:
    """Try until the broker is back after ``length`` seconds: (how late the link notices, attempts)."""
    now, attempts = 0.0, 0
    while now < length:
        attempts += 1
        now += patience.failed(REFUSED, "h:1883", now, None).pause
    return now - length, attempts


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_after_twenty_seconds_the_link_is_back_within_two(jitter: float) -> None:
    late, attempts = outage(make(jitter=jitter), 20.0)
    assert late < 1.5
    assert attempts < 80


def test_a_long_outage_costs_little_and_recovery_is_late_by_a_sixteenth_at_most() -> None:
    late, attempts = outage(make(), 240.0)
    assert late <= 240 / 16 + 1
    assert attempts < 80
    late, attempts = outage(make(), 86_400.0)
    assert late <= 30.0
    assert attempts < 86_400 / 30 + 100


def test_the_longest_pause_is_the_configured_one() -> None:
    assert make(longest=2.0).failed(REFUSED, "h", 9_999.0, None).pause == 2.0


def test_a_link_that_flaps_is_tried_more_and_more_slowly() -> None:
    patience = make()
    now, attempts = 0.0, 0
    while now < 600.0:
        attempts += 1
        now += 1.0  # up for a second
        now += patience.failed(LOST, "h:1883", now, 1.0).pause
    assert attempts < 90


def test_a_connection_that_lasted_makes_a_new_story() -> None:
    patience = make()
    outage(patience, 100.0)
    verdict = patience.failed(LOST, "h:1883", 1000.0, 500.0)
    assert (verdict.pause, verdict.times) == (0.5, 1)
    assert patience.failures == 1


def test_what_only_a_person_can_mend_is_tried_slowly_from_the_start() -> None:
    assert make().failed(LinkError("credentials", "no"), "h", 0.0, None).pause == 5.0
    assert make(jitter=0.0).failed(LinkError("credentials", "no"), "h", 0.0, None).pause == 2.5


def test_repeats_are_told_at_1_2_4_8_and_each_kind_by_itself() -> None:
    patience = make()
    told = [patience.failed(REFUSED, "h:1883", 0.0, None).times for _ in range(9)]
    assert told == [1, 2, 0, 4, 0, 0, 0, 8, 0]
    assert patience.failed(REFUSED, "other:1883", 0.0, None).times == 1
    assert patience.failed(LOST, "h:1883", 0.0, None).times == 1
    assert patience.failures == 11


def test_three_prompt_losses_in_a_row_name_the_other_client() -> None:
    patience = make()
    reasons = [patience.failed(LOST, "h:1883", float(n), 0.6).error.reason for n in range(3)]
    assert reasons == ["lost", "lost", "taken_over"]
    error = patience.failed(LOST, "h:1883", 9.0, 0.6).error
    assert "outstation-a" in str(error)
    assert "agent.id" in error.remedy


def test_a_broker_that_restarts_is_not_taken_for_another_client() -> None:
    patience = make()
    for n in range(12):
        lasted = None if n % 3 == 2 else 0.6  # between two losses a connection is refused
        error = LOST if lasted else REFUSED
        assert patience.failed(error, "h:1883", float(n), lasted).error.reason != "taken_over"


def test_connections_that_we_end_ourselves_are_nobody_elses_doing() -> None:
    patience = make()
    error = LinkError("timeout", "h:1883 has not acknowledged a message")
    assert {patience.failed(error, "h:1883", float(n), 0.6).error.reason for n in range(9)} == {"timeout"}
