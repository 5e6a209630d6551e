"""Brokers that die, flap and misbehave, and a network that swallows everything."""

from __future__ import annotations

import time

from chaos_judge import Break
from chaos_meddler import Manner, Meddler
from chaos_netns import Network
from chaos_row import Row
from chaos_station import Stage, Station

from bench import common

RATE = 100.0


def _subscribed(stage: Stage) -> None:
    """Wait until the judge listens again: a killed broker knows its session from the disk, but holds no message."""
    common.wait_for(lambda: stage.recorder.connected, 30, "the judge's return")


def broker_killed(times: int, *, up: float, down: float, durability: str = "spill") -> Row:
    """SIGKILL for the broker, and a start on the same port, again and again while lines come."""
    with Stage() as stage:
        station = Station(stage, "s", url=stage.broker.url, outbox={"durability": durability})
        station.start()
        station.open()
        device = station.device
        device.run(1.0, RATE)
        for _ in range(times):
            _subscribed(stage)
            with station.breaking():
                stage.broker.kill()
            device.run(down, RATE)
            stage.broker.start()
            device.run(up, RATE)
        station.settle()
        station.terminate()
        verdict = station.verdict()
    return Row(f"broker killed and started again, {down:g} s away, {up:g} s there", times, verdict)


def bad_manners(manner: Manner, times: int, *, durability: str = "spill") -> Row:
    """A broker with that manner for a while, then an honest one. times: of what it does wrong, at least."""
    with Stage() as stage, Meddler(stage.broker.port) as meddler:
        station = Station(
            stage,
            "s",
            url=meddler.url,
            outbox={"durability": durability},
            mqtt={"ack_timeout": "1s"},
        )
        station.start()
        station.open()
        station.device.run(0.3, RATE)
        meddler.manner = manner
        counted = {"mute": lambda: meddler.connections - 1, "twice": lambda: meddler.acks}.get(
            manner, lambda: meddler.closings
        )
        before = counted()
        deadline = time.monotonic() + 120
        while counted() - before < times:
            assert time.monotonic() < deadline, f"only {counted() - before} of {times}\n{station.log[-3000:]}"
            station.device.run(0.1, RATE)
        done = counted() - before
        meddler.manner = "honest"
        station.device.run(0.5, RATE)
        station.settle()
        station.terminate()
        station.cuts += [Break(moment, moment) for moment in sorted(meddler.ends)]
        verdict = station.verdict()
    words = {
        "mute": 'broker that never acknowledges, `ack_timeout = "1s"`',
        "twice": "broker that acknowledges twice",
        "close acknowledged": "broker that closes after each PUBLISH, acknowledged",
        "close unacknowledged": "broker that closes after each PUBLISH, unacknowledged",
    }
    row = Row(words[manner], done, verdict)
    if manner in ("twice", "close acknowledged"):
        # What it has acknowledged it has; what follows in the window is cut off.
        row.limit("nothing comes twice", verdict.duplicates == 0)
    return row


def black_hole(times: int, *, keepalive: int, busy: bool, long: bool) -> Row:
    """All packets between two network namespaces are dropped, by nft; the connection stays, and nothing answers.

    busy: lines come meanwhile; without, only the keepalive can tell. That the agent has given the connection up is seen
    in the kernel's table of its namespace.
    """
    noticed: list[float] = []
    with Network() as network, network.far(), Stage(address=network.address) as stage:
        station = Station(
            stage,
            "s",
            url=f"mqtt://{network.address}:{stage.broker.port}",
            mqtt={"keepalive": keepalive, "connect_timeout": "2s"},
        )
        with network.near():
            station.start()
        station.open()
        station.settle()
        for _ in range(times):
            with station.breaking():  # until the mend: what was acknowledged into the hole comes again
                network.drop()
                begin = time.monotonic()
                while network.connected(stage.broker.port):
                    assert time.monotonic() < begin + 10 * keepalive, "the black hole was not noticed"
                    if busy:
                        station.device.run(0.05, RATE)
                    else:
                        common.sleep_until(time.monotonic() + 0.02)
                noticed.append(time.monotonic() - begin)
                station.device.run(0.5, RATE)
                network.mend()
            station.settle()
        station.terminate()
        verdict = station.verdict()
    how = "under load" if busy else "in silence"
    row = Row(f"black hole (nft drop between namespaces), {how}, `keepalive = {keepalive}`", times, verdict)
    row.notes.append(f"given up after {max(noticed):.1f} s at most")
    slack = 0.1 if long else 1.0
    row.limit("noticed within 1.5 times the keepalive", max(noticed) <= 1.5 * keepalive + slack)
    return row
