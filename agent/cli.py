"""The command `outstation`. Each command imports what it needs when it runs: `run` carries nothing for people alone.

click costs `run` 4 ms and 1.1 MB beside what the agent imports anyway (docs/decisions/007-command-line.md).
"""

from __future__ import annotations

import gc
import io
import os
import sys
import traceback
from importlib import import_module
from typing import ClassVar, Literal

import click

from agent import __version__
from agent.cli_config import EX_CONFIG, config_option, load_config, read_config

EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_IOERR = 74
EX_TEMPFAIL = 75
STATUSES = {
    0: "done; for `run`: stopped as it was told to; for `verify`: proved",
    1: "`verify`: a reading is lost or out of order; `outbox`: the file is damaged, or something is left; `demo`: it "
    "could not go on; `probe`: nothing was recognised; `status`: something is not well; `doctor`: a problem; "
    "`plan --exit-code`: something would change; `install-service`: refused; "
    "`simulate`: a reading is lost, or an agent is not connected",
    2: "the command line is wrong",
    EX_DATAERR: "`outbox`, `replay`: no outbox or recording, one that is damaged, or one of another version",
    EX_NOINPUT: "`outbox`: no such file, or it may not be read; `verify`: no reading arrived; `record`: no byte",
    EX_UNAVAILABLE: "the broker cannot be reached, or refuses us; `status`, `reload`: no agent runs here",
    EX_SOFTWARE: 'a callback hung, or was slow under on_slow = "stop"; or a defect of ours, with its traceback',
    EX_IOERR: "`init`, `outbox`, `record`: the disk refuses",
    EX_TEMPFAIL: "another process has the outbox; its pid is told",
    EX_CONFIG: "the configuration is wrong, or a driver cannot be loaded; all that is wrong is listed",
}
"""Exit statuses (sysexits.h), which systemd's unit tells apart. A second stop signal adds one: 128 + its number."""


class DriverFailure(click.ClickException):
    """Ends a command with status 78: the driver that was asked for is broken."""

    exit_code = EX_CONFIG


