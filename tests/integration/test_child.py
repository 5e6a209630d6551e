"""Children for real: their output, their end, their groups, and that nothing of them is left."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.driver import ChildEnded, PortError
from agent.ports_child import LAST_WORDS, ChildPort, open_child

PATIENCE = 20.0

Run = Callable[..., ChildPort]


@pytest.fixture
def run() -> Iterator[Run]:
    opened: list[ChildPort] = []

    def run(*command: str, **options: Any) -> ChildPort:
        opened.append(open_child(command, **options))
        return opened[-1]

    yield run
    for port in opened:
        port.close()


def python(code: str) -> Sequence[str]:
    return (sys.executable, "-I", "-S", "-c", code)


def step(port: ChildPort) -> bytes:
    assert select.select([port], [], [], PATIENCE)[0], "nothing came, and no end"
    return port.read()


def to_end(port: ChildPort) -> tuple[bytes, ChildEnded]:
    said = b""
    while True:
        try:
            said += step(port)
        except ChildEnded as end:
            return said, end


def gone(pid: int) -> bool:
    """Not there, or a zombie that whoever is its parent now has not reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def await_gone(pid: int) -> None:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([watched], [], [], PATIENCE)[0], f"{pid} still runs"
    finally:
        os.close(watched)


def test_all_that_it_prints_is_read_and_then_its_end(run: Run) -> None:
    port = run(*python("print('x' * 99 + '\\n', end='', flush=False) or print(('y' * 99 + '\\n') * 20000, end='')"))
    said, end = to_end(port)
    assert len(said) == 100 * 20001
    assert (end.status, end.words, str(end)) == (0, "", f"{Path(sys.executable).name}: exit status 0")
    with pytest.raises(ChildEnded):
        port.read()


def test_a_good_end_ends_the_last_line_and_a_bad_one_does_not(run: Run) -> None:
    assert to_end(run("printf", "21.5", ending=b"\n"))[0] == b"21.5\n"
    assert to_end(run("sh", "-c", "printf 21.5; exit 3", ending=b"\n"))[0] == b"21.5"


def test_status_and_last_complaint_are_told(run: Run) -> None:
    _, end = to_end(run("sh", "-c", "echo first >&2; echo 'no \033[1msensor' >&2; echo >&2; exit 3"))
    assert (end.status, end.words) == (3, "no ?[1msensor")
    _, end = to_end(run("sh", "-c", "kill -9 $$"))
    assert (end.status, str(end)) == (-9, "sh: killed by SIGKILL")


def test_complaints_are_bounded_and_hold_nothing_up(run: Run) -> None:
    port = run(*python("import sys; sys.stderr.write('e' * 1_000_000); print(1)"))
    said, end = to_end(port)
    assert said == b"1\n"
    assert end.words == "e" * LAST_WORDS


def test_a_child_that_closes_its_output_and_works_on_costs_no_turns(run: Run) -> None:
    port = run("sh", "-c", "exec >/dev/null 2>&1; exec sleep 1000")
    while select.select([port], [], [], 0.2)[0]:  # the two ends of its pipes
        assert port.read() == b""
    port.kill()
    assert to_end(port)[1].status == -signal.SIGKILL


def test_its_group_ends_with_it(run: Run) -> None:
    port = run("sh", "-c", "sleep 1000 & echo $!")
    said, end = to_end(port)
    assert end.status == 0
    await_gone(int(said))


def test_a_process_that_has_left_the_group_does_not_hold_the_end_up(run: Run) -> None:
    leaver = (
        "os.close(r); os.setsid(); print(os.getpid(), flush=True); os.close(w); os.execvp('sleep', ['sleep', '1000'])"
    )
    port = run(*python(f"import os\nr, w = os.pipe()\nif os.fork(): os.close(w); os.read(r, 1); os._exit(2)\n{leaver}"))
    said, end = to_end(port)
    assert end.status == 2
    assert not gone(int(said))
    os.kill(int(said), signal.SIGKILL)


def test_terminate_and_kill_reach_the_whole_group(run: Run) -> None:
    port = run("sh", "-c", "sleep 1000 & echo $!; wait")
    pid = int(step(port))
    port.terminate()
    assert to_end(port)[1].status == -signal.SIGTERM
    await_gone(pid)
    stubborn = run("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait")
    pid = int(step(stubborn))
    stubborn.terminate()
    assert not gone(pid)
    stubborn.kill()
    assert to_end(stubborn)[1].status == -signal.SIGKILL
    await_gone(pid)


def test_closing_leaves_no_process_no_descriptor_and_no_zombie(run: Run) -> None:
    before = len(os.listdir("/proc/self/fd"))
    port = run("sh", "-c", "sleep 1000 & echo $! $$; wait")
    pids = [int(word) for word in step(port).split()]
    port.close()
    port.close()
    assert port.fileno() == -1
    assert len(os.listdir("/proc/self/fd")) == before
    for pid in pids:
        await_gone(pid)
    leader = pids[1]
    del port
    to_end(run("true"))  # the next child: subprocess reaps whom nobody has asked
    assert Path(f"/proc/{leader}").exists() is False or gone(leader)


def test_a_child_gets_little_of_our_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    said, _ = to_end(run("env", environment={"UNIT": "mm"}))
    names = {line.partition(b"=")[0] for line in said.splitlines()}
    assert {b"PATH", b"UNIT"} <= names
    assert b"secret" not in said
    assert to_end(run("cat"))[0] == b""  # its standard input is empty


def test_it_runs_where_it_is_told(run: Run, tmp_path: Path) -> None:
    assert to_end(run("pwd", directory=str(tmp_path)))[0].decode().strip() == os.path.realpath(tmp_path)


def test_what_cannot_be_started_is_told_with_a_remedy(run: Run, tmp_path: Path) -> None:
    def refusal(*command: str, **options: Any) -> PortError:
        with pytest.raises(PortError) as caught:
            run(*command, **options)
        return caught.value

    missing = refusal("no-such-program-here")
    assert (missing.reason, "`shell`" in missing.remedy) == ("missing", True)
    script = tmp_path / "script"
    script.write_text("echo 1")
    assert refusal(str(script)).reason == "permission"
    script.chmod(0o755)
    assert "#!" in refusal(str(script)).remedy
    assert "directory /nowhere" in str(refusal("true", directory="/nowhere"))
