"""The event manager: timers, descriptors, signals and finished work, in one loop that names and times what runs in it.

A library of its own: the standard library only, nothing else of this package. docs/event-manager.md explains it.
"""

from .clock import Clock, ManualClock
from .event import Event
from .manager import EventManager
from .signals import SignalEvent
from .sockets import HasFileno, SocketEvent
from .timers import TimerEvent
from .types import (
    CallbackStats,
    Dispatch,
    Missed,
    SlowCallback,
    SlowCallbackError,
    SlowStats,
    Stats,
    WorkRejected,
    WorkStats,
    WorkTimeout,
)
from .work import Work

__all__ = [
    "CallbackStats",
    "Clock",
    "Dispatch",
    "Event",
    "EventManager",
    "HasFileno",
    "ManualClock",
    "Missed",
    "SignalEvent",
    "SlowCallback",
    "SlowCallbackError",
    "SlowStats",
    "SocketEvent",
    "Stats",
    "TimerEvent",
    "Work",
    "WorkRejected",
    "WorkStats",
    "WorkTimeout",
]
