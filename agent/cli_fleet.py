"""The commands `outstation fleet ...`: keys, and configurations for many boards, from an operator's own machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import unified_diff
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli_broker import EX_UNAVAILABLE, broker_options, broker_settings, in_options
from agent.cli_config import config_option
from agent.cli_verify_command import configured
from agent.errors import FleetError, LinkError
from agent.quantity import duration

if TYPE_CHECKING:
    from agent.cli_fleet_desk import Desk
    from agent.cli_fleet_rollout import Outcome
    from agent.fleet_document import Target

_FILE = click.Path(path_type=Path)
_KEY = click.option("--key", type=_FILE, metavar="FILE", required=True, help="The private key, by `fleet keygen`.")
_TIMEOUT = click.option(
    "--timeout", metavar="TIME", default="5m", show_default=True, help="How long boards may take, in each stage."
)


def at_broker(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--url`` and its companions, or the configuration's broker; the command gets a ``desk`` that is open."""

    @wraps(command)
    def connected(file: str, url: str | None, base: str | None, **options: Any) -> None:
        names = (
            "username",
            "password_file",
            "password_env",
            "ca_file",
            "cert_file",
            "key_file",
            "insecure_skip_verify",
        )
        broker = {name: options.pop(name) for name in names}
        settings = broker_settings(url, base=base, **broker) if url is not None else configured(file, broker).mqtt

        from agent.cli_fleet_desk import Desk

        try:
            with Desk(settings, base or settings.base) as desk:
                status = command(desk=desk, **options)
        except LinkError as error:
            text = in_options(str(error)) if url is not None else str(error)
            click.echo(f"outstation fleet: {text}", err=True)
            sys.exit(EX_UNAVAILABLE)
        except FleetError as error:
            raise click.ClickException(str(error)) from None
        sys.exit(status)

    decorated = click.option("--base", metavar="TOPIC", help="Topic before the agent's id. Default: outstation.")(
        connected
    )
    decorated = config_option(broker_options(decorated))
    return click.option(
        "--url", metavar="URL", help="The broker: mqtt://, mqtts://, ws://, wss://. Default: the configuration's."
    )(decorated)


@click.group(short_help="Configure many boards through the broker.")
def fleet() -> None:
    """Configure many boards by signed documents at the broker.

    TARGET is group/<name>, for all boards with that name in fleet.groups, or agent/<id>, for one board. FILE is TOML,
    what it says goes over the boards' own files. What boards do with it: docs/fleet.md.

    \b
    Examples:
      outstation fleet keygen fleet.key
      outstation fleet status --url mqtts://broker.example --username operator --password-file password
      outstation fleet rollout group/greenhouse greenhouse.toml --key fleet.key --canary 5%
    """


@fleet.command(short_help="Make the key that signs documents.")
@click.argument("file", type=_FILE)
def keygen(file: Path) -> None:
    """Make a private key in FILE (mode 0600), and print what boards need of it.

    \b
    Example:
      outstation fleet keygen fleet.key
    """
    from agent.cli_fleet_keys import generate

    key = generate(file)
    click.echo(f"{file}: keep it where you keep passwords, with a copy; documents name it {key.id}")
    click.echo("for the boards' own files:\n")
    click.echo(f'[fleet]\nenabled = true\nkeys = ["{key.public}"]')


@fleet.command(short_help="What every board has, and what became of the newest document.")
@at_broker
@click.option("--json", "as_json", is_flag=True, help="The boards' reports as JSON, for scripts.")
def status(desk: Desk, as_json: bool) -> int:
    """Each board with [fleet]: online, its layers in force, and documents that it has refused or taken back.

    Exit status: 0 if all is well, 1 if something is not.

    \b
    Example:
      outstation fleet status -c my.toml
    """
    if as_json:
        import orjson

        boards = {
            agent: {**desk.reports[agent], "online": desk.online.get(agent, False)} for agent in sorted(desk.reports)
        }
        click.echo(orjson.dumps(boards, option=orjson.OPT_INDENT_2))
    well = bool(desk.reports)
    for agent in sorted(desk.reports):
        lines, good = _board(agent, desk.reports[agent], desk.online.get(agent, False))
        well = well and good
        if not as_json:
            for text in lines:
                click.echo(text)
    if not desk.reports:
        click.echo(f"no board below {desk.base}/ says anything of a fleet: is fleet.enabled set there?", err=True)
    return 0 if well else 1


@fleet.command(short_help="Sign a configuration, and give it to a group or a board.")
@click.argument("target")
@click.argument("document", type=_FILE, metavar="FILE")
@_KEY
@_TIMEOUT
@click.option("--no-wait", is_flag=True, help="Do not wait for the boards.")
@at_broker
def push(desk: Desk, target: str, document: Path, key: Path, timeout: str, no_wait: bool) -> int:
    """Sign FILE, publish it for all of TARGET at once, and wait for the boards.

    Boards that are offline take it when they come. An empty FILE takes back what a document said before.

    Exit status: 0 if all boards that are online have applied it, 1 if one has not.

    \b
    Example:
      outstation fleet push agent/gh-1 gh-1.toml --key fleet.key
    """
    from agent.cli_fleet_rollout import Delivery
    from agent.clock import Clock

    whom, text, seconds = _target(target), _text(document), _seconds(timeout)
    delivery = Delivery(desk, _load(key), whom, Clock(), _say)
    members = [agent for agent in desk.members(whom) if desk.online.get(agent)]
    made = delivery.publish(text)
    click.echo(f"{whom}: version {made.version}, for {len(members)} boards that are online")
    if no_wait:
        return 0
    return 0 if all(outcome.well for outcome in delivery.watch(made, members, seconds)) else 1


