"""How many pixels are decoded at a time, over all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Lets threads decode images as long as these have no more than so many pixels together; an
    image that is larger goes alone.

    Args:
        most: pixels.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free, self._changed = most, threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for an image, and hold it in the block."""
        held = min(pixels, self.most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()
