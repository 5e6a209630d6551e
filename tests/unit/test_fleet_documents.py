"""Documents, what is kept of them, and layers over files: pure, and without a broker."""

from __future__ import annotations

import base64
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, load
from agent.errors import ConfigError, FleetError
from agent.fleet_document import CONTEXT, HIGHEST, LONGEST, Document, Target, parse_target, sign, target_of, verify
from agent.fleet_settings import KEY_SCHEME, key_id, parse_key
from agent.fleet_state import FleetState, Layer, alive, own_process, read_state, state_path
from agent.registry import discover

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
PUBLIC = KEY_SCHEME + base64.b64encode(RAW).decode()
KEYS = {key_id(RAW): RAW}
GREEN, OWN = Target("group", "green"), Target("agent", "a")
DOCUMENT = Document(GREEN, 7, "2026-11-24T22:00:00Z", "[mqtt]\nqos = 2\n", ("a", "b"))
MESSAGE = sign(DOCUMENT, KEY, key_id(RAW))


def signed(payload: object) -> bytes:
    data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    signature = base64.b64encode(KEY.sign(CONTEXT + data)).decode()
    return orjson.dumps({"payload": base64.b64encode(data).decode(), "key": key_id(RAW), "sig": signature})


def test_a_document_comes_back_as_it_was_signed() -> None:
    assert verify(MESSAGE, KEYS) == DOCUMENT
    assert verify(MESSAGE, {"0" * 16: b"\0" * 32, **KEYS}) == DOCUMENT, "several keys are trusted while one is replaced"


@given(st.data())
def test_no_changed_byte_gives_another_document(data: st.DataObject) -> None:
    changed = bytearray(MESSAGE)
    changed[data.draw(st.integers(0, len(MESSAGE) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert verify(bytes(changed), KEYS) == DOCUMENT  # the same byte, or a bit that base64 pads with
    except FleetError as error:
        assert error.reason in ("malformed", "unsigned", "unknown_key", "bad_signature")  # noqa: PT017


@given(st.binary(max_size=200))
def test_noise_is_no_document_signed_or_not(noise: bytes) -> None:
    for message in (noise, signed(noise)):
        with pytest.raises(FleetError):
            verify(message, KEYS)


GOOD = {"target": "agent/a", "version": 1, "issued": "2026-11-24T22:00:00Z", "config": ""}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"version": HIGHEST + 1}, "version"),
        ({"version": "7"}, "version"),
        ({"issued": "yesterday"}, "issued"),
        ({"config": {}}, "config"),
        ({"target": "agent/a/b"}, "no target"),
        ({"target": "all"}, "no target"),
        ({"only": []}, "names no agent"),
        ({"only": ["a/b"]}, "list of at most"),
        ({"run": "id"}, "the payload has run"),
    ],
    ids=str,
)
def test_a_signed_payload_is_looked_at_all_the_same(change: dict[str, object], said: str) -> None:
    with pytest.raises(FleetError, match=said):
        verify(signed({**GOOD, **change}), KEYS)
    assert verify(signed(GOOD), KEYS).target == OWN


def test_a_signature_of_the_payload_alone_is_none() -> None:
    payload = orjson.dumps(GOOD)
    table = orjson.loads(signed(payload)) | {"sig": base64.b64encode(KEY.sign(payload)).decode()}
    with pytest.raises(FleetError, match="signature"):
        verify(orjson.dumps(table), KEYS)


def test_what_is_too_long_is_neither_signed_nor_read() -> None:
    with pytest.raises(FleetError, match="split it"):
        sign(Document(GREEN, 1, "2026-11-24T22:00:00Z", "#" * LONGEST), KEY, key_id(RAW))
    with pytest.raises(FleetError, match="at most"):
        verify(b"x" * (LONGEST + 1), KEYS)


def test_topics_and_targets() -> None:
    assert target_of("plant/outstation", GREEN.topic("plant/outstation")) == GREEN
    assert target_of("outstation", "outstation/fleet/group") is None
    assert target_of("outstation", "outstation/a/fleet") is None
    assert parse_target("agent/a") == OWN


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:" + PUBLIC[8:], PUBLIC[8:], PUBLIC + "="])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ValueError, match="keygen"):
        parse_key(text)
    assert parse_key(PUBLIC) == RAW


# ---- what is kept