@fleet.command(short_help="What a file changes of the document that lies at the broker.")
@click.argument("target")
@click.argument("document", type=_FILE, metavar="FILE")
@_KEY
@at_broker
def diff(desk: Desk, target: str, document: Path, key: Path) -> int:
    """Compare FILE with what TARGET was given last. Exit status: 0 if they are the same, 1 if not.

    \b
    Example:
      outstation fleet diff group/greenhouse greenhouse.toml --key fleet.key
    """
    whom, text, signer = _target(target), _text(document), _load(key)
    found = desk.document(whom, {signer.id: signer.raw})
    old = found.config if found is not None else ""
    named = f"{whom}@{found.version}" if found is not None else f"{whom} (nothing)"
    lines = list(unified_diff(old.splitlines(), text.splitlines(), named, str(document), lineterm=""))
    for line in lines:
        click.echo(line)
    return 1 if lines else 0


@fleet.command(short_help="Give a configuration to some boards first, and to all if they are well.")
@click.argument("target")
@click.argument("document", type=_FILE, metavar="FILE")
@_KEY
@click.option(
    "--canary",
    "canaries",
    metavar="SHARE",
    multiple=True,
    default=("5%",),
    show_default=True,
    help="Share of the boards that goes first, one at least; again for a further stage.",
)
@_TIMEOUT
@at_broker
def rollout(desk: Desk, target: str, document: Path, key: Path, canaries: tuple[str, ...], timeout: str) -> int:
    """Give FILE to a share of a group's boards that are online; if they are well, to the next share; at last to all.

    A stage fails if a board refuses the document, takes it back, is silent for --timeout, or does not bring all devices
    back that were online before. Then what lay there before is given to all again, under a new version.

    Exit status: 0 if all boards have it, 1 if it was taken back.

    \b
    Example:
      outstation fleet rollout group/greenhouse greenhouse.toml --key fleet.key --canary 5% --canary 25%
    """
    from agent.cli_fleet_rollout import Delivery, roll_out, unchanged
    from agent.clock import Clock

    whom, text, seconds = _target(target), _text(document), _seconds(timeout)
    shares = [_share(canary) for canary in canaries]
    members = [agent for agent in desk.members(whom) if desk.online.get(agent)]
    if not members:
        raise click.ClickException(f"no board of {whom} is online")
    progress = Progress()
    delivery = Delivery(desk, _load(key), whom, Clock(), progress.told)
    if unchanged(delivery.before(), text):
        click.echo("that is what lies there already")
        return 0
    return 0 if roll_out(delivery, text, members, shares, seconds, progress.say, progress.begin) else 1


class Progress:
    """A bar on a terminal, and above it a line for each board that is not well; in a pipe a line for every board."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._left = 0

    def begin(self, count: int) -> None:
        self._left = count
        if sys.stdout.isatty():
            self._bar = click.progressbar(length=count, label="boards", show_pos=True)
            self._bar.render_progress()

    def told(self, outcome: Outcome) -> None:
        self._left -= 1
        if self._bar is None:
            _say(outcome)
            return
        if not outcome.well:
            click.echo("\r\033[K", nl=False)  # EL (ECMA-48): the bar is drawn again below
            _say(outcome)
        self._bar.update(1)
        if not self._left:
            self._bar.render_finish()
            self._bar = None

    def say(self, text: str) -> None:
        click.echo(text)


def _say(outcome: Outcome) -> None:
    click.echo(
        f"{' ' if outcome.well else '!'} {outcome.agent}: {outcome.state}{''.join(f'; {p}' for p in outcome.problems)}"
    )


def _board(agent: str, report: dict[str, Any], online: bool) -> tuple[list[str], bool]:
    """Its lines, and whether all is well with it."""
    problems = [f"left out at the start: {problem}" for problem in report.get("set_aside", ())]
    for target, said in sorted(report["documents"].items()):
        if said["state"] in ("refused", "rolled_back", "trial"):
            problems += [f"{target}@{said.get('version')}: {said['state']}", *map(str, said.get("problems", ()))]
    layers = ", ".join(f"{name}@{layer.get('version')}" for name, layer in sorted(report["layers"].items()))
    well = online and not problems
    head = f"{' ' if well else '!'} {agent:20} {'online' if online else 'offline':8} {layers or 'its own files alone'}"
    return [head, *(f"    {problem}" for problem in problems)], well


def _target(text: str) -> Target:
    from agent.fleet_document import parse_target

    try:
        return parse_target(text)
    except FleetError as error:
        raise click.BadParameter(str(error), param_hint="TARGET") from None


def _load(key: Path) -> Any:
    from agent.cli_fleet_keys import load

    return load(key)


def _seconds(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not text.endswith("%") or not 0 < share <= 1:
        raise click.BadParameter(f"{text!r} is no share: write 5%", param_hint="--canary")
    return share


def _text(path: Path) -> str:
    """The file, judged as far as it can be without a board: TOML, and nothing that no board would take."""
    from agent.config_files import Merged
    from agent.fleet_layers import add_layer

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} is not UTF-8: save it as that") from None
    merged = Merged()
    add_layer(merged, str(path), text, [])
    if merged.problems:
        raise click.ClickException("\n".join(map(str, merged.problems)))
    return text
