"""PathWatch against the file system itself: whatever is done to directories, links and nodes, an appearance is told."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.hotplug import PathWatch

PLACES = ["dev/tty0", "dev/tty1", "dev/by-id/usb", "dev/by-id", "other/usb", "other", "dev"]
TARGETS = ["../tty0", "../tty1", "../dev/tty0", "usb"]
WATCHED = ["dev/by-id/usb", "dev/tty0", "other/usb"]

operations = st.one_of(
    st.tuples(st.just("mkdir"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("touch"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("link"), st.sampled_from(PLACES), st.sampled_from(TARGETS)),
    st.tuples(st.just("remove"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("chmod"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("replace"), st.sampled_from(PLACES), st.sampled_from(PLACES)),
)


def do(root: Path, what: str, place: str, other: str | None) -> None:
    """One change; what is not possible is not done."""
    path = root / place
    with suppress(OSError, shutil.Error):
        if what == "mkdir":
            path.mkdir()
        elif what == "touch":
            path.touch(exist_ok=False)
        elif what == "link":
            path.symlink_to(str(other))
        elif what == "remove" and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif what == "remove":
            path.unlink()
        elif what == "chmod":
            path.chmod(path.stat().st_mode ^ 0o040)
        elif what == "replace" and not path.is_dir():  # a renamed directory is told only if it is watched itself
            path.rename(root / str(other))


@settings(deadline=None, max_examples=200)
@given(st.lists(operations, min_size=20, max_size=60))
def test_whatever_comes_into_being_is_reported(changes: list[tuple[str, str, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "dev/by-id").mkdir(parents=True)
        (root / "other").mkdir()
        watch = PathWatch()
        try:
            for name in WATCHED:
                watch.add(str(root / name), name)
            there = dict.fromkeys(WATCHED, False)
            for what, place, other in changes:
                do(root, what, place, other)
                now = {name: os.path.exists(root / name) for name in WATCHED}
                told = watch.read()
                assert {name for name in WATCHED if now[name] and not there[name]} <= told
                assert all(now[name] for name in told)
                there = now
                assert watch.degraded is None
            for name in WATCHED:
                watch.remove(name)
            assert not watch._tokens
        finally:
            watch.close()