def test_a_trial_is_in_force_while_its_process_lives(tmp_path: Path) -> None:
    path = tmp_path / "outbox.fleet.json"
    state = FleetState().tried(DOCUMENT, own_process())
    path.write_bytes(state.encode())
    assert read_state(path) == state
    assert state.in_force() == {"group/green": Layer(7, DOCUMENT.issued, DOCUMENT.config)}
    boot, pid, start = own_process().split(":")
    for gone in (f"{boot}:{pid}:{int(start) - 1}", f"0{boot[1:]}x:{pid}:{start}", f"{boot}:4194304:{start}", "", "x"):
        assert not alive(gone)
        assert FleetState().tried(DOCUMENT, gone).in_force() == {}
    back = state.rolled_back("why")
    assert (back.in_force(), back.seen["group/green"].state, back.seen["group/green"].version) == ({}, "rolled_back", 7)
    assert state.confirmed().in_force() == state.in_force()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format":2}', b'{"format":1,"layers":{"a":1},"seen":{}}'])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(FleetError) as caught:
        read_state(path)
    assert caught.value.reason == "damaged"


# ---- layers


def layered(tmp_path: Path, **layers: str) -> Config:
    path = tmp_path / "outstation.toml"
    path.write_text(
        f'[agent]\nid = "a"\n[fleet]\nenabled = true\nkeys = ["{PUBLIC}"]\ngroups = ["one", "two"]\n'
        f'[outbox]\npath = "{tmp_path}/outbox.db"\n[mqtt]\nqos = 0\nbatch = 2\n'
        '[[device]]\nname = "w"\ndriver = "lines"\nport = "/dev/ttyA"\nformat = "json"\nbaudrate = 300\n'
        '[[device]]\nname = "sh"\ndriver = "exec"\ncommand = ["id"]\nformat = "json"\n'
    )
    names = {name.replace("_", "/", 1): text for name, text in layers.items()}
    kept = FleetState({name: Layer(7, DOCUMENT.issued, text) for name, text in names.items()})
    state_path(tmp_path / "outbox.db").write_bytes(kept.encode())
    return load(path, discover([]))


def test_the_board_s_own_counts_more_than_its_groups_and_they_more_than_files(tmp_path: Path) -> None:
    config = layered(
        tmp_path,
        agent_a="[mqtt]\nqos = 2\n",
        group_two='[mqtt]\nqos = 1\nbatch = 4\n[[device]]\nname = "w"\nbaudrate = 1200\n',
        group_one='[mqtt]\nqos = 1\nbatch = 3\ninflight = 9\n[[device]]\nname = "w"\nbaudrate = 600\n',
        group_other="[mqtt]\nqos = 7\n",
        agent_b="[mqtt]\nqos = 7\n",
    )
    assert (config.mqtt.qos, config.mqtt.batch, config.mqtt.inflight) == (2, 4, 9)
    assert [d.config.name for d in config.devices] == ["w", "sh"]
    assert config.devices[0].config.model_dump()["baudrate"] == 1200
    assert ("device[0].baudrate" in {key for key, _, _ in config.overridden}) is True


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ('[agent]\nid = "b"\n', "fleet:agent/a@7:2: agent.id: a layer of the fleet cannot change it"),
        ('[outbox]\npath = "x"\n', "fleet:agent/a@7:2: outbox.path"),
        ('mqtt.base = "x"\n', "fleet:agent/a@7:1: mqtt.base"),
        ("[fleet]\nenabled = false\n", "fleet:agent/a@7:1: fleet"),
        ('[[device]]\nname = "sh"\ncommand = ["rm"]\n', "fleet:agent/a@7:1: device[0]: its driver stands in"),
        ('[[device]]\nname = "w"\ndriver = "exec"\n', "deny_drivers"),
        ('[[device]]\nname = "n"\ndriver = "exec"\ncommand = ["id"]\nformat = "json"\n', "deny_drivers"),
        ("[mqtt", "fleet:agent/a@7:1: not TOML"),
        ('[[device]]\nname = "w"\nbaudrate = "x"\n', "fleet:agent/a@7:3: device[w].baudrate"),
        ("device = 3\n", "a list of tables is due"),
    ],
)
def test_what_no_layer_can_say_is_a_problem_with_its_line(tmp_path: Path, layer: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        layered(tmp_path, agent_a=layer)
    assert said in str(caught.value)


def test_layers_that_do_not_fit_are_set_aside_where_the_files_are_good(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        layered(tmp_path, agent_a="[mqtt]\nqos = 7\n")
    path = tmp_path / "outstation.toml"
    config = load(path, discover([]), set_aside=True)
    assert config.mqtt.qos == 0
    assert "fleet:agent/a@7:2" in str(config.set_aside[0])
    path.write_text(path.read_text().replace("qos = 0", "qos = 8"))
    with pytest.raises(ConfigError, match="qos = 8"):
        load(path, discover([]), set_aside=True)
