"""`outstation outbox` on files made for it: what it shows, that it leaves no trace, and how it refuses."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from agent import cli_outbox_file, cli_outbox_look
from agent.cli import cli
from agent.cli_outbox_file import Progress
from agent.cli_outbox_purge import moment
from agent.clock import Clock, ClockSettings
from agent.model import Reading
from agent.outbox_file import Lock
from agent.outbox_reader import NotAnOutbox, Reader, holder
from agent.outbox_store import Boot, Store

HOUR = 3600 * 10**9
NOW = 1_800_000_000 * 10**9  # 2027-01-15T08:00:00Z
YESTERDAY = Boot("00000000-0000-0000-0000-000000000001", NOW - 24 * HOUR, True)
LONG_AGO = Boot("00000000-0000-0000-0000-000000000002", 0, False)  # a board that believed it was 1970


def outstation(*arguments: str, **options: Any) -> Result:
    return CliRunner(env={"OUTSTATION_CONFIG": None}).invoke(
        cli, ["outbox", *arguments], prog_name="outstation", **options
    )


def fill(path: Path, boot: Boot, readings: list[Reading], *, agent: str | None = "greenhouse-1") -> None:
    """Put readings into an outbox, as an agent in that boot would."""
    store = Store(path)
    store.open(boot)
    store.begin()
    store.insert(readings)
    for device in {reading.device for reading in readings}:
        store.number(device, max(r.seq for r in readings if r.device == device) + 1, clean=device == "meter")
    if agent is not None:
        store.note("agent", agent)
    store.note("saved_wall_ns", NOW - HOUR)
    store.commit()
    store.close()


def readings(device: str, first: int, count: int, *, row: int, mono: int = HOUR) -> list[Reading]:
    return [
        Reading(
            device,
            first + step,
            mono + step * 10**9,
            b'{"n":%d,"unit":"\xc2\xb0C"}' % (first + step),
            resumed=first > 1 and not step,
            row=row + step,
        )
        for step in range(count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "outbox.db"
    fill(path, LONG_AGO, readings("weather", 1, 2, row=1))
    fill(path, YESTERDAY, readings("weather", 1001, 3, row=3) + readings("meter", 1, 1, row=6, mono=2 * HOUR))
    return path


def listing(path: Path) -> list[tuple[str, int, int]]:
    return sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in path.parent.iterdir())


# ---- looking


def test_stats_show_what_waits_and_leave_no_trace(path: Path) -> None:
    before = listing(path)
    result = outstation("stats", "--file", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"file       {path}: ")
    assert lines[1:8] == [
        "in use     by nobody",
        "agent      greenhouse-1",
        "integrity  good, by a quick check",
        "true time  2027-01-15T07:00:00.000000Z, the latest that was noted",
        f"boot       {LONG_AGO.uuid}; its clock was not believed",
        f"boot       {YESTERDAY.uuid}; its clock was believed",
        "readings   6 wait, 129 bytes",
    ]
    assert lines[9:] == [
        "device   readings      bytes  oldest                newest                next seq",
        "meter           1         20  2027-01-14T10:00:00Z  2027-01-14T10:00:00Z  2",
        "weather         5        109  1970-01-01T01:00:00Z  2027-01-14T09:00:02Z  1004 or later",
    ]
    report = json.loads(outstation("stats", "--file", str(path), "--json").stdout)
    assert (report["readings"], report["pid"], report["problems"]) == (6, None, [])
    assert report["devices"][1] == {
        "device": "weather",
        "readings": 5,
        "bytes": 109,
        "oldest": "1970-01-01T01:00:00.000000Z",
        "newest": "2027-01-14T09:00:02.000000Z",
        "first_seq": 1,
        "last_seq": 1003,
        "next_seq": 1004,
        "reserved": True,
    }
    assert listing(path) == before


def test_the_configuration_names_the_file(path: Path) -> None:
    config = path.with_name("outstation.toml")
    config.write_text(f'[outbox]\npath = "{path}"\n')
    assert "6 wait" in outstation("stats", "-c", str(config)).stdout
    result = outstation("stats", "-c", "/nowhere.toml")
    assert result.exit_code == 2
    assert "say --file FILE, or -c FILE" in result.stderr


def test_without_its_environment_the_service_file_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has its outbox in $STATE_DIRECTORY, of which a shell knows nothing."""
    config = path.with_name("outstation.toml")
    config.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(path.parent / "nothing"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(cli_outbox_file, "SERVICE", path)
    result = outstation("stats", "-c", str(config))
    assert result.exit_code == 66
    assert f"no such file; the service's is --file {path}" in result.stderr
    path.unlink()
    assert outstation("stats", "-c", str(config)).stderr.endswith("outbox.db: no such file\n")


def test_peek_shows_the_next_or_the_last(path: Path) -> None:
    first = "1970-01-01T01:00:00.000000Z  weather #1  n 1, unit °C  unsynced\n"
    result = outstation("peek", "--file", str(path), "-n", "1")
    assert (result.exit_code, result.stdout) == (0, f"{first}... 5 more\n")
    result = outstation("peek", "--file", str(path), "-n", "2", "--newest")
    assert result.stdout == (
        "... 4 before\n"
        "2027-01-14T09:00:02.000000Z  weather #1003  n 1003, unit °C\n"
        "2027-01-14T10:00:00.000000Z  meter #1  n 1, unit °C\n"
    )
    result = outstation("peek", "--file", str(path), "-n", "3", "--device", "weather")
    assert result.stdout.splitlines()[2] == "2027-01-14T09:00:00.000000Z  weather #1001  n 1001, unit °C  resumed"
    assert result.stdout.splitlines()[3] == "... 2 more"
    result = outstation("peek", "--file", str(path), "--device", "meter")
    assert len(result.stdout.splitlines()) == 1
    result = outstation("peek", "--file", str(path), "--device", "wether")
    assert result.exit_code == 2
    assert "did you mean" in result.stderr


def test_peek_into_an_empty_outbox(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    fill(path, YESTERDAY, [])
    assert outstation("peek", "--file", str(path)).stdout == "nothing waits\n"
    assert "readings   0 wait" in outstation("stats", "--file", str(path)).stdout
    assert outstation("export", "--file", str(path)).stdout == ""
    assert "is sound: 0 readings" in outstation("verify", "--file", str(path)).stdout


def test_export_is_what_would_be_published(path: Path) -> None:
    before = listing(path)
    result = outstation("export", "--file", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == (
        '{"device":"weather","ts":"1970-01-01T01:00:00.000000Z","seq":1,"fields":{"n":1,"unit":"°C"},'
        '"clock":"unsynced","backfill":true}'
    )
    assert lines[2] == (
        '{"device":"weather","ts":"2027-01-14T09:00:00.000000Z","seq":1001,"fields":{"n":1001,"unit":"°C"},'
        '"resumed":true,"backfill":true}'
    )
    assert [(json.loads(line)["device"], json.loads(line)["seq"]) for line in lines] == (
        [("weather", 1), ("weather", 2), ("weather", 1001), ("weather", 1002), ("weather", 1003), ("meter", 1)]
    )
    assert listing(path) == before
    target = path.with_name("meter.jsonl")
    result = outstation("export", "--file", str(path), "--device", "meter", "-o", str(target))
    assert (result.exit_code, result.output) == (0, "")
    assert target.read_text().splitlines() == [lines[5]]


def test_an_export_that_fails_leaves_no_half_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = outstation("export", "--file", str(path), "-o", "/nowhere/x")
    assert result.exit_code == 74
    assert "/nowhere/x.part: No such file or directory" in result.stderr
    target = path.with_name("x.jsonl")
    target.write_text("old\n")
    payload = cli_outbox_look._payload
    monkeypatch.setattr(cli_outbox_look, "_payload", lambda *a: payload(*a) if a[2].seq != 1003 else 1 / 0)
    result = outstation("export", "--file", str(path), "-o", str(target))
    assert isinstance(result.exception, ZeroDivisionError)
    assert target.read_text() == "old\n"
    assert not list(path.parent.glob("*.part"))


def test_readings_of_the_present_boot_follow_its_clock(tmp_path: Path) -> None:
    """As the agent's would, when it sends them: by the clock as it is now, or by what an earlier process knew."""
    path = tmp_path / "outbox.db"
    boot_id = Clock().boot_id
    fill(path, Boot(boot_id, 5 * HOUR, True), readings("weather", 1, 1, row=1))
    for wall, expected in ((NOW, NOW), (0, 5 * HOUR)):  # the second: set to 1970, which is not believed
        clock = Clock(
            ClockSettings(), mono_ns=lambda: HOUR, wall_now_ns=lambda wall=wall: wall + HOUR, synchronised=lambda: False
        )
        with Reader(path, clock) as reader:
            (reading,) = reader.readings()
            assert reading.wall_ns is None
            if wall:
                assert clock.wall_ns(reading.mono_ns) == expected + HOUR
                assert reader.sums()[0].oldest_ns == expected + HOUR


def test_a_clock_behind_what_was_saved_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    fill(path, Boot(Clock().boot_id, 0, False), readings("weather", 1, 1, row=1))
    for behind, trusted in ((0, True), (240 * HOUR, False)):
        clock = Clock(mono_ns=lambda: HOUR, wall_now_ns=lambda behind=behind: NOW - behind, synchronised=lambda: False)
        with Reader(path, clock) as reader:
            assert clock.trusted() == trusted
            assert reader.boots()[0].trusted == trusted


# ---- beside an agent, and after a crash


def test_it_looks_beside_an_agent_that_writes(path: Path) -> None:
    store = Store(path)
    store.open(YESTERDAY)
    store.begin()
    store.insert(readings("weather", 1004, 1, row=7))
    store.commit()
    assert path.with_name("outbox.db-wal").stat().st_size > 0
    assert len(outstation("export", "--file", str(path)).stdout.splitlines()) == 7
    store.begin()  # an open transaction of the agent's disturbs nobody
    store.delete([1, 2, 3])
    assert len(outstation("export", "--file", str(path)).stdout.splitlines()) == 7
    store.commit()
    assert len(outstation("export", "--file", str(path)).stdout.splitlines()) == 4
    store.close()


def test_an_agent_that_starts_meanwhile_is_noticed(path: Path) -> None:
    """A file at rest is opened as one that never changes."""
    with Reader(path, Clock()) as reader:
        rest = reader.readings()
        assert next(rest).seq == 1
        store = Store(path)
        store.open(YESTERDAY)
        store.begin()
        store.insert(readings("weather", 1004, 1, row=7))
        store.delete([1, 2])
        store.commit()
        assert reader.count() == 5
        store.close()  # which writes the WAL back, and removes it
        assert reader.count() == 5


def crash(path: Path) -> None:
    """Add a reading and end as a crash does: what was committed stands in the -wal alone."""
    if (child := os.fork()) == 0:
        store = Store(path)
        store.open(YESTERDAY)
        store.begin()
        store.insert(readings("weather", 1004, 1, row=7))
        store.commit()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert path.with_name("outbox.db-wal").stat().st_size > 0


def test_after_a_crash_the_wal_counts(path: Path) -> None:
    crash(path)
    before = listing(path)
    assert len(outstation("export", "--file", str(path)).stdout.splitlines()) == 7
    assert [name for name, _, _ in listing(path)] == [name for name, _, _ in before]


@pytest.fixture
def foreign(path: Path) -> Iterator[Path]:
    """A copy in a directory that may be read and not be written to."""
    home = Path(tempfile.mkdtemp(prefix="outstation-test-"))
    crash(path)
    for name in ("outbox.db", "outbox.db-wal"):
        shutil.copyfile(path.with_name(name), home / name)
        (home / name).chmod(0o444)
    home.chmod(0o555)
    yield home / "outbox.db"
    home.chmod(0o755)
    shutil.rmtree(home)


def as_nobody(check: Callable[[], None]) -> None:
    """Run a check in a child without privileges; root may write anywhere."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65_534)
                os.setuid(65_534)
            check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_where_nothing_may_be_written_the_wal_counts_too(foreign: Path) -> None:
    def check() -> None:
        with pytest.raises(PermissionError):
            (foreign.parent / "x").touch()
        with Reader(foreign, Clock()) as reader:
            copy = reader._copy
            assert copy is not None
            assert reader.count() == 7
            assert reader.integrity(quick=False) == []
        assert not Path(copy.name).exists()

    as_nobody(check)
    foreign.parent.chmod(0o755)
    foreign.with_name("outbox.db-wal").unlink()
    foreign.parent.chmod(0o555)

    def check_at_rest() -> None:
        with Reader(foreign, Clock()) as reader:
            assert reader.count() == 6

    as_nobody(check_at_rest)


# ---- refusals


@pytest.mark.parametrize("command", ["stats", "peek", "export", "verify", "purge", "drain"])
def test_what_is_no_outbox_is_refused_in_one_line(command: str, path: Path) -> None:
    more = {"purge": ["--before", "7d"], "drain": ["--url", "mqtt://127.0.0.1:1"]}.get(command, [])

    def refused(file: Path, status: int, words: str) -> None:
        before = file.read_bytes() if file.is_file() else b""
        result = outstation(command, "--file", str(file), *more)
        assert (result.exit_code, result.stdout) == (status, ""), result.output
        assert result.stderr.startswith("outstation outbox: ")
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert (file.read_bytes() if file.is_file() else b"") == before

    refused(path.with_name("missing.db"), 66, "no such file")
    refused(path.parent, 66, "cannot be read (Is a directory)")
    text = path.with_name("text.db")
    text.write_text("not a database, but long enough to be taken for one")
    refused(text, 65, "is not an outbox: it is no database")
    other = path.with_name("other.db")
    sqlite3.connect(other).executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1)").close()
    refused(other, 65, "it is a database of some other program")
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    refused(path, 65, "of a newer version (schema 9, this one knows 1); use that version's command")
    assert not list(path.parent.glob("*.lock"))


@pytest.mark.parametrize("arguments", [["purge", "--before", "7d"], ["drain", "--url", "mqtt://127.0.0.1:1"]])
def test_what_changes_the_file_is_refused_while_somebody_has_it(arguments: list[str], path: Path) -> None:
    lock = Lock(path)
    assert holder(path) is None
    lock.take()
    try:
        result = outstation(*arguments, "--file", str(path))
        assert result.exit_code == 75
        assert result.stderr == f"outstation outbox: {path} is in use by process {os.getpid()}; stop it first\n"
        assert f"in use     by process {os.getpid()}" in outstation("stats", "--file", str(path)).stdout
        assert holder(path) == str(os.getpid())
    finally:
        lock.release()
    assert holder(path) is None


def test_drain_takes_the_form_of_the_configuration_and_refuses_bare_values(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "outstation.toml"
    config.write_text(f'[mqtt]\nformat = "values"\n[outbox]\npath = "{path}"\n')
    arguments = ["drain", "-c", str(config), "--url", "mqtt://127.0.0.1:1"]
    result = outstation(*arguments)
    assert result.exit_code == 2
    assert "bare values would not say of when they are; choose another --format" in result.stderr
    assert outstation(*arguments, "--format", "json").exit_code == 69, "asked for the broker"


def damage(path: Path) -> None:
    """Spoil the pages of the readings: zeros from the middle to the end."""
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def test_a_damaged_file_is_told_by_all(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    fill(path, YESTERDAY, readings("weather", 1, 2000, row=1))
    assert outstation("verify", "--file", str(path)).stdout == f"{path} is sound: 2000 readings\n"
    damage(path)
    result = outstation("verify", "--file", str(path))
    assert result.exit_code == 1
    assert "is DAMAGED; the agent sets it aside" in result.stdout
    result = outstation("stats", "--file", str(path))
    assert result.exit_code == 1
    assert "integrity  DAMAGED" in result.stdout
    result = outstation("export", "--file", str(path))
    assert result.exit_code == 65
    assert "start the agent: it sets it aside and saves what can be read of it" in result.stderr


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE reading SET seq = 1001 WHERE id = 4", "reading 4, weather #1001: comes after #1001"),
        ("UPDATE reading SET seq = 2000 WHERE id = 5", "reading 5, weather #2000: the next number to be given is 1004"),
        ("UPDATE reading SET seq = 'x' WHERE id = 5", "reading 5, weather #x: its number is none"),
        ("UPDATE reading SET body = '[1]' WHERE id = 6", "reading 6, meter #1: its fields are no JSON object"),
        ("UPDATE reading SET body = '{' WHERE id = 6", "reading 6, meter #1: its fields are no JSON object"),
        ("UPDATE reading SET boot = 9 WHERE id = 6", "reading 6, meter #1: its boot is not in the file"),
        ("UPDATE reading SET device = 9 WHERE id = 6", "reading 6, device 9 #1: its device is not in the file"),
    ],
)
def test_what_verify_finds(path: Path, sql: str, words: str) -> None:
    db = sqlite3.connect(path)
    db.execute(sql)
    db.commit()
    db.close()
    result = outstation("verify", "--file", str(path))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == words


def test_verify_lists_the_first_of_many_troubles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_outbox_look, "SHOWN", 2)
    db = sqlite3.connect(path)
    db.execute("UPDATE reading SET boot = 9")
    db.commit()
    db.close()
    lines = outstation("verify", "--file", str(path)).stdout.splitlines()
    assert lines[2] == "... and 4 more"
    with Reader(path, Clock()) as reader, pytest.raises(NotAnOutbox, match=r"reading 1 makes no sense"):
        next(reader.readings())
    assert "unknown" not in outstation("stats", "--file", str(path)).stdout


# ---- purge


def test_purge_asks_removes_and_counts(path: Path) -> None:
    before = "2027-01-14T09:00:02Z"
    result = outstation("purge", "--file", str(path), "--before", before, input="n\n")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "weather: 4\nremove 4 taken before 2027-01-14T09:00:02.000000Z? They are lost then [y/N]: "
    )
    assert "6 wait" in outstation("stats", "--file", str(path)).stdout
    result = outstation("purge", "--file", str(path), "--before", before, input="y\n")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "removed 4")
    left = outstation("export", "--file", str(path)).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in left] == [1003, 1]
    result = outstation("purge", "--file", str(path), "--before", before, "--yes")
    assert result.stdout == "nothing was taken before 2027-01-14T09:00:02.000000Z\n"
    result = outstation("purge", "--file", str(path), "--before", "2030-01-01T00:00:00Z", "--device", "meter", "--yes")
    assert result.stdout == "meter: 1\nremoved 1\n"
    result = outstation("purge", "--file", str(path), "--before", "2030-01-01T00:00:00Z", "--yes")
    assert result.stdout == "weather: 1\nremoved 1\n"
    report = json.loads(outstation("stats", "--file", str(path), "--json").stdout)
    assert [device["next_seq"] for device in report["devices"]] == [2, 1004]  # numbers are never given twice
    assert (report["readings"], report["agent"]) == (0, "greenhouse-1")


def test_purge_knows_the_present_boot(tmp_path: Path) -> None:
    path, clock = tmp_path / "outbox.db", Clock()
    boot = Boot(clock.boot_id, clock.offset_ns, True)
    fill(path, boot, [Reading("weather", 1, clock.mono_ns(), b"{}", row=1)])
    result = outstation("purge", "--file", str(path), "--before", "1h", "--yes")
    assert result.stdout.startswith("nothing was taken before 20")
    assert outstation("purge", "--file", str(path), "--before", "0s", "--yes").stdout == "weather: 1\nremoved 1\n"


def test_purge_of_many_takes_several_commits(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    fill(path, YESTERDAY, readings("weather", 1, 2500, row=1))
    size = path.stat().st_size
    result = outstation("purge", "--file", str(path), "--before", "2027-01-14T10:00:00Z", "--yes")
    assert result.stdout == "weather: 2500\nremoved 2500\n"
    assert path.stat().st_size < size / 2


def test_what_root_changes_stays_the_agents(path: Path) -> None:
    """A lock file or a -wal of root's would keep the agent's user from its own outbox."""
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534)
    owner = path.stat().st_uid
    assert outstation("purge", "--file", str(path), "--before", "2027-01-14T09:00:02Z", "--yes").exit_code == 0
    crash(path)
    assert outstation("purge", "--file", str(path), "--before", "2030-01-01T00:00:00Z", "--yes").exit_code == 0
    assert {file.name for file in path.parent.iterdir()} == {"outbox.db", "outbox.db.lock"}
    assert {file.stat().st_uid for file in path.parent.iterdir()} == {owner}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - 2 * HOUR),
        ("1d", NOW - 24 * HOUR),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00:00.25Z", NOW + 250_000_000),
        ("2027-01-15 09:00:00+01:00", NOW),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2027-01-15", "2027-01-15T08:00:00", "-1d", "2027-13-15T08:00:00Z"])
def test_no_times(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a time as 2026"):
        moment(text, NOW)


# ---- progress


def test_the_bar_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, "sending") as progress:
        progress.add(50)
        progress.say("a line")
    assert capsys.readouterr().err == "a line\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress(100, "sending") as progress:
        progress.add(50)
        progress.say("a line")
        progress.add(50)
    text = capsys.readouterr().err
    assert "sending" in text
    assert "50%" in text
    assert "100%" in text
    assert "\r\x1b[Ka line\n" in text
