"""The pytest plugin: a scripted serial device, a broker and a running agent as fixtures; see ``docs/testing.md``.

pytest loads it wherever Outstation is installed (entry point in the group ``pytest11``), so it imports nothing but
pytest until one of its fixtures is asked for.

Names: what is ours begins with ``outstation``. ``serial_device`` and ``mqtt_broker`` are short names for two of these,
on which nothing of ours rests: a project that has fixtures of that name keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from agent.testing.broker import Broker
    from agent.testing.context import FakeContext
    from agent.testing.device import PtyPort
    from agent.testing.outstation import Outstation

    MakeDevice: TypeAlias = Callable[..., PtyPort]
    StartOutstation: TypeAlias = Callable[..., Outstation]

_AGENTS = pytest.StashKey["list[Outstation]"]()


@pytest.fixture
def outstation_make_device() -> Iterator[MakeDevice]:
    """A function that makes one more scripted serial device; its options are those of agent.testing.PtyPort."""
    from agent.testing.device import PtyPort

    with ExitStack() as devices:
        yield lambda *args, **options: devices.enter_context(PtyPort(*args, **options))


@pytest.fixture
def outstation_device(outstation_make_device: MakeDevice) -> PtyPort:
    """A scripted serial device (agent.testing.PtyPort), plugged in; its ``path`` goes into the configuration."""
    return outstation_make_device()


@pytest.fixture
def outstation_broker() -> Iterator[Broker]:
    """A broker (agent.testing.Broker) of this test's own, running."""
    from agent.testing.broker import Broker

    with Broker() as broker:
        yield broker


@pytest.fixture
def outstation_config(outstation_device: PtyPort) -> dict[str, Any] | str:
    """The configuration of ``outstation``: nested mappings or TOML text. Override it in a test module or conftest.py.

    Here: a device "serial" that reads JSON lines from ``outstation_device``.
    """
    return {"device": [{"name": "serial", "driver": "lines", "port": outstation_device.path, "format": "json"}]}


@pytest.fixture
def outstation_start(request: pytest.FixtureRequest, outstation_broker: Broker) -> Iterator[StartOutstation]:
    """A function that starts an agent on a configuration; its options are those of agent.testing.Outstation.

    ``wait=False`` returns before it is online; ``broker=`` takes another broker than ``outstation_broker``.
    """
    from agent.testing.outstation import Outstation

    with ExitStack() as agents:

        def start(
            config: dict[str, Any] | str, *, broker: Broker | None = None, wait: bool = True, **options: Any
        ) -> Outstation:
            agent = Outstation(config, broker or outstation_broker, **options)
            agents.callback(agent.close)
            request.node.stash.setdefault(_AGENTS, []).append(agent)
            return agent.start(wait=wait)

        yield start


@pytest.fixture
def outstation(outstation_start: StartOutstation, outstation_config: dict[str, Any] | str) -> Outstation:
    """A running agent (agent.testing.Outstation) on ``outstation_config``, online with all its devices."""
    return outstation_start(outstation_config)


@pytest.fixture
def outstation_context() -> FakeContext:
    """A driver's context in memory, on a clock that stands still (agent.testing.FakeContext)."""
    from agent.testing.context import FakeContext

    return FakeContext()


@pytest.fixture
def serial_device(outstation_device: PtyPort) -> PtyPort:
    """Short for ``outstation_device``."""
    return outstation_device


@pytest.fixture
def mqtt_broker(outstation_broker: Broker) -> Broker:
    """Short for ``outstation_broker``."""
    return outstation_broker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its agents logged."""
    report = yield
    if report.failed:
        agents: list[Outstation] = item.stash.get(_AGENTS, [])
        for number, agent in enumerate(agents, 1):
            report.sections.append((f"log of agent {number}", agent.log))
    return report
