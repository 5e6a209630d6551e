"""What people write with aiomqtt: read what the kernel holds, and await each publication.

aiomqtt_serial.py MQTT_PORT NAME DEVICE=PORT: each line of JSON is published, QoS 1, as
``outstation/NAME/DEVICE/telemetry``. Awaiting the PUBACK of each line keeps the order and loses nothing: the port's
flow control holds the device meanwhile.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime

import aiomqtt
import serial


async def main() -> None:
    mqtt_port, name, item = sys.argv[1:]
    device, _, path = item.partition("=")
    port = serial.Serial(path, 9600, timeout=0)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    left, seq = b"", 0
    async with aiomqtt.Client("127.0.0.1", int(mqtt_port), identifier=name) as client:
        while True:
            loop.add_reader(port.fileno(), readable.set)
            await readable.wait()
            loop.remove_reader(port.fileno())
            readable.clear()
            *lines, left = (left + os.read(port.fileno(), 65536)).split(b"\n")
            for line in lines:
                ts = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                reading = {"ts": ts, "seq": seq, "fields": json.loads(line)}
                payload = json.dumps(reading, separators=(",", ":"))
                await client.publish(f"outstation/{name}/{device}/telemetry", payload, qos=1)
                seq += 1


asyncio.run(main())
