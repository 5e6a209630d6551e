"""The status page: HTTP on the event manager. It listens, gives everyone a turn, and answers from what is known.

Readings come first: whatever browsers and others ask, the page takes at most SHARE of a turn of the loop for it, and
what costs (the report, the metrics) is built at most once in its time, however many ask.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from agent.control import EXHAUSTED
from agent.events import EventManager, SocketEvent, TimerEvent
from agent.logline import Repeats, line
from agent.page_client import Client
from agent.page_guard import Guard, read_token
from agent.page_http import Request, Response, refusal
from agent.page_log import RecentLog
from agent.page_metrics import OPENMETRICS, Metrics
from agent.page_settings import PageSettings, parse_address
from agent.page_values import STEP, Shown, Values

SHARE = 0.001
"""Seconds of a turn that requests may take; one that has begun is finished. A reading that comes meanwhile waits no
longer."""
CLIENTS = 64
"""Connections at a time. As many again may be about to be told that there is no room."""
CROWDED, CROWDED_IDLE = 0.5, 5.0
"""Seconds that a connection may be silent when all places are taken and another one wants its place: without a whole
request so far; after an answer, as a browser's between two clicks."""
STREAMS = 8
"""Pages that are looked at, at a time."""
PUSH = 1.0
"""Seconds between two states of a page that is looked at."""
STATUS_FRESH = 0.25
METRICS_FRESH = 1.0
"""Seconds for which an answer is given again."""
LAG = 1.0
"""Seconds by which timers may be late before the agent calls itself unwell."""

LISTEN_ERRORS = {
    errno.EADDRINUSE: "another program listens there: choose another port for page.listen",
    errno.EADDRNOTAVAIL: "this machine does not have that address (yet): see page.listen",
    errno.EACCES: "ports below 1024 are for root alone: choose a higher one for page.listen",
}

ASSETS = Path(__file__).with_name("page_assets")
FILES = {
    b"/": ("index.html", "text/html; charset=utf-8"),
    b"/page.css": ("page.css", "text/css; charset=utf-8"),
    b"/page.js": ("page.js", "text/javascript; charset=utf-8"),
    b"/icon.svg": ("icon.svg", "image/svg+xml"),
}
JSON = "application/json"

Report = dict[str, Any]


class Fresh:
    """What ``build`` gave, for so many seconds; by key, of which there are few."""

    def __init__(self, now: Callable[[], float], seconds: float, build: Callable[[str], Any]) -> None:
        self._now = now
        self._seconds = seconds
        self._build = build
        self._kept: dict[str, tuple[float, Any]] = {}

    def __call__(self, key: str = "") -> Any:
        now = self._now()
        kept = self._kept.get(key)
        if kept is None or now - kept[0] >= self._seconds:
            kept = self._kept[key] = now, self._build(key)
        return kept[1]


