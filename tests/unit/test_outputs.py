"""What a command may say, and what an output takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.outputs import LONGEST, Command, CommandError, Output, parse_command

SWITCH = Output("relay")
NUMBER = Output("level", "number", "%", 0, 100)
WHOLE = Output("register", "number", low=-5, whole=True)
TEXT = Output("display", "text", longest=5)
MODE = Output("mode", "text", choices=("eco", "boost"))
BUTTON = Output("calibrate", "button")


def given_to(output: Output, payload: bytes) -> object:
    command = parse_command(payload)
    return output.checked(command.value, command.text)


@pytest.mark.parametrize(
    ("output", "payload", "value"),
    [
        (SWITCH, b"on", True),
        (SWITCH, b" OFF\n", False),
        (SWITCH, b"true", True),
        (SWITCH, b"0", False),
        (SWITCH, b'{"value": "On"}', True),
        (SWITCH, b'{"value": false, "transaction": 7}', False),
        (NUMBER, b"21.5", 21.5),
        (NUMBER, b"100", 100),
        (NUMBER, b'{"value": 0}', 0),
        (WHOLE, b"3.0", 3),
        (WHOLE, b"-5", -5),
        (TEXT, b"12", "12"),
        (TEXT, b"hallo", "hallo"),
        (TEXT, b'{"value": "a b"}', "a b"),
        (MODE, b"eco", "eco"),
        (BUTTON, b"PRESS", None),
        (BUTTON, b'{"transaction": "x"}', None),
    ],
)
def test_what_is_taken(output: Output, payload: bytes, value: object) -> None:
    found = given_to(output, payload)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("output", "payload", "why"),
    [
        (SWITCH, b"maybe", 'on or off is due (also true, false, 1, 0), not "maybe"'),
        (SWITCH, b"2", "on or off is due (also true, false, 1, 0), not 2"),
        (SWITCH, b"1.0", "on or off is due (also true, false, 1, 0), not 1.0"),
        (SWITCH, b'{"transaction": 1}', "on or off is due (also true, false, 1, 0), not null"),
        (NUMBER, b"100.5", "100.5 is out of range: at least 0 and at most 100 %"),
        (NUMBER, b"-1", "-1 is out of range: at least 0 and at most 100 %"),
        (WHOLE, b"-6", "-6 is out of range: at least -5"),
        (NUMBER, b"on", 'a number is due, not "on"'),
        (NUMBER, b"true", "a number is due, not true"),
        (NUMBER, b"NaN", 'a number is due, not "NaN"'),
        (NUMBER, b'{"value": "7"}', 'a number is due, not "7"'),
        (WHOLE, b"0.5", "a whole number is due, not 0.5"),
        (TEXT, b"hallo!", "text of at most 5 characters is due, not 6"),
        (TEXT, b'{"value": 5}', "text is due, not 5"),
        (MODE, b"warm", '"warm" is not one of eco, boost'),
        (BUTTON, b"1", 'a button is pressed: "press", not 1'),
        (SWITCH, b"", "an empty message sets nothing"),
        (BUTTON, b" \n", "an empty message sets nothing"),
        (SWITCH, b"\xff", "it is not UTF-8"),
        (SWITCH, b"[true]", 'a value is due, or an object as {"value": 1, "transaction": "a1"}; not a list'),
        (SWITCH, b"x" * (LONGEST + 1), "4097 bytes are too long; at most 4096"),
        (SWITCH, b'{"value": true, "for": 5}', "unknown: for; there are value and transaction"),
        (SWITCH, b'{"value": [1]}', "value is a string, a number, true or false"),
        (SWITCH, b'{"value": 1, "transaction": [1]}', "transaction is a string or a number of at most 256 bytes"),
    ],
)
def test_what_is_refused_and_why(output: Output, payload: bytes, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its text is compared below)
        given_to(output, payload)
    assert str(caught.value) == why


def test_half_an_object_is_told_as_such() -> None:
    with pytest.raises(CommandError, match="not JSON: "):
        parse_command(b'{"value": tru')


def test_the_transaction_comes_back_with_what_is_wrong_beside_it() -> None:
    assert parse_command(b'{"value": 1, "transaction": "a1"}') == Command(1, None, "a1")
    with pytest.raises(CommandError) as caught:
        parse_command(b'{"value": {}, "transaction": 9}')
    assert caught.value.transaction == 9


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    try:
        command = parse_command(payload)
    except CommandError:
        return
    for output in (SWITCH, NUMBER, WHOLE, TEXT, MODE, BUTTON):
        try:
            value = output.checked(command.value, command.text)
        except ValueError:
            continue
        assert output.checked(value) == value, "what was taken is taken again"
