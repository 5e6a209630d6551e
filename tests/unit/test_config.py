"""The configuration: what it accepts, and every kind of bad input with the very words in which it is reported."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from agent.config import RESERVED, SECTIONS, Config, default_id, load, problems_text
from agent.config_files import Place
from agent.driver import Driver, Parser, SerialConfig, StreamDriver
from agent.errors import ConfigError, Problem
from agent.registry import Offer, Registry

CASES = Path(__file__).parent / "config_cases"


class ChannelConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    unit: str = ""
    scale: float = 1.0
    low: float = 0.0
    high: float = 100.0

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class SerialDeviceConfig(SerialConfig):
    channels: dict[str, ChannelConfig] = Field(default_factory=dict)
    api_token: str = ""
    shape: Literal["round", "other"] = "round"
    size: int | Literal["auto"] | None = Field(None, validate_default=True)

    @field_validator("size")
    @classmethod
    def _needed(cls, size: Any, info: ValidationInfo) -> Any:
        if size is None and info.data.get("shape") == "other":
            raise ValueError('shape = "other" needs it')
        return size


class Serial(StreamDriver):
    """Something on a serial port."""

    Config = SerialDeviceConfig

    def parser(self) -> Parser:
        raise NotImplementedError


class Shared(Serial):
    """Several devices on one bus."""

    @classmethod
    def shares(cls, config: Any) -> str | None:  # noqa: ARG003
        return None


class Defective(Serial):
    """Its author made a mistake."""

    @classmethod
    def shares(cls, config: Any) -> str | None:
        return str(config.address)


def registry(**drivers: type[Driver]) -> Registry:
    found = Registry.of({"serial": Serial, **drivers})
    found.add(Offer("broken", "no_such_module:Thing", "outstation-broken 1.0"))
    return found


def problems(path: Path, **drivers: type[Driver]) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(path, registry(**drivers))
    return list(caught.value.problems)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "outstation.toml"
    file.write_text(text)
    return file


def loaded(tmp_path: Path, text: str, **drivers: type[Driver]) -> Config:
    return load(written(tmp_path, text), registry(**drivers))


# ---- what is wrong, and how it is said


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_golden_errors(case: str) -> None:
    """`UPDATE_GOLDEN=1 pytest` writes them anew; read the difference."""
    with pytest.raises(ConfigError) as caught:
        load(CASES / case / "outstation.toml", registry())
    text = "\n".join(problems_text(caught.value)).replace(str(CASES / case), "DIR") + "\n"
    golden = CASES / case / "expected.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert "s3cret" not in text + str(caught.value) + repr(caught.value.problems)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "no such file"),
        (lambda path: path.mkdir(), "a directory, not a file"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "longer than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "outstation.toml"
    make(path)
    (problem,) = problems(path)
    assert problem.file == str(path)
    assert problem.line is None
    assert problem.message == message
    assert str(problem).startswith(f"{path}: {message}")


def test_permission_is_a_problem_with_the_owner_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if we were not root, to whom nothing is closed."""
    path = written(tmp_path, "")
    path.chmod(0o640)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    (problem,) = problems(path)
    assert problem.message == "no permission to read it"
    status = path.stat()
    assert f"its owner is uid {status.st_uid}, gid {status.st_gid}, its mode 0640" in problem.remedy


def test_a_drop_in_directory_that_is_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    (tmp_path / "outstation.d").write_text("")
    (problem,) = problems(path)
    assert problem.file == str(tmp_path / "outstation.d")
    assert problem.message == "cannot be read: Not a directory"


def test_files_that_are_not_toml_are_all_reported_and_nothing_else_is_judged(tmp_path: Path) -> None:
    """What seems to be missing or doubled may be the fault of a file that could not be read."""
    path = written(tmp_path, "[mqtt]\nqos = 9\n")
    drop_ins = tmp_path / "outstation.d"
    drop_ins.mkdir()
    for name in "ab":
        (drop_ins / f"{name}.toml").write_text("x")
    (drop_ins / "c.toml").symlink_to("gone")
    assert [Path(problem.file).name for problem in problems(path)] == ["a.toml", "b.toml", "c.toml"]


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names(tmp_path: Path, name: str) -> None:
    text = f'[[device]]\nname = "{name}"\ndriver = "serial"\nport = "/dev/x"\n'
    (problem,) = problems(written(tmp_path, text))
    assert (problem.line, problem.value) == (2, f'"{name}"')
    assert "reserved" in problem.message


