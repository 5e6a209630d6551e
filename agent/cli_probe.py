"""The command `outstation probe`: what it takes. What it does is imported when it does it."""

from __future__ import annotations

import sys

import click

from agent.cli_completion import port_names


@click.command(short_help="List the serial ports; find out what is on one.")
@click.argument("ports", metavar="[PORT]...", nargs=-1, shell_complete=port_names)
@click.option("--all", "every", is_flag=True, help="Listen on all ports that nobody has open.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1, max=600),
    metavar="N",
    default=2.5,
    show_default=True,
    help="So long at each bit rate. Meters of DSMR 4 send every 10 s only.",
)
@click.option("--baudrate", type=click.IntRange(50, 12_000_000), metavar="N", help="At this bit rate alone.")
@click.option("--active", is_flag=True, help="Ask for Modbus too, where nothing came by itself: reads a register.")
def probe(ports: tuple[str, ...], every: bool, seconds: float, baudrate: int | None, active: bool) -> None:
    """List the serial ports, what is behind them and who has them open; with PORT, listen to find out what it sends.

    Listens at the usual bit rates, knows NMEA, P1, SML, PMS5003, SDS011 and lines of JSON, pairs, CSV or numbers, and
    prints the configuration to paste; all other lines of the output are comments. Opening a port raises DTR for a
    moment, which resets some boards. Nothing is sent but with --active.

    \b
    Exit status:
      0   something was recognised, on one port at least; without PORT: always
      1   nothing was

    \b
    Examples:
      outstation probe
      outstation probe /dev/ttyUSB0
      outstation probe usb:0403:6001 --seconds 11 > outstation.d/meter.toml
      outstation probe --all --active
    """
    from agent.cli_probing import listen, listing
    from agent.ports_errors import holders
    from agent.ports_list import serial_devices

    devices = serial_devices()
    if not ports and not every:
        for line in listing(devices):
            click.echo(line)
        return
    names = list(ports)
    if every:
        names += [device.path for device in devices if device.path not in names and not holders(device.path)]
    if not names:
        raise click.UsageError("no port is free: `outstation probe` lists them, and who has them open")
    sys.exit(listen(list(dict.fromkeys(names)), devices, seconds, baudrate, active))
