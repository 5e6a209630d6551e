"""PathWatch on real directories: the kernel is the one part that a fake would get wrong."""

from __future__ import annotations

import errno
import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import hotplug, hotplug_uevent
from agent.hotplug import PathWatch
from agent.hotplug_uevent import added


@pytest.fixture
def watch() -> Iterator[PathWatch]:
    watch = PathWatch()
    yield watch
    watch.close()


def ready(watch: PathWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])


def test_a_missing_path_is_reported_when_it_is_made_or_moved_in_and_others_are_not(
    watch: PathWatch, tmp_path: Path
) -> None:
    watch.add(str(tmp_path / "ttyUSB0"), "a")
    watch.add(str(tmp_path / "ttyUSB1"), "b")
    assert watch.read() == set()
    (tmp_path / "else").touch()
    assert watch.read() == set()
    (tmp_path / "ttyUSB0").touch()
    assert ready(watch)
    assert watch.read() == {"a"}
    assert not ready(watch)
    (tmp_path / "else").rename(tmp_path / "ttyUSB1")
    assert watch.read() == {"b"}


def test_a_change_of_permission_is_reported_a_removal_is_not_and_a_return_is(watch: PathWatch, tmp_path: Path) -> None:
    path = tmp_path / "ttyUSB0"
    path.touch(mode=0o600)
    watch.add(str(path), "a")
    path.chmod(0o660)
    assert watch.read() == {"a"}
    path.unlink()
    assert watch.read() == set()
    path.touch()
    assert watch.read() == {"a"}


def test_directories_that_are_made_one_by_one_are_followed(watch: PathWatch, tmp_path: Path) -> None:
    path = tmp_path / "serial" / "by-id" / "usb-x"
    watch.add(str(path), "a")
    path.parent.parent.mkdir()
    assert watch.read() == set()
    path.parent.mkdir()
    assert watch.read() == set()
    path.touch()
    assert watch.read() == {"a"}


def test_directories_that_are_made_at_once_are_not_overtaken(watch: PathWatch, tmp_path: Path) -> None:
    path = tmp_path / "serial" / "by-id" / "usb-x"
    watch.add(str(path), "a")
    path.parent.mkdir(parents=True)
    path.touch()
    assert watch.read() == {"a"}, "by-id was made before anybody could watch it"


