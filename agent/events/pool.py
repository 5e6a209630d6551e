"""The pool: threads that take work off the loop, few while there is little and more when pieces have to wait.

Every worker has a queue of its own, and a piece goes to the one with the least load: the sum of what its pieces are
expected to take (costs.py). A worker that runs dry takes the oldest piece of the most loaded one, so that a wrong
guess costs a moment and starves nobody.

One lock guards all of it, held for a few stores at a time; a worker takes it once a piece, the end of one and the
beginning of the next being one critical section. Idle workers sleep on a lock of their own, the last to fall asleep
being the first to be woken, so that the others are left alone long enough to end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from time import monotonic

from .costs import Costs
from .event import log, worth_a_line
from .inbox import Inbox
from .threads import start_thread
from .types import WorkRejected, WorkStats, WorkTimeout
from .work import State, Work
from .worker import Worker, load_of

PATIENCE = 0.1  # seconds a piece may wait before the pool grows, or, where it cannot, the piece counts as starved
IDLE_AFTER = 10.0  # seconds without work after which a thread above the smallest number ends
MOST_ABANDONED = (
    32  # threads held by calls that timed out and are replaced; more would be memory given away without end
)


class Pool:
    """See above.

    ``finish``, ``patience``, ``dismiss`` are the workers', ``cancel`` and ``stats`` anybody's, the others the loop's.
    """

    def __init__(self, smallest: int, largest: int, limit: int, now: Callable[[], float], inbox: Inbox) -> None:
        if not 0 <= smallest <= largest or largest < 1:
            raise ValueError(
                f"workers must be (smallest, largest), 0 <= smallest <= largest >= 1: not {smallest, largest}"
            )
        if limit < 0:
            raise ValueError(f"work_queue must be >= 0, not {limit}")
        self._smallest = smallest
        self._ready = max(smallest, 1)  # up to here a piece that finds nobody idle gets a thread at once
        self._largest = largest
        self._limit = limit
        self._now = now
        self._inbox = inbox
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._chains: dict[Hashable, deque[Work]] = {}  # key -> pieces behind the one that is queued or running
        self._costs = Costs()
        self._closing = False
        self._drained = threading.Event()
        self._hired = self._abandoned = 0
        self._submitted = self._finished = self._failed = self._timed_out = self._rejected = self._starved = 0
        self._longest_wait = 0.0
        self._waiting = 0
        self.restless = False  # a piece waits that `check` has not seen past PATIENCE
        self.outstanding = 0  # pieces whose owner has yet to hear: what keeps loop() going. The loop's thread's alone

    # -- pieces come in -------------------------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        """Queue a piece, or hand it to an idle worker. WorkRejected if as many wait as may, or no thread can be had."""
        work.queued = monotonic()
        bell = None
        with self._lock:
            key = work.key
            chain = None if key is None else self._chains.get(key)
            if chain is not None or not (self._idle or len(self._workers) < self._ready):
                if self._waiting >= self._limit and work.settle is None:
                    self._rejected += 1
                    raise WorkRejected(
                        f"{work.name}: {self._waiting} pieces of work wait, the most that work_queue allows"
                    )
                self.restless = True
            if chain is not None:
                chain.append(work)
                self._waiting += 1
            else:
                bell = self._place(work)
                if key is not None:
                    self._chains[key] = deque()
            self._submitted += 1
        self.outstanding += 1
        if bell is not None:
            bell.release()  # after the lock, which the woken thread does not need, but the next one might

    def _place(self, work: Work) -> threading.Lock | None:
        """Give a piece that may run now to an idle worker, whose bell is returned, a new one, or the least loaded."""
        work.cost = self._costs.expected(work.key, work.weight)
        if self._idle:
            worker = self._idle.pop()
            self._hand(worker, work)
            return worker.bell
        workers = self._workers
        if len(workers) < self._ready:
            try:
                self._hire(work)
            except RuntimeError as error:
                if not workers:
                    self._rejected += 1
                    raise WorkRejected(f"{work.name}: no worker thread: {error}") from error
            else:
                return None
        worker = workers[0] if len(workers) == 1 else min(workers, key=load_of)
        worker.queue.append(work)
        worker.load += work.cost
        work.worker = worker
        self._waiting += 1
        self.restless = True
        return None

    def _hand(self, worker: Worker, work: Work) -> None:
        worker.current = work
        worker.load += work.cost
        work.worker = worker
        work.state = State.RUNNING

    def _hire(self, work: Work) -> None:
        """A new thread that begins with ``work``. RuntimeError, and nothing changed, if it cannot be had."""
        if self._abandoned >= MOST_ABANDONED:
            raise RuntimeError(f"{self._abandoned} threads are held by calls that timed out and never returned")
        former = work.worker
        worker = Worker()
        self._hand(worker, work)
        self._workers.append(worker)
        try:
            start_thread(f"events-worker-{self._hired + 1}", worker.live, self, self._inbox, self._now)
        except RuntimeError:
            self._workers.remove(worker)
            work.state, work.worker = State.WAITING, former
            raise
        self._hired += 1

    # -- those who wait -------------------------------------------------------------------------------------------

    def check(self) -> float | None:
        """Look after those who wait: grow, or count and name the starved. Seconds to the next look, None for none."""
        with self._lock:
            now = monotonic()
            self.restless = False
            lines: list[tuple[Work, str]] = []
            waiting = [work for worker in self._workers for work in worker.queue]
            left = [self._tend(work, now, lines, behind_key=False) for work in waiting]
            left += [self._tend(work, now, lines, behind_key=True) for chain in self._chains.values() for work in chain]
            starved = self._starved
        for work, culprits in lines:
            log.warning(
                "work.starved name=%s waited=%.3fs behind=%s count=%d", work.name, now - work.queued, culprits, starved
            )
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _tend(self, work: Work, now: float, lines: list[tuple[Work, str]], behind_key: bool) -> float | None:
        left = work.queued + PATIENCE - now
        if left > 0.0:
            return left
        if not behind_key and len(self._workers) < self._largest and self._grow(work):
            return None
        if not work.starved:
            work.starved = True
            self._starved += 1
            if worth_a_line(self._starved):
                running = [worker.current for worker in self._workers if worker.current is not None]
                culprits = {other.name for other in running if not behind_key or other.key == work.key}
                lines.append((work, ",".join(sorted(culprits)) or "-"))
        return None

    def _grow(self, work: Work) -> bool:
        """A new thread for a piece that waits in somebody's queue."""
        holder = work.worker
        assert holder is not None
        try:
            self._hire(work)
        except RuntimeError as error:
            log.warning("work.threads workers=%d error=%s", len(self._workers), error)
            return False
        holder.queue.remove(work)
        holder.load -= work.cost
        self._began(work, monotonic())
        return True

    def _began(self, work: Work, now: float) -> None:
        """A piece that waited waits no more."""
        self._waiting -= 1
        waited = now - work.queued
        if waited > self._longest_wait:
            self._longest_wait = waited
        if waited > PATIENCE and not work.starved:
            work.starved = True
            self._starved += 1

    # -- pieces that end before their time ------------------------------------------------------------------------

    def expire(self, work: Work) -> float | None:
        """Its time-out may have come: seconds until it can; None if it is over, perhaps timed out just now."""
        with self._lock:
            if work.timeout is None or work.state > State.RUNNING:
                return None
            if work.state is State.WAITING or work.began is None:
                return work.timeout
            left = work.began + work.timeout - self._now()
            if left > 0.0:
                return left
            work.state = State.TIMED_OUT
            work._active = False
            work.error = WorkTimeout(f"{work.name}: still running after {work.timeout:g} s")
            self._timed_out += 1
            self.outstanding -= 1
            if work.worker is not None:
                self._abandon(work.worker)
        return None

    def _abandon(self, worker: Worker) -> None:
        """Take a worker whose call does not return out of the pool, and give its queue to a new thread in its place."""
        worker.abandoned = True
        self._workers.remove(worker)
        self._abandoned += 1
        if self._abandoned == MOST_ABANDONED:
            log.error(
                "work.abandoned threads=%d: held by calls that timed out and never returned; no more are replaced",
                self._abandoned,
            )
        left, worker.queue = worker.queue, deque()
        self._waiting -= len(left)
        for number, work in enumerate(left):
            if number == 0 and not self._idle:
                try:
                    self._hire(work)
                    continue
                except RuntimeError as error:
                    log.warning("work.threads workers=%d error=%s", len(self._workers), error)
            self._place_again(work)

    def _place_again(self, work: Work) -> None:
        """Place a piece that was accepted earlier; should there be no thread for it any more, its owner hears so."""
        try:
            bell = self._place(work)
        except WorkRejected as error:
            work.error = error
            work.state = State.FINISHED
            self._inbox.post(work)
            self._next_of(work.key)
        else:
            if bell is not None:
                bell.release()

    def cancel(self, work: Work) -> bool:
        """See Work.cancel. True if its owner was still to hear of it."""
        with self._lock:
            if work.state > State.FINISHED:
                return False
            if work.state is State.WAITING:
                self._waiting -= 1
                if work.worker is None:
                    self._chains[work.key].remove(work)
                else:
                    work.worker.queue.remove(work)
                    work.worker.load -= work.cost
                    self._next_of(work.key)
            work.state = State.CANCELLED
            work._active = False
            return True

    # -- the workers' side ----------------------------------------------------------------------------------------

    def finish(self, worker: Worker, work: Work, now: float) -> Work | None:
        """Hand a finished piece in and take the next; None if there is none: it is idle then, or over."""
        with self._lock:
            worker.load = max(0.0, worker.load - work.cost)
            self._costs.learn(None if work.settle else work.key, work.weight, work.spent)
            self._finished += 1
            if work.error is not None:
                self._failed += 1
            if work.key is not None:
                self._next_of(work.key)
            if work.state is State.RUNNING:
                work.state = State.FINISHED
                self._inbox.items.append(work)  # within the lock: the next of its key must not get in before it
            else:
                work.result = work.error = None  # cancelled or timed out: nobody will ask
            worker.current = None
            if worker.abandoned:
                self._abandoned -= 1
                worker.over = True
                return None
            following = self._take(worker, now)
            if following is None:
                if self._closing:
                    worker.over = True
                    self._workers.remove(worker)
                    if not self._workers:
                        self._drained.set()
                else:
                    # Here, not later: a piece that came in between would lie in the queue of one that falls asleep.
                    self._idle.append(worker)
            return following

    def patience(self) -> float:
        """Seconds that an idle worker sleeps for, -1 for ever.

        Only above the smallest number is there an end to the sleep, so that the others cause no wake-ups at all.
        """
        return IDLE_AFTER if len(self._workers) > self._smallest else -1.0

    def dismiss(self, worker: Worker) -> bool:
        """A worker slept long enough: True if its thread is to end, False if it is needed, as it may be just now."""
        with self._lock:
            if worker not in self._idle or len(self._workers) <= self._smallest:
                return False
            self._idle.remove(worker)
            self._workers.remove(worker)
            return True

    def _next_of(self, key: Hashable) -> None:
        """The piece of a key that held the others back is out of the way: the next may run."""
        chain = self._chains.get(key) if key is not None else None
        if chain:
            self._waiting -= 1
            self._place_again(chain.popleft())
        elif chain is not None:
            del self._chains[key]

    def _take(self, worker: Worker, now: float) -> Work | None:
        """The worker's own next piece, or the oldest of the most loaded one."""
        source = worker
        if not source.queue:
            loaded = [other for other in self._workers if other.queue]
            if not loaded:
                return None
            source = max(loaded, key=load_of)
        work = source.queue.popleft()
        source.load -= work.cost
        self._hand(worker, work)
        self._began(work, now)
        return work

    # -- the end, and the books -----------------------------------------------------------------------------------

    def close(self, patience: float) -> tuple[list[Work], list[Work]]:
        """Take no more work, wait ``patience`` s for what runs; (pieces that never began, pieces that still run)."""
        with self._lock:
            self._closing = True
            queued = [work for worker in self._workers for work in worker.queue]
            queued += [work for chain in self._chains.values() for work in chain]
            queued.sort(key=lambda work: work.queued)
            for work in queued:
                work.state = State.CANCELLED
                work._active = False
            self._chains.clear()
            self._waiting = 0
            for worker in self._idle:  # with nothing in hand, the bell sends them home
                self._workers.remove(worker)
                worker.bell.release()
            self._idle.clear()
            for worker in self._workers:
                worker.queue.clear()
            busy = bool(self._workers)
        if busy:
            self._drained.wait(patience)
        with self._lock:
            running = [worker.current for worker in self._workers if worker.current is not None]
            running = [work for work in running if work.state is State.RUNNING]
            for work in running:
                work.state = State.TIMED_OUT
                work._active = False
        self.outstanding = 0
        return queued, running

    def stats(self) -> WorkStats:
        """The pool's figures, from any thread."""
        with self._lock:
            now = monotonic()
            oldest = [now - worker.queue[0].queued for worker in self._workers if worker.queue]
            oldest += [now - chain[0].queued for chain in self._chains.values() if chain]
            return WorkStats(
                workers=len(self._workers),
                idle=len(self._idle),
                abandoned=self._abandoned,
                queued=self._waiting,
                running=sum(worker.current is not None for worker in self._workers),
                submitted=self._submitted,
                finished=self._finished,
                failed=self._failed,
                timed_out=self._timed_out,
                rejected=self._rejected,
                starved=self._starved,
                oldest_wait=max(oldest, default=0.0),
                longest_wait=self._longest_wait,
            )
