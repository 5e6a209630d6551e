"""The floor: the least that Python can do between a serial line and a broker, and still lose nothing at QoS 1.

floor.py MQTT_PORT NAME DEVICE=PORT: reads what the kernel holds, cuts it into lines and writes each as a PUBLISH made
by hand, as it came: no parsing, no time, no library. At most WINDOW are unacknowledged; beyond that the port is left
alone, and its flow control holds the device. No reconnecting, no store, no second device: nobody should run this.
"""

import os
import select
import socket
import struct
import sys

import serial

WINDOW = 1000


def text(word: str) -> bytes:
    return struct.pack(">H", len(word)) + word.encode()


def main() -> None:
    mqtt_port, name, item = sys.argv[1:]
    device, _, path = item.partition("=")
    sock = socket.create_connection(("127.0.0.1", int(mqtt_port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connect = text("MQTT") + b"\4\2\0\0" + text(name)
    sock.sendall(b"\x10" + bytes([len(connect)]) + connect)
    if sock.recv(4) != b"\x20\2\0\0":
        raise SystemExit("the broker refused")
    port = serial.Serial(path, 9600, timeout=0)
    fd = port.fileno()
    topic = text(f"outstation/{name}/{device}/telemetry")
    left = b""
    flying = acks = mid = 0
    while True:
        # 4 KiB, what a pty holds, are some 60 lines: the window is passed by no more than that.
        ready = select.select([sock] if flying >= WINDOW else [sock, fd], [], [])[0]
        if sock in ready:
            data = sock.recv(65536)
            if not data:
                raise SystemExit("the broker is gone")
            acks += len(data)  # PUBACKs of four bytes are all that comes
            flying -= acks // 4
            acks %= 4
        if fd not in ready:
            continue
        *lines, left = (left + os.read(fd, 65536)).split(b"\n")
        out = []
        for line in lines:
            mid = mid % 65535 + 1
            size = len(topic) + 2 + len(line)
            # The remaining length in two bytes: from 128 to 16383 (MQTT 3.1.1, section 2.2.3); in one below that.
            head = b"\x32%c" % size if size < 128 else b"\x32%c%c" % (size & 127 | 128, size >> 7)
            out.append(b"%b%b%c%c%b" % (head, topic, mid >> 8, mid & 255, line))
        flying += len(out)
        sock.sendall(b"".join(out))


main()