def test_a_directory_that_is_made_while_its_parent_is_being_watched_is_not_missed(
    watch: PathWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "by-id" / "usb-x"
    real = hotplug.Inotify.add

    def overtaken(self: hotplug.Inotify, directory: str) -> int:
        path.parent.mkdir(exist_ok=True)
        return real(self, directory)

    monkeypatch.setattr(hotplug.Inotify, "add", overtaken)
    watch.add(str(path), "a")
    path.touch()
    assert watch.read() == {"a"}


def test_a_link_counts_once_both_it_and_its_target_are_there(watch: PathWatch, tmp_path: Path) -> None:
    link = tmp_path / "serial" / "by-id" / "usb-x"
    node = tmp_path / "ttyUSB0"
    watch.add(str(link), "a")
    link.parent.mkdir(parents=True)
    link.symlink_to("../../ttyUSB0")
    assert watch.read() == set(), "it points to nothing"
    node.touch()
    assert watch.read() == {"a"}
    node.chmod(0o600)
    assert watch.read() == {"a"}
    node.unlink()
    link.unlink()
    watch.read()
    (tmp_path / "ttyUSB1").touch()
    link.symlink_to("../../ttyUSB1")
    assert watch.read() == {"a"}, "the same device under another number"


@pytest.mark.parametrize("away", ["removed", "renamed"])
def test_a_directory_that_goes_and_comes_back_is_watched_again(watch: PathWatch, tmp_path: Path, away: str) -> None:
    path = tmp_path / "by-id" / "usb-x"
    path.parent.mkdir()
    path.touch()
    watch.add(str(path), "a")
    for _ in range(3):
        if away == "removed":
            shutil.rmtree(path.parent)
        else:
            path.parent.rename(tmp_path / f"old-{os.urandom(4).hex()}")
        assert watch.read() == set()
        path.parent.mkdir()
        assert watch.read() == set()
        path.touch()
        assert watch.read() == {"a"}


def test_what_nobody_watches_any_more_wakes_nobody(watch: PathWatch, tmp_path: Path) -> None:
    watch.add(str(tmp_path / "x"), "a")
    watch.add(str(tmp_path / "y"), "b")
    watch.remove("a")
    (tmp_path / "x").touch()
    assert watch.read() == set()
    watch.remove("b")
    watch.remove("b")
    watch.read()  # the kernel confirms that the last watch is gone
    (tmp_path / "y").touch()
    assert not ready(watch)


def test_two_tokens_on_one_path_and_a_token_that_moves(watch: PathWatch, tmp_path: Path) -> None:
    watch.add(str(tmp_path / "x"), "a")
    watch.add(str(tmp_path / "x"), "b")
    watch.add(str(tmp_path / "y"), "a")
    (tmp_path / "x").touch()
    assert watch.read() == {"b"}
    (tmp_path / "y").touch()
    assert watch.read() == {"a"}


def test_a_loop_of_links_and_a_file_in_the_way_end(watch: PathWatch, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("l")
    watch.add(str(tmp_path / "l" / "x"), "loop")
    (tmp_path / "f").touch()
    watch.add(str(tmp_path / "f" / "x"), "file")
    (tmp_path / "f").unlink()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").touch()
    assert watch.read() == {"file"}


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("inotify_init1", errno.EMFILE, "max_user_instances"),
        ("inotify_add_watch", errno.ENOSPC, "max_user_watches"),
    ],
)
def test_the_limits_of_inotify_are_named_and_the_rest_goes_on(
    watch: PathWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, said: str
) -> None:
    real = hotplug.Inotify._call

    def refuse(self: hotplug.Inotify, name: str, *args: object) -> int:
        if name == function:
            raise OSError(code, os.strerror(code))
        return real(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(hotplug.Inotify, "_call", refuse)
        watch.add(str(tmp_path / "x"), "a")
    assert watch.degraded is not None
    assert said in watch.degraded
    assert not ready(watch)
    assert watch.read() == set()
    watch.add(str(tmp_path / "x"), "a")
    assert watch.degraded is None
    (tmp_path / "x").touch()
    assert watch.read() == {"a"}


def test_lost_events_count_as_a_change_of_every_path(
    watch: PathWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").touch()
    watch.add(str(tmp_path / "x"), "here")
    watch.add(str(tmp_path / "y"), "missing")
    monkeypatch.setattr(hotplug.Inotify, "read", lambda _: iter([(-1, 0x4000, "")]))
    assert watch.read() == {"here"}


def test_ten_thousand_events_need_few_calls_and_lose_nothing(watch: PathWatch, tmp_path: Path) -> None:
    watch.add(str(tmp_path / "x"), "a")
    for n in range(5000):
        (tmp_path / f"noise-{n}").touch()
    (tmp_path / "x").touch()
    calls, found = 0, set[str]()
    while ready(watch):
        found |= watch.read()
        calls += 1
    assert found == {"a"}
    assert calls <= 20


def test_it_refuses_a_path_that_depends_on_where_we_are(watch: PathWatch) -> None:
    with pytest.raises(ValueError, match="absolute"):
        watch.add("ttyUSB0", "a")


def test_closing_twice_and_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    watch = PathWatch()
    watch.add("/nowhere/x", "a")
    watch.close()
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before


# ---- names that begin so, and the kernel's own messages


def test_any_port_that_appears_is_reported_where_the_name_is_not_known_before(watch: PathWatch, tmp_path: Path) -> None:
    watch.add(str(tmp_path / "tty*"), "usb")
    watch.add(str(tmp_path / "ttyUSB0"), "path")
    (tmp_path / "video0").touch()
    assert watch.read() == set()
    (tmp_path / "ttyUSB7").touch()
    assert watch.read() == {"usb"}
    (tmp_path / "ttyUSB7").unlink()
    assert watch.read() == set()
    (tmp_path / "ttyUSB0").touch()
    assert watch.read() == {"usb", "path"}
    watch.remove("usb")
    (tmp_path / "ttyUSB8").touch()
    assert watch.read() == set()


ADDED = b"add@/devices/usb1/1-1/ttyUSB0/tty/ttyUSB0\0ACTION=add\0SUBSYSTEM=tty\0DEVNAME=ttyUSB0\0SEQNUM=9\0"


@pytest.mark.parametrize(
    ("message", "node"),
    [
        (ADDED, "/dev/ttyUSB0"),
        (ADDED.replace(b"ACTION=add", b"ACTION=change"), "/dev/ttyUSB0"),
        (ADDED.replace(b"ACTION=add", b"ACTION=remove"), None),
        (ADDED.replace(b"DEVNAME=ttyUSB0\0", b""), None),
        (ADDED.replace(b"DEVNAME=ttyUSB0", b"DEVNAME=bus/usb/001/004"), "/dev/bus/usb/001/004"),
        (b"libudev\0\xfe\xed\xca\xfe" + b"\0" * 30, None),
        (b"", None),
    ],
)
def test_messages_of_the_kernel(message: bytes, node: str | None) -> None:
    assert added(message) == node


class Messages:
    """The kernel's end of the netlink socket: (message, port id of the sender), or None for messages lost."""

    def __init__(self) -> None:
        self.queue: list[tuple[bytes, int] | None] = []
        self._pipe = os.pipe()

    def fileno(self) -> int:
        return self._pipe[0]

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[int, int]]:
        if not self.queue:
            raise BlockingIOError
        if (message := self.queue.pop(0)) is None:
            raise OSError(errno.ENOBUFS, "lost")
        return message[0], (message[1], 1)

    def bind(self, _address: object) -> None: ...

    def close(self) -> None:
        for fd in self._pipe:
            os.close(fd)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Messages:
    messages = Messages()
    monkeypatch.setattr(hotplug_uevent.socket, "socket", lambda *_: messages)
    return messages


def test_the_kernels_word_counts_and_nobody_elses(watch: PathWatch, kernel: Messages) -> None:
    watch.add("/dev/tty*", "usb")
    watch.add("/dev/video-of-nobody", "other")
    kernel.queue = [(ADDED, 812)]
    assert watch.read() == set(), "sent by a process"
    kernel.queue = [(ADDED, 0)]
    assert watch.read() == {"usb"}
    kernel.queue = [None]
    assert watch.read() == {"usb"}, "messages were lost: any may be there, of those that are"


def test_without_netlink_inotify_does(watch: PathWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(hotplug_uevent.socket, "socket", refuse)
    watch.add("/dev/tty*", "usb")
    assert watch.degraded is None
    assert watch.read() == set()
