"""What people write instead: pyserial, paho and a loop. The yardstick of the benchmarks, with nothing left out that it
would need to work.

bare.py MQTT_PORT NAME [--host SECONDS] DEVICE=PORT...: each line of JSON that a port gives is published, QoS 1, as
``outstation/NAME/DEVICE/telemetry``. Buffered: it takes what the kernel holds and cuts it into lines (pyserial's
``readline`` reads byte by byte and is far slower). No reconnecting, no order, no store, no status: that is what it is
cheaper by.
"""

import json
import os
import select
import sys
import time
from datetime import UTC, datetime

import paho.mqtt.client as mqtt
import serial


def main() -> None:
    mqtt_port, name, *rest = sys.argv[1:]
    host_every = 0.0
    if rest[0] == "--host":
        host_every = float(rest[1])
        rest = rest[2:]
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
    client.connect("127.0.0.1", int(mqtt_port))
    client.loop_start()

    def publish(device: str, fields: dict) -> None:
        seq[device] = seq.get(device, -1) + 1
        ts = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        payload = json.dumps({"ts": ts, "seq": seq[device], "fields": fields}, separators=(",", ":"))
        client.publish(f"outstation/{name}/{device}/telemetry", payload, qos=1)

    seq: dict[str, int] = {}
    ports = {}
    for item in rest:
        device, _, path = item.partition("=")
        port = serial.Serial(path, 9600, timeout=0)
        ports[port.fileno()] = [device, b"", port]
    next_host = time.monotonic() + host_every if host_every else float("inf")
    if host_every:
        import psutil

    while True:
        wait = None if next_host == float("inf") else max(0.0, next_host - time.monotonic())
        for fd in select.select(list(ports), [], [], wait)[0]:
            device, left, _ = ports[fd]
            *lines, ports[fd][1] = (left + os.read(fd, 65536)).split(b"\n")
            for line in lines:
                publish(device, json.loads(line))
        if time.monotonic() >= next_host:
            next_host += host_every
            memory = psutil.virtual_memory()
            publish(
                "host",
                {
                    "cpu": psutil.cpu_percent(),
                    "load1": os.getloadavg()[0],
                    "memory_used": memory.used,
                    "memory_percent": memory.percent,
                    "disk_percent": psutil.disk_usage("/").percent,
                    "net_rx": psutil.net_io_counters().bytes_recv,
                },
            )


main()
