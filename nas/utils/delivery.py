"""Jobs that must not hold up whoever adds them: done in their order by a thread, until they
succeed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], None]

LONGEST_PAUSE_S = 60.0  # between two tries of a job
LAST_S = 10.0  # that the end waits for a job that fails
MOST_WAITING = 20_000  # jobs; what comes later is dropped


class Delivery:
    """A thread that does jobs one after the other. One that fails is repeated, with pauses that
    double up to a minute, and all others wait for it: it must bear being repeated.

    Attributes:
        trouble: why the job that is being tried has failed, twice or more; None where it has not.
        complete: every job that was added is done, or can still be.
    """

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.complete = True
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._closing = threading.Event()
        self._succeeded_s = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True, name="nas-delivery")

    def add(self, job: Job) -> None:
        """Have a job done after all that were added before."""
        if self._jobs.qsize() >= MOST_WAITING:
            self.complete = False
        if self.complete:
            self._jobs.put(job)
            if not self._thread.ident:
                self._thread.start()

    def close(self, *, patient: bool = True) -> bool:
        """Wait for the jobs that were added, as long as they succeed; no later ones are taken.

        Args:
            patient: wait however long they take, in place of ten seconds at most.

        Returns:
            Whether all are done.
        """
        self._closing.set()
        self._jobs.put(None)
        began_s = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.05)
            waits_since_s = max(began_s, self._succeeded_s) if patient else began_s
            hopeless = self.trouble is not None or not patient
            if hopeless and time.monotonic() - waits_since_s > LAST_S:
                self.complete = False
                break
        return self.complete

    def _work(self) -> None:
        while self.complete and (job := self._jobs.get()) is not None:
            self._do(job)

    def _do(self, job: Job) -> None:
        """Try a job until it succeeds, or the last try, which is the first one that begins when
        the delivery is being closed, has failed.
        """
        pause_s, failed = 1.0, False
        while True:
            is_last = self._closing.is_set()
            try:
                job()
            except Exception as error:  # whatever it is, the search goes on
                self.trouble = error if failed or is_last else None
                failed = True
            else:
                self.trouble, self._succeeded_s = None, time.monotonic()
                return
            if is_last or not self.complete:
                self.complete = False
                return
            self._closing.wait(min(pause_s, LONGEST_PAUSE_S))
            pause_s *= 2
