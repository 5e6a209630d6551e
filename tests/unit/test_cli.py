"""The command line: what each command prints, and with which status it ends."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel

import agent
from agent import app, log
from agent.cli import STATUSES, cli
from agent.cli_text import report
from agent.config import load
from agent.driver import Context, DeviceConfig, Driver, Port
from agent.registry import BUILTIN, Registry

ROOT = Path(__file__).resolve().parents[2]
cli.load()
GOOD = """
[agent]
id = "greenhouse-1"
[mqtt]
urls = ["mqtts://broker.example", "mqtt://10.0.0.2:1884"]
username = "ann"
password_env = "OUTSTATION_TEST_PASSWORD"
ca_file = "/nowhere/ca.pem"
[outbox]
path = "PORT/outbox.db"
[[device]]
name = "weather"
driver = "lines"
port = "PORT"
baudrate = 115200
format = "csv"
columns = ["temperature", "", "battery"]
[device.channels.temperature]
unit = "°C"
low = -40
high = 85
[[device]]
name = "scale"
driver = "lines"
port = "/nowhere/ttyUSB0"
format = "json"
"""


def outstation(*arguments: str, **environ: str) -> Result:
    return CliRunner(env={"OUTSTATION_CONFIG": None, **environ}).invoke(cli, arguments, prog_name="outstation")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "port").write_text("")
    path = tmp_path / "outstation.toml"
    path.write_text(GOOD.replace("PORT", str(tmp_path / "port")))
    return path


def test_check_shows_what_would_be_read_and_published(good: Path) -> None:
    (good.parent / "outstation.d").mkdir()
    (good.parent / "outstation.d" / "10.toml").write_text('[mqtt]\nusername = "bob"\n[status]\ninterval = 60\n')
    result = outstation("check", "-c", str(good), OUTSTATION_TEST_PASSWORD="s3cret")
    assert result.exit_code == 0
    assert (
        result.stdout.replace(str(good.parent), "DIR")
        == """\
The configuration is good: DIR/outstation.toml, DIR/outstation.d/10.toml
  mqtt.username: DIR/outstation.d/10.toml:2 counts, not DIR/outstation.toml:6

agent       greenhouse-1
broker      mqtts://broker.example:8883
            mqtt://10.0.0.2:1884
            MQTT 3.1.1 as outstation-greenhouse-1, user bob, password from $OUTSTATION_TEST_PASSWORD
            readings with QoS 1, json, one a message
outbox      spill, DIR/port/outbox.db, up to 256MB and 30d, then drop_oldest; replay fifo
topics      outstation/greenhouse-1/availability  online or offline, retained, also the Will
            outstation/greenhouse-1/status  every 60s, retained
            outstation/greenhouse-1/info  retained

device      weather  (driver lines)
  reads     DIR/port
  with      baudrate = 115200, format = "csv", columns = ["temperature", "", "battery"]
  topics    outstation/greenhouse-1/weather/telemetry
            outstation/greenhouse-1/weather/availability
  gives     temperature  °C  -40..85
            battery

device      scale  (driver lines)
  reads     /nowhere/ttyUSB0
  with      format = "json"
  topics    outstation/greenhouse-1/scale/telemetry
            outstation/greenhouse-1/scale/availability
  gives     known with the first reading

Not wrong, but to know:
  - /nowhere/ca.pem (mqtt.ca_file) is not there now
  - DIR/port/outbox.db (outbox.path): DIR/port is not a directory
  - scale: /nowhere/ttyUSB0 is not there now; it is opened as soon as it is
