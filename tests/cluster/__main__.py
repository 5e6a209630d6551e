"""Clusters by the recipes of deploy/brokers under simulated agents, nodes killed in turn: `make cluster`, as root.

Runs in network and process namespaces of its own (see the Makefile): ports are free there, and nothing outlives it.
Prints a table; exit status 1 if a reading was lost or (RabbitMQ) out of order, or if an agent was away for too long.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster_nodes import KINDS, Cluster, ClusterError, Subscriber
from cluster_watch import Followed

ROOT = Path(__file__).resolve().parents[2]
CREDENTIALS = ROOT / "deploy" / "brokers" / "make-credentials"
BACK_WITHIN = {"rabbitmq": 5.0, "nats": 15.0}
"""Seconds from a lost connection to the next CONNACK."""
ORDERED = {"rabbitmq"}
"""Whose consumers get readings in order after a node was killed: NATS 2.9 did not, and lost nothing (measured)."""
STEADY = 15.0
"""Seconds between two kills, by the simulation's own clock: agents have returned to their first broker by then."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["rabbitmq", "nats"], choices=sorted(KINDS), metavar="KIND")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1.0)
    options = parser.parse_args()
    good = True
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(prefix="outstation-cluster-") as home:
            try:
                good &= trial(kind, Path(home), options)
            except ClusterError as error:
                print(f"{kind}: {error}", file=sys.stderr)
                good = False
    return 0 if good else 1


def trial(kind: str, home: Path, options: argparse.Namespace) -> bool:
    """One cluster, from its start to the table. Whether it held."""
    with KINDS[kind](home, CREDENTIALS) as cluster:
        shut_in(cluster)
        verify = Followed(
            *("verify", "--url", cluster.urls[-1], *cluster.login("reader"), "--client-id", "verify"),
            *("--every", "1s", "--json"),
            log=home / "verify.log",
        )
        verify.wait_for(lambda text: "listening" in text, "the subscriber listens")
        simulation = Followed(
            "simulate",
            *(word for url in cluster.urls for word in ("--url", url)),
            *cluster.login("operator"),
            *("--agents", str(options.agents), "--devices", str(options.devices), "--rate", str(options.rate)),
            *("--name", "sim", "--every", "200ms", "--json"),
            log=home / "simulate.log",
        )
        try:
            rows = [killed(cluster, simulation, node, options.agents) for node in range(3)]
            simulated = json.loads(simulation.end())
            cluster.drained("verify", simulated["made"], verify)
            verified = json.loads(verify.end())
        finally:
            simulation.close()
            verify.close()
    return told(kind, rows, simulated, verified)


def shut_in(cluster: Cluster) -> None:
    """A board's own user: what it says below its name arrives, and below another nothing. Raises ClusterError."""
    password = (cluster.credentials / "reader.password").read_text().strip()
    ca = str(cluster.credentials / "ca.pem")
    with Subscriber(cluster.urls[0], "outstation/#", username="reader", password=password, ca_file=ca) as reader:
        for name in ("other", "greenhouse"):  # agents other-1 and greenhouse-1, both as user greenhouse-1
            command = [
                *(sys.executable, "-m", "agent", "simulate", "--url", cluster.urls[0], "--name", name),
                *cluster.login("greenhouse-1"),
                *("--agents", "1", "--devices", "1", "--rate", "10", "--ramp", "0s", "--duration", "1s", "--json"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
        if done.returncode:
            raise ClusterError(f"a board is not let in by its recipe: {done.stdout}{done.stderr}")
        reader.wait_for(lambda messages: any(message.topic.endswith("/telemetry") for message in messages))
        if forged := [message.topic for message in reader.messages if "/greenhouse-1/" not in message.topic]:
            raise ClusterError(f"user greenhouse-1 may write {forged[0]}")


def killed(cluster: Cluster, simulation: Followed, node: int, agents: int) -> str:
    """Kill a node and start it again. How it went."""
    all_there = f"{agents} of {agents} connected"
    simulation.wait_for(lambda text: text.endswith(all_there), "all agents are connected", of=_connected)
    simulation.steady(STEADY)
    simulation.forget()
    cluster.kill(node)
    simulation.wait_for(lambda text: text and not text.endswith(all_there), "agents miss their node", of=_connected)
    gone = simulation.clock
    simulation.wait_for(lambda text: text.endswith(all_there), "all agents are back", of=_connected)
    back = simulation.clock
    cluster.start(node)
    cluster.whole()
    return f"node {node + 1} killed: all {agents} agents connected again {back - gone:.1f} s after the first was missed"


def _connected(line: str) -> str:
    """``50 of 50 connected`` of a line of progress, else nothing."""
    return next((part for part in line.split("  ") if part.endswith("connected")), "")


def told(kind: str, rows: list[str], simulated: dict, verified: dict) -> bool:
    disorder = sum(device["out_of_order"] for device in verified["devices"])
    twice = sum(device["duplicates"] + device["redelivered"] for device in verified["devices"])
    away = simulated["away"]
    good = (
        not verified["lost"]
        and (not disorder or kind not in ORDERED)
        and verified["received"] == simulated["made"]
        and not simulated["lost"]
        and away["max_s"] <= BACK_WITHIN[kind]
    )
    print(
        f"\n{kind}: {simulated['agents']} agents of {simulated['devices']} devices, "
        f"{simulated['rate']:g} readings/s each, QoS 1, over TLS"
    )
    for row in rows:
        print(f"  {row}")
    print(
        f"  an agent without a broker: {away['count']} times, "
        f"p50 {away['p50_s']:.2f} s, p99 {away['p99_s']:.2f} s, max {away['max_s']:.2f} s"
    )
    print(f"  readings: {simulated['made']} made, {simulated['acknowledged']} acknowledged")
    print(
        f"  at the subscriber: {verified['received']} received, {verified['lost']} lost, "
        f"{disorder} out of order, {twice} came twice"
    )
    print(f"  {verified['verdict']}")
    print(f"  {'HELD' if good else 'NOT HELD'}", flush=True)
    return bool(good)


if __name__ == "__main__":
    sys.exit(main())
