"""`outstation fleet` against a real broker and several boards: a bad configuration stops at the canaries."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import cli
from agent.cli_fleet_rollout import stages
from agent.testing.broker import Broker
from agent.testing.outstation import Outstation

BOARDS = 3


class Operator:
    """Runs the commands, as from a laptop."""

    def __init__(self, home: Path, broker: Broker) -> None:
        self.home = home
        self.broker = broker
        self.key = home / "fleet.key"

    def __call__(self, *arguments: str, at_broker: bool = True) -> tuple[int, str]:
        where = ["--url", self.broker.url] if at_broker else []
        done = CliRunner().invoke(cli, ["fleet", *arguments, *where])  # in this process: its imports cost a second each
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def file(self, text: str) -> str:
        path = self.home / "layer.toml"
        path.write_text(text)
        return str(path)


@pytest.fixture
def operator(tmp_path: Path, outstation_broker: Broker) -> Operator:
    return Operator(tmp_path, outstation_broker)


@pytest.fixture
def boards(operator: Operator, outstation_broker: Broker) -> Iterator[list[Outstation]]:
    status, said = operator("keygen", str(operator.key), at_broker=False)
    assert status == 0, said
    fleet = tomllib.loads(said[said.index("[fleet]") :])["fleet"]
    config = {"agent": {"stop_timeout": "1s"}, "fleet": {**fleet, "groups": ["green"], "confirm_within": "2s"}}
    config["device"] = [{"name": "host", "driver": "host"}]
    agents = [
        Outstation({**config, "agent": {**config["agent"], "id": f"b{number}"}}, outstation_broker, timeout=20)
        for number in range(BOARDS)
    ]
    try:
        for agent in agents:
            agent.start(wait=False)
        for agent in agents:
            agent.wait_online()
        yield agents
    finally:
        for agent in agents:
            agent.close()


def test_a_bad_configuration_stops_at_the_canary_and_all_stay_within_reach(
    operator: Operator, boards: list[Outstation]
) -> None:
    key = ("--key", str(operator.key))
    good = operator.file("mqtt.inflight = 50\n")
    status, said = operator("rollout", "group/green", good, *key, "--canary", "34%")
    assert status == 0, said
    assert "stage 1: 2 of 3 boards" in said
    assert said.count(": applied") == 2 + BOARDS
    assert operator("rollout", "group/green", good, *key)[1] == "that is what lies there already\n"

    bad = operator.file('mqtt.urls = ["mqtt://127.0.0.1:1"]\n')
    status, said = operator("diff", "group/green", bad, *key)
    assert (status, "-mqtt.inflight = 50" in said) == (1, True)
    status, said = operator("rollout", "group/green", bad, *key, "--canary", "5%")
    assert status == 1, said
    assert "stage 1 failed on 1 of 1 boards" in said
    assert "rolled_back" in said
    assert "1 of 1 boards are within reach with the configuration of before" in said
    assert sum("link.down url=mqtt://127.0.0.1:1 " in board.log for board in boards) == 1, "the others never tried it"

    status, said = operator("status", "--json")
    assert status == 0, said
    reports = json.loads(said)
    assert [report["online"] for report in reports.values()] == [True] * BOARDS
    assert len({report["layers"]["group/green"]["digest"] for report in reports.values()}) == 1

    # What every board refuses, with the same words on each; and one board alone, which is well again.
    wrong = operator.file("mqtt.inflight = 0\n")
    status, said = operator("push", "group/green", wrong, *key)
    assert (status, said.count("refused; fleet:group/green@")) == (1, BOARDS), said
    status, said = operator("push", "agent/b1", operator.file("# nothing\n"), *key)
    assert (status, "  b1: applied" in said) == (0, True), said
    assert operator("status")[0] == 1


def test_what_no_board_would_take_is_refused_before_it_is_signed(operator: Operator) -> None:
    assert operator("keygen", str(operator.key), at_broker=False)[0] == 0
    assert operator.key.stat().st_mode & 0o777 == 0o600
    status, said = operator("keygen", str(operator.key), at_broker=False)
    assert (status, "not overwritten" in said) == (1, True)
    arguments = ("push", "agent/b0", operator.file('[agent]\nid = "x"\n[mqtt]\nqos = 1\n'), "--key", str(operator.key))
    status, said = operator(*arguments)
    assert (status, "layer.toml:2: agent.id" in said) == (1, True)
    operator.file("mqtt.qos = 1\n")
    operator.key.chmod(0o640)
    status, said = operator(*arguments)
    assert (status, "chmod 600" in said) == (1, True)
    status, said = operator("push", "boards", *arguments[2:])
    assert (status, "group/<name>" in said) == (2, True)


def test_the_canaries_of_each_stage_are_among_those_of_the_next() -> None:
    agents = [f"b{number}" for number in range(40)]
    first, second = stages(agents, [0.05, 0.25], "7")
    assert (len(first), len(second)) == (2, 10)
    assert set(first) < set(second) < set(agents)
    assert stages(agents, [0.05], "7") == [first]
    assert stages(agents, [0.05], "8") != [first], "not always the same boards"
    assert stages(["a"], [0.05], "7") == [], "one board is all of them"