"""
    )


def test_check_of_an_empty_file_says_that_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text('[mqtt]\nusername = "ann"\npassword_env = "OUTSTATION_TEST_UNSET"\n')
    result = outstation("check", OUTSTATION_CONFIG=str(path))
    assert result.exit_code == 0
    assert "there is no [[device]]: nothing but the status report would be published" in result.stdout
    assert "$OUTSTATION_TEST_UNSET (mqtt.password_env) is not set here" in result.stdout


def test_check_says_what_a_form_cannot_do(tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text(
        '[mqtt]\nformat = "values"\nbatch = 10\n[homeassistant]\ndiscovery = "on"\n'
        '[[device]]\nname = "host"\ndriver = "host"\n'
    )
    result = outstation("check", "-c", str(path))
    assert result.exit_code == 0
    assert "readings with QoS 1, values, one a channel" in result.stdout
    assert "/host/<channel>\n" in result.stdout
    assert 'mqtt.batch means nothing with format = "values"' in result.stdout
    result = outstation("verify", "-c", str(path))
    assert result.exit_code == 2
    assert 'a bare value has no "seq"' in result.stderr


@pytest.mark.parametrize("form", ["influx", "senml", "cbor"])
def test_check_refuses_discovery_in_a_form_that_home_assistant_cannot_read(form: str, tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text(f'[mqtt]\nformat = "{form}"\n[homeassistant]\ndiscovery = "on"\n')
    result = outstation("check", "-c", str(path))
    assert result.exit_code == 78
    assert (
        f'outstation.toml:4: homeassistant.discovery = "on"\n    Home Assistant cannot read mqtt.format = "{form}"; '
        'it reads "json" and "values"\n'
    ) in result.stderr


def test_check_says_how_to_get_what_a_form_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbor2", None)
    path = tmp_path / "outstation.toml"
    path.write_text('[mqtt]\nformat = "cbor"\n')
    result = outstation("check", "-c", str(path))
    assert result.exit_code == 78
    assert 'outstation.toml:2: mqtt.format = "cbor"\n    cbor2 cannot be imported' in result.stderr
    assert "pip install 'outstation[cbor]'" in result.stderr


def test_check_says_how_to_get_what_the_page_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    path = tmp_path / "outstation.toml"
    path.write_text('[page]\nlisten = "127.0.0.1:8080"\n')
    result = outstation("check", "-c", str(path))
    assert result.exit_code == 78
    assert 'outstation.toml:2: page.listen = "127.0.0.1:8080"\n    h11 cannot be imported' in result.stderr
    assert "pip install 'outstation[page]'" in result.stderr


def test_check_tells_where_the_page_is_and_who_may_see_it(tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text('[page]\nlisten = "127.0.0.1:8080"\n')
    assert (
        "page        http://127.0.0.1:8080/, for everyone on this machine\n"
        in outstation("check", "-c", str(path)).stdout
    )
    path.write_text('[page]\nlisten = "0.0.0.0:8080"\ntoken_file = "/nowhere/token"\n')
    said = outstation("check", "-c", str(path)).stdout
    assert "page        http://0.0.0.0:8080/, with the token in /nowhere/token\n" in said
    assert "/nowhere/token (page.token_file) is not there now" in said


class Auth(BaseModel):
    user: str = ""
    password: str = ""


class SecretiveConfig(DeviceConfig):
    port: str
    api_token: str
    tokens: tuple[str, ...]
    auth: Auth
    peers: dict[str, Auth]
    url: str


class Secretive(Driver):
    """Needs secrets, and has a defect."""

    Config = SecretiveConfig

    def __init__(self, config: Any, ctx: Context) -> None:
        super().__init__(config, ctx)
        ctx.now()

    def start(self, port: Port | None) -> None: ...


def test_check_shows_no_secret_of_a_device_and_survives_a_defect_of_its_driver(tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text(
        '[[device]]\nname = "a"\ndriver = "secretive"\nport = "socket://ann:s3cret@h:1"\napi_token = "s3cret"\n'
        'tokens = ["s3cret"]\nauth = { user = "ann", password = "s3cret" }\nurl = "http://ann:s3cret@h/"\n'
        'peers.one = { user = "bob", password = "s3cret" }\n'
    )
    text = "\n".join(report(load(path, Registry.of({"secretive": Secretive}))))
    assert "s3cret" not in text
    assert 'user = "ann", password = "***"' in text
    assert "  reads     socket://***@h:1\n" in text
    assert "  gives     unknown\n" in text
    assert "Secretive failed: AttributeError: 'NoneType' object has no attribute 'now'" in text


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_wrong_configuration_ends_with_78_and_all_that_is_wrong(command: str, tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text('[mqtt]\nqos = 3\n[[device]]\nname = "a"\ndriver = "line"\n')
    result = outstation(command, "-c", str(path))
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr == (
        "outstation: 2 problems in the configuration\n\n"
        f"{path}:2: mqtt.qos = 3\n    must be 0, 1 or 2\n"
        f'{path}:5: device[a].driver = "line"\n    no such driver; did you mean "lines"?\n'
    )


def all_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in sorted(group.commands.items()):
        yield from all_commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]


def with_configuration() -> list[tuple[str, ...]]:
    """Every command that reads a configuration, with what else it cannot be without."""
    signed = ["group/green", "layer.toml", "--key", "fleet.key"]
    more = {
        "enrol install": ["board.pem"],
        "enrol token": ["token.toml"],
        "fleet diff": signed,
        "fleet push": signed,
        "fleet rollout": signed,
        "outbox drain": ["--url", "mqtt://127.0.0.1:1"],
        "outbox purge": ["--before", "1d"],
        "record": ["a", "-o", "file"],
    }
    cli.load()
    found = []
    for path in all_commands(cli):
        command: Any = cli
        for name in path:
            command = command.commands[name]
        if any("--config" in parameter.opts for parameter in command.params):
            found.append((*path, *more.get(" ".join(path), [])))
    return found


@pytest.mark.parametrize("command", with_configuration(), ids=" ".join)
def test_every_command_that_reads_a_wrong_configuration_ends_with_78(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    for text in ("[mqtt]\nqos = 3\n", "[mqtt"):
        path.write_text(text)
        result = outstation(*command, "-c", str(path))
        assert result.exit_code == 78, result.output
        assert f"{path}:" in result.output


def test_the_option_weighs_more_than_the_environment(good: Path) -> None:
    result = outstation("check", "-c", str(good), OUTSTATION_CONFIG="/nowhere.toml")
    assert result.exit_code == 0
    result = outstation("check", OUTSTATION_CONFIG="/nowhere.toml")
    assert result.exit_code == 78
    assert "/nowhere.toml\n    no such file; name another" in result.stderr
    assert "`outstation init -o /nowhere.toml` write it" in result.stderr
    assert outstation("check", "-c", "").exit_code == 2


def test_run_gives_the_agent_its_configuration_and_the_shell_its_status(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    assert gc.isenabled()
    monkeypatch.setattr(app, "run", lambda config, load: given.extend((config, load)) or 70)
    monkeypatch.setattr(log, "set_up", lambda level, *, form: given.append((level, form)))
    result = outstation("run", "-c", str(good), "--log-level", "debug")
    assert result.exit_code == 70
    assert given[0] == ("debug", "auto")
    assert given[1].agent.id == "greenhouse-1"
    assert given[2]().agent.id == "greenhouse-1", "reads the same file again"
    assert gc.isenabled()


def test_drivers_are_listed_with_their_first_line() -> None:
    result = outstation("drivers")
    assert result.exit_code == 0
    assert re.search(r"^lines +outstation +Lines of text from a serial port", result.stdout, re.MULTILINE)


def test_a_driver_shows_its_options_and_a_sample() -> None:
    result = outstation("drivers", "lines")
    assert result.exit_code == 0
    assert '    driver = "lines"\n' in result.stdout
    assert "  baudrate  (whole number, 50 to 12000000, default 9600)\n      Bits per second.\n" in result.stdout
    assert "  channels.<name>.scale  (number, default 1)\n" in result.stdout


def test_an_unknown_driver_is_an_error_of_usage() -> None:
    result = outstation("drivers", "line")
    assert result.exit_code == 2
    assert "no driver 'line'; did you mean \"lines\"?" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run", "--nonsense"], ["check", "extra"], ["demo", "--seconds", "0"]]
)
def test_errors_of_usage(arguments: list[str]) -> None:
    result = outstation(*arguments)
    assert result.exit_code == 2
    assert "Try 'outstation" in result.stderr


def test_the_schema_knows_every_driver() -> None:
    schema = json.loads(outstation("schema").stdout)
    assert set(schema["properties"]) == {
        "requests",
        "agent",
        "mqtt",
        "outbox",
        "clock",
        "loop",
        "workers",
        "status",
        "homeassistant",
        "fleet",
        "page",
        "log",
        "device",
    }
    assert schema["additionalProperties"] is False
    devices = schema["properties"]["device"]["items"]
    assert devices["discriminator"]["mapping"] == {name: f"#/$defs/device-{name}" for name in BUILTIN}
    lines = schema["$defs"]["device-lines"]
    assert lines["properties"]["driver"]["const"] == "lines"
    assert lines["properties"]["name"]["not"] == {"enum": ["availability", "status", "info", "request", "response"]}
    assert {"name", "driver", "port", "format"} <= set(lines["required"])
    assert lines["additionalProperties"] is False


def takes(arguments: list[str]) -> None:
    """Parse a command line and run nothing. Raises UsageError."""
    context = click.Context(cli, info_name="outstation", **cli.context_settings)
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert name is not None
        assert found is not None
        command = found
        # Without a parent click would remember a help option that knows no -h.
        context = command.make_context(name, arguments, parent=context)
        arguments = [*context._protected_args, *context.args]


@pytest.mark.parametrize("command", list(all_commands(cli)), ids=" ".join)
def test_every_help_has_an_example_that_the_command_takes(command: tuple[str, ...]) -> None:
    text = outstation(*command, "--help").stdout
    assert outstation(*command, "-h").stdout == text
    examples = re.findall(r"^ +(?:[A-Z_]+=\S+ )?outstation (\w.*?)(?:   .*|&&.*|>.*|\|.*)?$", text, re.MULTILINE)
    assert examples
    for example in examples:
        takes(shlex.split(example))  # raises UsageError if the example is none


def test_every_status_is_in_the_help() -> None:
    text = outstation("--help").stdout
    for status, meaning in STATUSES.items():
        assert f"{status} " in text
        assert meaning.split(";")[0] in text


# ---- as a process


def process(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version() -> None:
    result = process("--version")
    assert (result.returncode, result.stdout) == (0, f"outstation {agent.__version__}\n")


def test_a_defect_ends_with_70_and_its_traceback(tmp_path: Path) -> None:
    """A file of ours that raises stands in for a defect: `run` imports agent.app."""
    code = "import sys, agent.cli\nsys.modules['agent.app'] = None\nsys.argv = ['outstation', 'run', '-c', 'c.toml']\n"
    (tmp_path / "c.toml").write_text("")
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}agent.cli.main()"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 70
    assert "ModuleNotFoundError" in result.stderr
    assert result.stderr.rstrip().endswith("this is a defect; the lines above belong into its report")


def test_a_damaged_distribution_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    """One bad line in any entry_points.txt makes importlib.metadata raise, and pydantic ask it."""
    metadata = tmp_path / "damaged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[outstation.drivers]\nnonsense\n")
    (metadata / "METADATA").write_text("Name: damaged\n")
    result = process("drivers", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert "nonsense  damaged 1.0  BROKEN" in result.stdout
    result = process("drivers", "nonsense", PYTHONPATH=str(tmp_path))
    assert result.returncode == 78
    assert "the driver nonsense of damaged 1.0 cannot be loaded" in result.stderr


def test_a_poor_locale_is_no_reason_for_a_traceback() -> None:
    result = process("drivers", "lines", PYTHONIOENCODING="iso8859-5")
    assert result.returncode == 0
    assert 'unit = "?C"' in result.stdout


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = f"{sys.executable} -m agent schema | head -n 1"
    result = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True, timeout=30, check=False)
    assert (result.stdout, result.stderr) == ("{\n", "")


@pytest.mark.parametrize("arguments", [["check", "-c", "/nowhere"], ["drivers"], ["--help"]])
def test_what_only_shows_text_does_not_import_the_link(arguments: list[str]) -> None:
    """They answer at once, also on a board that is busy."""
    code = (
        f"import sys; sys.argv = ['outstation', *{arguments!r}]\nfrom agent.cli import main\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not {"paho", "agent.app", "agent.events", "rich"} & set(result.stderr.split())
