"""A bounded number of places, shared so that no holder can keep another out."""

import threading
from collections.abc import Hashable


class Shares:
    """Grants a place while the asker holds fewer than ``1/share`` of the places still free.

    This is the dynamic threshold of shared switch buffers (Choudhury and Hahne, 1998): one greedy asker stops at
    ``capacity / (share + 1)``; n of them leave ``capacity * share / (share + n)`` free, so a newcomer is always let in.
    Safe to use from several threads.
    """

    def __init__(self, capacity: int, share: int) -> None:
        self._share = share
        self._free = capacity
        self._held: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        return self._free

    def take(self, asker: Hashable) -> bool:
        with self._lock:
            held = self._held.get(asker, 0)
            if not self._free or held * self._share >= self._free:
                return False
            self._held[asker] = held + 1
            self._free -= 1
            return True

    def give_back(self, asker: Hashable) -> None:
        with self._lock:
            self._free += 1
            if self._held[asker] == 1:
                del self._held[asker]
            else:
                self._held[asker] -= 1
