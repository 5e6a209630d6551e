"""Whatever the files hold: a configuration or a ConfigError, each problem on its line, and never a secret in it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.config import SECTIONS, Config, load, problems_text
from agent.config_options import toml
from agent.driver import Parser, SerialConfig, StreamDriver
from agent.errors import ConfigError
from agent.registry import Registry


class Serial(StreamDriver):
    """Something on a serial port."""

    Config = SerialConfig

    def parser(self) -> Parser:
        raise NotImplementedError


REGISTRY = Registry.of({"serial": Serial})


def outcome(*files: bytes) -> Config | ConfigError:
    with tempfile.TemporaryDirectory() as directory:
        main, drop_ins = Path(directory, "outstation.toml"), Path(directory, "outstation.d")
        drop_ins.mkdir()
        main.write_bytes(files[0])
        for number, content in enumerate(files[1:]):
            (drop_ins / f"{number}.toml").write_bytes(content)
        try:
            return load(main, REGISTRY)
        except ConfigError as error:
            return error


@given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()), min_size=1, max_size=3))
@example([b"a = 1", b"[a]"])
@example([b"[mqtt.urls]", b"mqtt.urls.x = 1"])
@example([b"device = 1", b"[[device]]"])
@example([b"device = [1, 2]"])
@example([b"device = [[]]"])
@example([b"device = [{}, {name = []}]"])
@example([b'device = [{name = "a", driver = {}}]'])
@example([b"'' = 1\n[mqtt]\n'' = 2"])
@example([b"[mqtt]\nurls = [[[]]]\nalpn = [{}]"])
@example([b'[[device]]\nname = "a"\ndriver = "serial"\nport = "/dev/\\u0000"'])
def test_any_bytes(files: list[bytes]) -> None:
    result = outcome(*files)
    if isinstance(result, ConfigError):
        assert result.problems
        assert all("\n" not in str(problem) and problem.message for problem in result.problems)


KEYS = {name: list(model.model_fields) for name, model in SECTIONS.items()}
PLAIN = (
    st.integers() | st.floats() | st.booleans() | st.text(max_size=5) | st.sampled_from(["1s", "auto", "memory", "5"])
)
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), PLAIN, max_size=2)


def keys(section: str) -> st.SearchStrategy[str]:
    return st.sampled_from(KEYS[section]) | st.sampled_from(["nonsense", "qos", "Interval", "password"])


SECTION = st.sampled_from(sorted(KEYS)).flatmap(
    lambda name: st.tuples(st.just(name), st.dictionaries(keys(name), VALUES, max_size=4))
)
DEVICE_KEYS = ["name", "driver", *SerialConfig.model_fields, "unknown"]
DEVICE = st.tuples(st.just("device"), st.dictionaries(st.sampled_from(DEVICE_KEYS), VALUES, max_size=5))


@given(st.lists(SECTION, max_size=3, unique_by=lambda item: item[0]), st.lists(DEVICE, max_size=2))
def test_each_problem_is_on_the_line_of_its_key(
    sections: list[tuple[str, dict[str, Any]]], devices: list[tuple[str, dict[str, Any]]]
) -> None:
    lines: list[str] = []
    for name, table in sections + devices:
        lines.append(f"[[{name}]]" if name == "device" else f"[{name}]")
        lines += [f"{key} = {toml(value)}" for key, value in table.items()]
    result = outcome("\n".join(lines).encode())
    for problem in result.problems if isinstance(result, ConfigError) else ():
        assert problem.line is not None
        words = lines[problem.line - 1].split(" = ")[0].strip("[]")
        missing = problem.message == "missing"
        # What is missing is reported at the table that should hold it; sections as a whole at their header.
        assert problem.key.startswith("device[") if missing else words in problem.key.replace("device[", "device ")


SECRET = "Xq7-never-shown-9Zk"


@settings(deadline=None)
@given(
    st.sampled_from(["mqtt", "agent", "mqtts", "device"]),
    st.sampled_from(["password", "passwort", "Password", "psk", "token", "mqtt_password", "username", "password_file"]),
    st.sampled_from(['"{}"', "['{}']", "{{ x = '{}' }}", "{{ x = {{ y = '{}' }} }}", "[[1, '{}']]", '"mqtt://a:{}@b"']),
)
def test_no_secret_is_shown(section: str, key: str, form: str) -> None:
    """Under any key that speaks of a secret, and as the password of a URL anywhere."""
    value = form.format(SECRET)
    for text in (
        f"[{section}]\n{key} = {value}\nx = 1\n",
        f"{key} = {value}\n",
        f"[[device]]\nname = 'a'\ndriver = 'serial'\nport = '/dev/x'\n{key} = {value}\n",
        f"[mqtt]\nurls = 'mqtt://a:{SECRET}@b'\nversion = 'x://a:{SECRET}@b'\nbase = 'mqtt://a:{SECRET}@b/+'\n",
        f"[mqtt]\n{key} = {value}\n{key} = 1\n",
        f"[mqtt]\n{key} = {value} 1\n",
    ):
        result = outcome(text.encode())
        if isinstance(result, ConfigError):
            assert SECRET not in "\n".join(problems_text(result)) + str(result) + repr(result.problems)