class Page:
    """All of it, on the loop's thread alone.

    devices: as the supervisor has them; report: the status report; waiting: readings in the outbox; unwell: why the
    agent should not be taken for healthy, or None.
    """

    def __init__(
        self,
        manager: EventManager,
        settings: PageSettings,
        devices: Mapping[str, Shown],
        report: Callable[[], Report],
        waiting: Callable[[], float],
        *,
        unwell: Callable[[], str | None],
        log: logging.Logger | None = None,
    ) -> None:
        self.values = Values(devices, {"waiting": waiting, "lag_ms": lambda: manager.stats().lag * 1000})
        self._manager = manager
        self._settings = settings
        self._report = report
        self._unwell = unwell
        self._log = log or logging.getLogger("outstation.page")
        self._recent = RecentLog()
        self._status = Fresh(manager.now, STATUS_FRESH, self._build_status)
        self._state = Fresh(manager.now, STATUS_FRESH, lambda _: orjson.dumps(self._status()))
        self._metrics = Metrics(self._status)
        self._exposed = Fresh(manager.now, METRICS_FRESH, self._metrics.render)
        self._guard = Guard((), None)
        self._files: dict[bytes, Response] = {}
        self._socket: socket.socket | None = None
        self._listener: SocketEvent
        self._events: list[SocketEvent | TimerEvent] = []
        self._pushing: TimerEvent | None = None
        self._clients: dict[Client, None] = {}
        self._refused: set[Client] = set()
        self._waiting: deque[Client] = deque()
        self._scheduled = False
        self._lines = Repeats()

    # -- its life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen. Where that fails the log says why, and the agent goes on without."""
        assert self._settings.listen is not None
        address = parse_address(self._settings.listen)
        try:
            host = socket.gethostname()
            short = host.partition(".")[0]
            self._guard = Guard((host, short, f"{short}.local", *self._settings.hosts), self._token())
            self._socket = self._listen(address.host, address.port)
        except (OSError, ValueError) as error:
            reason = LISTEN_ERRORS.get(getattr(error, "errno", None) or 0, str(error))
            self._log.error(line("page.closed", address=address, reason=reason))
            return
        self._files = {path: Response(200, (ASSETS / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        self._recent.start()
        self._metrics.start()
        self._listener = self._manager.create_socket_event(self._socket, on_readable=self._accept, name="page")
        self._events = [
            self._listener,
            self._manager.create_timer_event(STEP, self._step, name="page.step"),
        ]
        self._log.info(line("page.open", url=f"http://{address}/", token=self._settings.token_file))

    def _token(self) -> bytes | None:
        path = self._settings.token_file
        if path is None:
            return None
        try:
            token, public = read_token(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); check page.token_file") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if public:
            self._log.warning(line("page.readable", path=path, remedy="everyone can read the token: chmod o-r"))
        return token

    def _listen(self, host: str, port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # A restart shall not wait for the last connections' TIME_WAIT (RFC 9293, section 3.6.1).
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        return listener

    @property
    def port(self) -> int:
        """Where it listens; 0: it does not."""
        return int(self._socket.getsockname()[1]) if self._socket is not None else 0

    def close(self) -> None:
        """Listen no more, and let everyone go. Idempotent."""
        for event in self._events:
            event.cancel()
        for client in (*self._clients, *self._refused):
            client.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._recent.end()

    def _step(self) -> None:
        self.values.step()
        self._listener.resume()

    # -- whoever comes ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """One a turn, so that a crowd at the door is not in the way of a reading."""
        assert self._socket is not None
        try:
            connection, peer = self._socket.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:  # still readable, the loop would spin: ask again with the next step
                self._listener.pause()
                self._warn("page.exhausted", reason=error.strerror)
            return  # else gone again
        if len(self._clients) >= CLIENTS:
            self._make_room()
        if len(self._clients) < CLIENTS:
            self._clients[Client(self._manager, connection, peer[0], self)] = None
        elif len(self._refused) < CLIENTS:
            client = Client(self._manager, connection, peer[0], self)
            self._refused.add(client)
            client.refuse(refusal(503, f"{CLIENTS} connections are open", ("Retry-After", "5"), close=True))
            self._warn("page.full", peer[0])
        else:
            connection.close()

    def _make_room(self) -> None:
        """Let one go that had time enough and says nothing, so that a crowd of slow ones keeps nobody out for long."""
        now = self._manager.now()
        silent = [
            client
            for client in self._clients
            if client.resting and now - client.since > (CROWDED_IDLE if client.answered else CROWDED)
        ]
        if silent:
            min(silent, key=lambda client: (client.answered, client.since)).close()

    def _warn(self, event: str, peer: str | None = None, **fields: object) -> None:
        if count := self._lines((event, peer)):
            self._log.warning(line(event, peer=peer, **fields, count=count if count > 1 else None))

    def ended(self, client: Client) -> None:
        self._clients.pop(client, None)
        self._refused.discard(client)
        if self._pushing is not None and not self._streams():
            self._pushing.cancel()
            self._pushing = None

    def wants(self, client: Client) -> None:
        self._waiting.append(client)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._manager.call_soon(self._serve)

    def _serve(self) -> None:
        """As many requests as fit into SHARE, one at least."""
        self._scheduled = False
        until = self._manager.now() + SHARE
        try:
            while self._waiting:
                self._waiting.popleft().work()
                if self._manager.now() >= until:
                    break
        finally:
            self._schedule()

    # -- what they get ----------------------------------------------------------------------------------------------

    def respond(self, request: Request, client: Client) -> Response | None:
        refused = self._guard.judge(request)
        if refused is not None:
            if refused.status in (401, 403, 421):
                self._warn("page.denied", client.peer, status=refused.status, path=request.path[:64].decode("latin-1"))
            return refused
        if (file := self._files.get(request.path)) is not None:
            return file
        match request.path:
            case b"/api/status":
                return Response(200, self._state(), JSON)
            case b"/metrics":
                body, content_type = self._exposed(OPENMETRICS if OPENMETRICS in request.header(b"accept") else "")
                return Response(200, body, content_type)
            case b"/healthz":
                return self._health()
            case b"/events":
                return self._begin(request, client)
        return refusal(404, "there are /, /api/status, /metrics and /healthz")

    def _health(self) -> Response:
        reason = self._unwell()
        lag = self._status()["loop"]["lag_s"]
        if reason is None and lag > LAG:
            reason = f"the event loop is late by {lag:.1f} s"
        said = {"status": "ok"} if reason is None else {"status": "unwell", "reason": reason}
        return Response(200 if reason is None else 503, orjson.dumps(said) + b"\n", JSON)

    def _build_status(self, _key: str) -> Report:
        return {
            **self._report(),
            "values": self.values.latest(),
            "charts": {"tick": self.values.tick, **self.values.charts()},
        }

    # -- live ---------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request, client: Client) -> Response | None:
        """Server-sent events (HTML, section 9.2): all charts and the log at first, then the state every second."""
        if len(self._streams()) >= STREAMS:
            return refusal(503, f"{STREAMS} pages are open already", ("Retry-After", "5"))
        head = Response(200, b"", "text/event-stream", close=True)
        if request.method == b"HEAD":
            return head
        first = _event(b"history", orjson.dumps(self.values.history())) + self._news(client)
        client.stream(Response(200, first, head.type, close=True))
        if self._pushing is None:
            self._pushing = self._manager.create_timer_event(PUSH, self._push, name="page.push")
        return None

    def _streams(self) -> list[Client]:
        return [client for client in self._clients if client.streaming]

    def _push(self) -> None:
        for client in self._streams():
            if client.ready:
                client.push(self._news(client))

    def _news(self, client: Client) -> bytes:
        """What this client has not seen: each state is the whole of it, so that a slow one misses nothing by it."""
        said = _event(b"state", self._state())
        if lines := self._recent.since(client.log_seen):
            client.log_seen = lines[-1]["n"]
            said += _event(b"log", orjson.dumps(lines))
        return said


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: " + name + b"\ndata: " + data + b"\n\n"
