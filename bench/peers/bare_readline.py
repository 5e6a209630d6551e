"""What people write first: pyserial's ``readline`` and paho, as both manuals show it.

bare_readline.py MQTT_PORT NAME DEVICE=PORT: each line of JSON is published, QoS 1, as
``outstation/NAME/DEVICE/telemetry``. ``bare.py`` is the same by someone who has measured it.
"""

import json
import sys
from datetime import UTC, datetime

import paho.mqtt.client as mqtt
import serial


def main() -> None:
    mqtt_port, name, item = sys.argv[1:]
    device, _, path = item.partition("=")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
    client.connect("127.0.0.1", int(mqtt_port))
    client.loop_start()
    port = serial.Serial(path, 9600)
    seq = 0
    while True:
        fields = json.loads(port.readline())
        ts = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        payload = json.dumps({"ts": ts, "seq": seq, "fields": fields}, separators=(",", ":"))
        client.publish(f"outstation/{name}/{device}/telemetry", payload, qos=1)
        seq += 1


main()
