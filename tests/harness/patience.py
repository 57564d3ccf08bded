"""How long tests wait: for as long as the machine itself would have taken, however busy others keep it.

A limit in seconds is a promise about an idle machine. On a loaded one the time does not count in which somebody waited
for a processor; the kernel tells (/proc/pressure/cpu, Linux 4.20; without it all time counts).
"""

import time

PATIENCE_S = 60.0
"""For what comes at once where all is well: only a failing test waits to its end."""

AT_MOST_S = 120.0
"""So much more time passes in the busiest case, however long somebody was waiting for a processor."""


def stalled_s() -> float:
    """For how long somebody has been waiting for a processor, since the machine started."""
    try:
        with open("/proc/pressure/cpu", encoding="ascii") as file:
            return int(file.readline().rpartition("=")[2]) / 1e6
    except OSError:
        return 0.0


def pause(seconds: float) -> None:
    """For what is under way to arrive: that much of the machine's own time, and at most a second more."""
    watch = Watch()
    time.sleep(seconds)
    while watch.elapsed_s() < seconds and watch.wall_s() < seconds + 1.0:
        time.sleep(0.01)


class Watch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._begun, self._stalled = time.monotonic(), stalled_s()

    def wall_s(self) -> float:
        return time.monotonic() - self._begun

    def elapsed_s(self) -> float:
        """Without what others took."""
        return max(0.0, self.wall_s() - (stalled_s() - self._stalled))

    def is_over(self, limit_s: float) -> bool:
        wall_s = self.wall_s()
        return wall_s > limit_s and (wall_s > limit_s + AT_MOST_S or self.elapsed_s() > limit_s)