def test_two_links_to_one_port(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).symlink_to("/dev/null")
    device = '[[device]]\nname = "{0}"\ndriver = "{1}"\nport = "{2}/{0}"\n'
    text = device.format("a", "serial", tmp_path) + device.format("b", "serial", tmp_path)
    (problem,) = problems(written(tmp_path, text))
    assert problem.line == 8
    assert problem.message.endswith(f"outstation.toml:4 is on the same port (both are {os.path.realpath('/dev/null')})")
    assert len(loaded(tmp_path, text.replace('"serial"', '"bus"'), bus=Shared).devices) == 2


def test_a_defect_of_a_driver_is_a_problem_of_its_device(tmp_path: Path) -> None:
    text = '[[device]]\nname = "a"\ndriver = "bad"\nport = "/dev/x"\n'
    (problem,) = problems(written(tmp_path, text), bad=Defective)
    assert problem.key == "device[a]"
    assert "Defective failed: AttributeError: 'SerialDeviceConfig' object has no attribute 'address'" in problem.message


# ---- what is right


def test_nothing_is_a_configuration(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    assert config.devices == ()
    assert config.agent.id == default_id()
    assert {name: getattr(config, name) for name in SECTIONS} == {name: model() for name, model in SECTIONS.items()}


def test_the_example_of_the_design(tmp_path: Path) -> None:
    """Every key that checks from outside rely on, as they write it."""
    config = loaded(
        tmp_path,
        """
        [agent]
        id = "greenhouse-1"
        stop_timeout = "10s"
        [mqtt]
        urls = ["mqtts://broker.example:8883", "mqtt://10.0.0.2"]
        qos = 1
        batch = 1
        ack_timeout = "20s"
        username = "greenhouse-1"
        password_file = "/run/credentials/mqtt"
        [outbox]
        path = "/var/lib/outstation/outbox.db"
        durability = "spill"
        spill_after = "250ms"
        max_bytes = "256MB"
        max_age = "30d"
        policy = "drop_oldest"
        replay = "fifo"
        [clock]
        trust = "auto"
        hold = "0s"
        [loop]
        slow_after = "50ms"
        hang_after = "10s"
        on_slow = "warn"
        workers = [1, 4]
        [status]
        interval = "30s"
        [[device]]
        name = "weather"
        driver = "serial"
        port = "/dev/serial/by-id/usb-1"
        baudrate = 9600
        """,
    )
    assert config.agent.id == "greenhouse-1"
    assert config.mqtt.password_file == Path("/run/credentials/mqtt")
    assert config.outbox.max_age == 30 * 86_400
    assert config.loop.workers == (1, 4)
    ((driver, device),) = config.devices
    assert driver is Serial
    assert (device.name, device.port, device.baudrate) == ("weather", "/dev/serial/by-id/usb-1", 9600)


def test_drop_ins_merge_in_order_of_their_names(tmp_path: Path) -> None:
    device = '[[device]]\nname = "{}"\ndriver = "serial"\nport = "/dev/{}"\n'
    path = written(tmp_path, '[agent]\nid = "a"\n[mqtt]\nurls = ["mqtt://one", "mqtt://two"]\n' + device.format("x", 1))
    drop_ins = tmp_path / "outstation.d"
    drop_ins.mkdir()
    (drop_ins / "20.toml").write_text('[mqtt]\nqos = 2\nurls = ["mqtt://three"]\n' + device.format("y", 2))
    (drop_ins / "10.toml").write_text("[mqtt]\nqos = 0\n" + device.format("z", 3))
    (drop_ins / "30.toml").symlink_to("/dev/null")  # systemd's way to switch a file off
    config = load(path, registry())
    assert config.agent.id == "a"
    assert config.mqtt.qos == 2
    assert config.mqtt.urls == ("mqtt://three",)
    assert [device.config.name for device in config.devices] == ["x", "z", "y"]
    assert [Path(file).name for file in config.files] == ["outstation.toml", "10.toml", "20.toml", "30.toml"]
    assert config.overridden == (
        ("mqtt.qos", Place(str(drop_ins / "10.toml"), 2), Place(str(drop_ins / "20.toml"), 2)),
        ("mqtt.urls", Place(str(path), 4), Place(str(drop_ins / "20.toml"), 3)),
    )


def test_drop_ins_stand_beside_a_file_named_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outstation.d").mkdir()
    (tmp_path / "outstation.d" / "a.toml").write_text('[agent]\nid = "from-the-drop-in"\n')
    (tmp_path / "my.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert load("my.toml", registry()).agent.id == "from-the-drop-in"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_bytes(b'\xef\xbb\xbf[agent]\r\nid = "a"\r\nx = 1\r\n')
    (problem,) = problems(path)
    assert (problem.line, problem.key) == (3, "agent.x")


def test_only_the_drivers_that_it_names_are_imported(tmp_path: Path) -> None:
    drivers = registry()
    path = written(tmp_path, '[[device]]\nname = "a"\ndriver = "serial"\nport = "/dev/x"\n')
    load(path, drivers)
    assert "broken" in drivers.names
    assert "broken" not in drivers._entries


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("greenhouse-1.example.org", "greenhouse-1"),
        ("my host_2", "my-host_2"),
        ("büro", "b-ro"),
        ("", "outstation"),
        (".local", "outstation"),
        ("x" * 70, "x" * 64),
        (None, default_id(socket.gethostname())),
    ],
)
def test_default_id(host: str | None, expected: str) -> None:
    assert default_id(host) == expected
    SECTIONS["agent"](id=expected)


