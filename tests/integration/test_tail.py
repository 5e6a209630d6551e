"""The tail driver on real files: growing, renamed, truncated, removed, not there yet."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from streams import Station, station

from agent.driver import PortError
from agent.ports_tail import open_tail
from drivers.tail import Tail, TailConfig


class Log:
    """A file, and a program that has it open for appending."""

    def __init__(self, path: Path, text: str = "") -> None:
        self.path = path
        self.writer = path.open("a")
        self.write(text)

    def write(self, text: str) -> None:
        self.writer.write(text)
        self.writer.flush()

    def reopen(self) -> None:
        self.writer.close()
        self.writer = self.path.open("a")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "data.log", "1\n2\n")
    yield made
    made.writer.close()


@pytest.fixture
def at() -> Iterator[Station]:
    with station() as made:
        yield made


def watch(at: Station, log: Log, **options: str) -> None:
    at.add(Tail, path=str(log.path), format="scalar", **options)
    at.start()
    at.until(lambda: at.state() == "online")


def test_it_begins_at_the_end_and_reads_what_is_written(at: Station, log: Log) -> None:
    watch(at, log)
    log.write("3\n4")
    log.write("5\n")
    at.until(lambda: at.values() == [3, 45])
    log.write("6\n")
    at.until(lambda: at.values() == [3, 45, 6])
    assert at.faults() == {}


def test_it_begins_at_the_beginning_and_reads_much_in_order(at: Station, log: Log) -> None:
    log.write("".join(f"{n}\n" for n in range(3, 40_000)))  # four times what one turn reads
    watch(at, log, begin="beginning")
    at.until(lambda: len(at.readings) == 39_999)
    assert at.values() == list(range(1, 40_000))


def test_of_a_renamed_file_nothing_is_lost_however_late_its_writer_moves(at: Station, log: Log) -> None:
    watch(at, log)
    log.write("3\n")
    log.path.rename(log.path.with_suffix(".1"))
    log.write("4\n")
    log.path.touch()  # logrotate's `create`; its SIGHUP comes later
    at.settle()
    log.write("5\n")
    at.until(lambda: at.values() == [3, 4, 5])
    at.settle()  # at rest, so that each write must be told of
    log.reopen()
    log.write("6\n")
    at.until(lambda: at.values() == [3, 4, 5, 6])
    at.settle()
    log.write("7\n")
    at.until(lambda: at.values() == [3, 4, 5, 6, 7])
    assert at.faults() == {}
    assert at.supervisor.devices["d"].openings == 1


def test_many_rotations_between_two_turns_lose_nothing_of_the_old_and_the_newest(at: Station, log: Log) -> None:
    watch(at, log)
    log.write("3\n")
    log.path.rename(log.path.with_suffix(".1"))
    log.reopen()
    log.write("4\n")
    at.until(lambda: at.values() == [3, 4])
    for n in range(5, 30):
        log.path.rename(log.path.with_suffix(".1"))
        log.reopen()
        log.write(f"{n}\n")
        at.until(lambda n=n: at.values()[-1] == n)
    assert at.values() == list(range(3, 30))


def test_half_a_line_does_not_go_on_in_the_next_file(at: Station, log: Log) -> None:
    watch(at, log)
    log.write("3\n4")
    log.path.rename(log.path.with_suffix(".1"))
    log.reopen()
    log.write("5\n")
    at.until(lambda: at.values() == [3, 5])
    assert at.faults() == {"cut": 1}


def test_a_truncated_file_is_read_anew(at: Station, log: Log) -> None:
    watch(at, log)
    log.write("3\n")
    at.until(lambda: at.values() == [3])
    os.truncate(log.path, 0)  # copytruncate
    at.settle()
    log.write("4\n")
    at.until(lambda: at.values() == [3, 4])
    assert at.faults() == {}


def test_a_file_that_was_removed_is_waited_for(at: Station, log: Log) -> None:
    watch(at, log)
    log.write("3\n")
    log.path.unlink()
    log.write("4\n")
    at.until(lambda: at.values() == [3, 4])
    log.reopen()
    log.write("5\n")
    at.until(lambda: at.values() == [3, 4, 5])


def test_a_link_that_is_pointed_elsewhere_is_a_rotation(at: Station, log: Log) -> None:
    link = log.path.with_name("current")
    link.symlink_to(log.path)
    at.add(Tail, path=str(link), format="scalar")
    at.start()
    at.until(lambda: at.state() == "online")
    log.write("3\n")
    other = Log(log.path.with_name("other"), "4\n")
    (log.path.with_name("new")).symlink_to(other.path)
    log.path.with_name("new").rename(link)
    at.until(lambda: at.values() == [3, 4])
    other.write("5\n")
    at.until(lambda: at.values() == [3, 4, 5])
    other.writer.close()


def test_a_file_that_is_not_there_yet_is_read_from_its_beginning_as_soon_as_it_is(at: Station, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    at.add(Tail, path=str(folder / "data.log"), format="scalar")
    at.start()
    at.until(lambda: at.state() == "waiting")
    folder.mkdir(parents=True)
    log = Log(folder / "data.log", "1\n2\n")
    at.until(lambda: at.values() == [1, 2])
    log.writer.close()


def test_what_cannot_be_followed_is_told_with_a_remedy(tmp_path: Path) -> None:
    def refusal(path: Path) -> PortError:
        with pytest.raises(PortError) as caught:
            open_tail(str(path), True)
        return caught.value

    before = len(os.listdir("/proc/self/fd"))
    assert refusal(tmp_path / "gone").reason == "missing"
    assert "no regular file" in str(refusal(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    assert "cat it" in refusal(tmp_path / "fifo").remedy
    port = open_tail(__file__, True)
    port.close()
    port.close()
    assert port.fileno() == -1
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("path", ["relative.log", "/var/log/", "", "/a\0b"])
def test_a_path_is_whole(path: str) -> None:
    with pytest.raises(ValidationError, match="give the whole path"):
        TailConfig(name="d", driver="tail", format="scalar", path=path)


def test_a_file_at_rest_costs_no_turns(log: Log) -> None:
    port = open_tail(str(log.path), False)

    def rests() -> bool:
        said = [port.read() for _ in range(3) if select.select([port], [], [], 0)[0]]
        return said[-1:] in ([], [b""]) and not select.select([port], [], [], 0)[0]

    assert port.read() == b"1\n2\n"
    assert rests()
    log.path.rename(log.path.with_suffix(".1"))
    assert rests()
    log.path.touch()
    assert rests()
    log.path.unlink()
    assert rests()
    port.close()
