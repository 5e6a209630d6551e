"""The form of recordings: what is written is read again, and what is damaged is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.recording import Entry, RecordingError, header, line, read_entries, read_header

ENTRIES = st.one_of(
    st.builds(Entry, st.just(0.0), st.sampled_from(["rx", "tx"]), st.one_of(st.binary(), st.just(b"t=21.5\r\n"))),
    st.builds(Entry, st.just(0.0), st.sampled_from(["opened", "lost"])),
)


@given(st.lists(ENTRIES))
def test_what_is_written_is_read_again(entries: list[Entry]) -> None:
    timed = [Entry(round(number * 0.37, 6), entry.kind, entry.data) for number, entry in enumerate(entries)]
    assert list(read_entries(map(line, timed))) == timed


def test_text_stays_text() -> None:
    assert line(Entry(1.25, "rx", b'{"t": 1}\r\n')) == '{"t": 1.25, "rx": "{\\"t\\": 1}\\r\\n"}\n'
    assert line(Entry(1.0000004, "tx", b"\xff\x04")) == '{"t": 1.0, "tx_hex": "ff04"}\n'
    assert line(Entry(2, "lost")) == '{"t": 2, "event": "lost"}\n'


def test_the_header_holds_the_device() -> None:
    table = {"name": "außen", "port": "/dev/ttyUSB0"}
    assert read_header(header(table, "2026-11-24T00:00:00Z")) == table


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[1]\n", "nothing\n", '{"recording": 1}\n', '{"recording": 1, "device": 3}\n']
)
def test_what_is_no_recording_is_told(text: str) -> None:
    with pytest.raises(RecordingError, match="line 1"):
        read_header(text)


def test_a_recording_of_a_later_version_is_told() -> None:
    with pytest.raises(RecordingError, match="version 2"):
        read_header('{"recording": 2, "device": {}}\n')


@pytest.mark.parametrize(
    "bad",
    [
        "{\n",
        "[]\n",
        "{}\n",
        '{"t": -1, "rx": ""}\n',
        '{"t": true, "rx": ""}\n',
        '{"t": 1, "rx": 5}\n',
        '{"t": 1, "rx": "°"}\n',
        '{"t": 1, "rx_hex": "f"}\n',
        '{"t": 1, "event": "party"}\n',
        '{"t": 0, "event": "lost"}\n',
        '{"t": 2, "rx": "' + "x" * (1 << 20) + '"}\n',
    ],
)
def test_a_damaged_line_is_named(bad: str) -> None:
    good = line(Entry(1, "rx", b"x"))
    with pytest.raises(RecordingError, match="line 3"):
        list(read_entries([good, bad]))


def test_a_last_line_that_was_cut_ends_it() -> None:
    assert list(read_entries([line(Entry(1, "rx", b"x")), '{"t": 2, "r'])) == [Entry(1, "rx", b"x")]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_header(text)
        list(read_entries(text.splitlines(keepends=True)))
    except RecordingError:
        pass