@pytest.mark.parametrize("text", ['[agent]\nid = "fleet"\n', "", "[agent]\n"])
def test_an_agent_is_not_called_as_the_topic_of_the_fleets_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "fleet.example.org")
    (problem,) = problems(written(tmp_path, text))
    assert "reserved: the fleet's documents stand below that topic; write any other name" in str(problem)
    assert ("outstation.toml:2: agent.id" in str(problem)) == ("id" in text)


# ---- where readings go


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('topic = "site/{agent}"', 'no "{device}"'),
        ('topic = "site/{room}/{device}"', "{room} is no placeholder"),
        ('topic = "site/{device}"\nformat = "values"', 'no "{channel}"'),
        ('topic = "site/{device}/{channel}"', 'a "{channel}"'),
        ('topic = "outstation/x/{device}/{channel}/set"\nformat = "values"', "outstation/x/+/+/set"),
        ('topic = "outstation/{agent}/y/{device}/{channel}"\nformat = "values"', "outstation/x/+/+/set"),
        ('topic = "outstation/x/request/{device}"', "outstation/x/request/+"),
        ('topic = "{agent}/{device}/y"\nbase = "y"', None),
        ('topic = "outstation/{agent}/{device}"', "outstation/x/fleet"),
        ('topic = "outstation/{agent}/d-{device}"', None),
        ('topic = "outstation/{agent}/{device}/{channel}"\nformat = "values"', None),
        ('topic = "house/device/{device}/config"', "house/device/+/config"),
        ('topic = "house/{device}"', None),
        ('topic = "house/sta{device}"', "house/status"),
    ],
)
def test_a_template_of_topics_keeps_out_of_all_others(tmp_path: Path, table: str, said: str | None) -> None:
    rest = '[agent]\nid = "x"\n[homeassistant]\ndiscovery = "on"\nprefix = "house"\n'
    text = f"{rest}[mqtt]\n{table}\n"
    if said is None:
        assert loaded(tmp_path, text).mqtt.topic is not None
    else:
        (problem,) = problems(written(tmp_path, text))
        assert said in str(problem)
