"""Public fakes and helpers for tests without hardware; ``docs/testing.md`` is their page.

Nothing is imported until it is asked for: the pytest plugin lives in here, and a run of somebody's tests that uses none
of it shall not pay for pydantic or paho.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.events import ManualClock
    from agent.testing.broker import Broker, BrokerError
    from agent.testing.certificates import Certificates
    from agent.testing.context import FakeContext
    from agent.testing.device import PtyPort
    from agent.testing.gpio import FakeGpio
    from agent.testing.outstation import AgentEndedError, Outstation, Reading
    from agent.testing.port import FakePort
    from agent.testing.pty import Pty
    from agent.testing.subscriber import Message, Subscriber

__all__ = [
    "AgentEndedError",
    "Broker",
    "BrokerError",
    "Certificates",
    "FakeContext",
    "FakeGpio",
    "FakePort",
    "ManualClock",
    "Message",
    "Outstation",
    "Pty",
    "PtyPort",
    "Reading",
    "Subscriber",
]

_HOMES = {
    "AgentEndedError": "agent.testing.outstation",
    "Broker": "agent.testing.broker",
    "BrokerError": "agent.testing.broker",
    "Certificates": "agent.testing.certificates",
    "FakeContext": "agent.testing.context",
    "FakeGpio": "agent.testing.gpio",
    "FakePort": "agent.testing.port",
    "ManualClock": "agent.events",
    "Message": "agent.testing.subscriber",
    "Outstation": "agent.testing.outstation",
    "Pty": "agent.testing.pty",
    "PtyPort": "agent.testing.device",
    "Reading": "agent.testing.outstation",
    "Subscriber": "agent.testing.subscriber",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