class Commands(click.Group):
    """Imports some of its commands when they are asked for: what they can say alone costs `run` milliseconds."""

    later: ClassVar = {
        "completion": "agent.cli_completion",
        "doctor": "agent.cli_doctor",
        "enrol": "agent.cli_enrol",
        "fleet": "agent.cli_fleet",
        "init": "agent.cli_init",
        "install-service": "agent.cli_install_service",
        "new-driver": "agent.cli_new_driver",
        "outbox": "agent.cli_outbox",
        "plan": "agent.cli_control",
        "probe": "agent.cli_probe",
        "record": "agent.cli_record",
        "reload": "agent.cli_control",
        "replay": "agent.cli_record",
        "simulate": "agent.cli_simulate",
        "status": "agent.cli_control",
        "verify": "agent.cli_verify_command",
        "watch": "agent.cli_watch",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.later})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.later and cmd_name not in self.commands:
            self.add_command(getattr(import_module(self.later[cmd_name]), cmd_name.replace("-", "_")))
        return super().get_command(ctx, cmd_name)

    def load(self) -> None:
        """Import all of them: ``commands`` is complete then."""
        for name in self.later:
            self.get_command(click.Context(self), name)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExit status:\n" + "\n".join(f"  {status:<3} {meaning}" for status, meaning in STATUSES.items()),
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Read this board's devices and report them to an MQTT broker.

    \b
    Examples:
      outstation demo                     see it at work; needs no configuration
      outstation init -o my.toml          write a configuration, by a few questions
      outstation probe /dev/ttyUSB0       find out what is on a serial port
      outstation drivers lines            what a device with that driver may say
      outstation doctor -c my.toml        find what keeps it from working
      outstation check -c my.toml         validate; show what would be read and published
      outstation run -c my.toml           run in the foreground until SIGTERM or Ctrl-C
      outstation watch -c my.toml         see live what all agents at the broker say
      outstation verify -c my.toml        prove at the broker that nothing is lost
    """


@cli.command(short_help="Run the agent in the foreground.")
@config_option
@click.option(
    "--log-level",
    type=click.Choice(["error", "warning", "info", "debug"]),
    help="Least severe lines to log. error: somebody must act; debug: every reading. Default: the configuration's.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "plain", "json"]),
    help="auto: fields under journald, else plain. json: JSON Lines. Default: the configuration's.",
)
def run(file: str, log_level: str | None, log_format: Literal["auto", "plain", "json"] | None) -> None:
    """Run the agent in the foreground, until SIGTERM, SIGINT or Ctrl-C.

    Under systemd it reports when it is ready and feeds the watchdog. SIGUSR1 dumps the agent's state to the log.

    \b
    Examples:
      outstation run
      outstation run -c my.toml --log-level debug
      outstation run --log-format json
      OUTSTATION_CONFIG=my.toml outstation run
    """
    gc.disable()  # starting makes many objects and no garbage: a tenth of the time until the first reading
    try:
        from agent.lazily import lazily

        # How pydantic compares passwords (OpenSSL) and finds plugins (email, zipfile): 6 MB (docs/decisions/038).
        with lazily("secrets", "importlib.metadata:entry_points"):
            import pydantic.plugin._loader
            import pydantic.types  # noqa: F401
        config = load_config(file, set_aside=True)

        from agent import app, log
    finally:
        gc.freeze()  # what is here now stays: later collections need not look at it
        gc.enable()
    log.set_up(log_level or config.log.level, form=log_format or config.log.format)
    sys.exit(app.run(config, lambda: read_config(file)))


@cli.command(short_help="Validate the configuration; show what would be read and published.")
@config_option
def check(file: str) -> None:
    """Validate the configuration; show what would be read and published where.

    Opens no port and connects nowhere. What is no mistake but will keep the agent waiting, as a port that is not there
    now, stands at the end.

    \b
    Examples:
      outstation check
      outstation check -c my.toml && systemctl restart outstation
    """
    config = load_config(file)

    from agent.cli_text import report

    for line in report(config):
        click.echo(line)


def _driver_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from agent.registry import discover

    return [name for name in discover().names if name.startswith(incomplete)]


@cli.command(short_help="List the drivers, or show what one of them offers.")
@click.argument("name", required=False, shell_complete=_driver_names)
def drivers(name: str | None) -> None:
    """List the drivers; with NAME, show what a device with that driver may say.

    Drivers come with this package and with any installed distribution that has entry points in the group
    outstation.drivers. One that cannot be imported is listed with the reason.

    \b
    Examples:
      outstation drivers
      outstation drivers lines
    """
    from agent.cli_text import driver_list, driver_page
    from agent.config_words import suggestion
    from agent.registry import discover

    registry = discover()
    if name is None:
        lines = driver_list(registry)
    elif name not in registry.names:
        raise click.BadParameter(f"no driver {name!r}; {suggestion(name, registry.names)}", param_hint="NAME")
    elif (entry := registry.load(name)).cls is None:
        raise DriverFailure(f"the driver {name} of {entry.distribution} cannot be loaded: {entry.error}")
    else:
        lines = driver_page(entry)
    for line in lines:
        click.echo(line)


@cli.command(short_help="Print the JSON Schema of the configuration, for editors.")
def schema() -> None:
    """Print the JSON Schema of the configuration, with the devices of all installed drivers.

    Editors complete and check TOML by it: save it, and put "#:schema outstation.schema.json" into the first line of
    outstation.toml (Even Better TOML, taplo).

    \b
    Example:
      outstation schema > outstation.schema.json
    """
    import json

    from agent.config_options import schema as schema_of
    from agent.registry import discover

    click.echo(json.dumps(schema_of(discover()), indent=2, ensure_ascii=False))


@cli.command(short_help="See it at work, without configuration or hardware.")
@click.option("--broker", metavar="URL", help="Publish to this broker instead of an embedded one.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after so long. Default: at Ctrl-C."
)
@click.option("--plain", is_flag=True, help="Plain lines instead of a live table; the default without a terminal.")
def demo(broker: str | None, seconds: float | None, plain: bool) -> None:
    """See it at work: simulated serial devices and this host, read by the real agent, shown as the broker gets them.

    Needs the extra "demo" (pip install "outstation[demo]"), and neither configuration nor hardware.

    \b
    Examples:
      outstation demo
      outstation demo --broker mqtt://192.168.1.2 --seconds 60 --plain
    """
    from agent import demo as show

    sys.exit(show.main(broker=broker, seconds=seconds, plain=plain))


def main() -> None:
    """The entry point: a command's exit status is the process's."""
    # pydantic would look for plugins of its own, and end with a traceback where a distribution's entry_points.txt is
    # damaged; it takes 4 ms too.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale without "°" is no reason to end with a traceback
    try:
        cli.main(prog_name="outstation")
    except Exception:  # noqa: BLE001  (the last place where a defect can be told from an end)
        traceback.print_exc()
        click.echo(f"outstation {__version__}: this is a defect; the lines above belong into its report", err=True)
        sys.exit(EX_SOFTWARE)
