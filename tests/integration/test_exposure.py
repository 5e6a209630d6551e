"""What a running agent opens to the network (SECURITY.md): by default nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from agent.testing import PtyPort
from agent.testing.outstation import Outstation

Start = Callable[..., Outstation]

LISTEN = "0A"
"""TCP_LISTEN of the kernel's include/net/tcp_states.h, as /proc/net/tcp shows it."""


def inodes_of(pid: int) -> set[str]:
    """The inodes of all sockets that process pid has open."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
        except FileNotFoundError:
            continue  # closed since the directory was read
        if match:
            found.add(match[1])
    return found


def reachable(pid: int) -> list[str]:
    """Sockets of pid that somebody on a network could send to: TCP that listens, any UDP, any raw one (proc(5))."""
    found = []
    ours = inodes_of(pid)
    for table in ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"):
        path = Path(f"/proc/{pid}/net/{table}")
        if not path.exists():
            continue  # a kernel without IPv6, or without UDP-Lite
        for row in path.read_text().splitlines()[1:]:
            _, local, _, state, *rest = row.split()
            if rest[5] in ours and (state == LISTEN or not table.startswith("tcp")):
                found.append(f"{table} {int(local.rpartition(':')[2], 16)}")
    return found


def test_by_default_no_socket_is_open_to_the_network(serial_device: PtyPort, outstation_start: Start) -> None:
    devices = [
        {"name": "weather", "driver": "lines", "port": serial_device.path, "format": "json"},
        {"name": "host", "driver": "host", "interval": "200ms"},
    ]
    outstation = outstation_start({"device": devices, "homeassistant": {"discovery": "on"}})
    serial_device.send('{"n": 1}')
    outstation.next_reading("weather")
    outstation.next_reading("host")
    assert inodes_of(outstation.pid), "not even the connection to the broker: the look at /proc sees nothing"
    assert not reachable(outstation.pid)


def test_what_was_asked_for_is_seen(outstation_start: Start) -> None:
    """The look above is worth something: it finds each kind of socket that the configuration can open."""
    with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        probe.bind(("127.0.0.1", 0))
        datagrams.bind(("127.0.0.1", 0))
        page, udp = probe.getsockname()[1], datagrams.getsockname()[1]
    device = {"name": "wind", "driver": "socket", "listen": f"udp://127.0.0.1:{udp}", "lines": {"format": "json"}}
    outstation = outstation_start({"page": {"listen": f"127.0.0.1:{page}"}, "device": [device]})
    outstation.wait_online("wind")
    assert sorted(reachable(outstation.pid)) == [f"tcp {page}", f"udp {udp}"]
