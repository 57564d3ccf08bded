"""Health checks as users write them. Pure; `probe.py` runs them."""

from __future__ import annotations

import msgspec

from sealane.containers.errors import SpecError

# Docker's defaults and its least interval (1 ms there; a check costs about 30 ms of CPU, so a tenth of a second here).
MIN_INTERVAL_S = 0.1
MAX_SECONDS = 86400.0
MAX_RETRIES = 1000
MAX_TEST_WORDS = 256


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`test` is Docker's and compose's: ("CMD", program, ...), ("CMD-SHELL", line) or ("NONE",). Times in seconds."""

    test: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0

    @property
    def command(self) -> tuple[str, ...]:
        """What to run in the container; () if there is no check."""
        if self.test[0] == "CMD":
            return self.test[1:]
        if self.test[0] == "CMD-SHELL":
            return ("/bin/sh", "-c", self.test[1])
        return ()


def check_health(check: HealthCheck, field: str = "health") -> None:
    """Refuse what cannot be run or would never end; SpecError names the field."""
    kind = check.test[0] if check.test else ""
    words = len(check.test)
    if kind not in {"CMD", "CMD-SHELL", "NONE"}:
        raise SpecError(f"{field}.test", f'starts with "CMD", "CMD-SHELL" or "NONE", not {kind!r}')
    fits = {"CMD": 2 <= words <= MAX_TEST_WORDS, "CMD-SHELL": words == 2, "NONE": words == 1}
    if not fits[kind]:
        raise SpecError(f"{field}.test", f"{kind} with {words - 1} words after it")
    if any("\0" in word for word in check.test):
        raise SpecError(f"{field}.test", "holds a zero byte")
    if not MIN_INTERVAL_S <= check.interval_s <= MAX_SECONDS:
        raise SpecError(
            f"{field}.interval_s", f"{check.interval_s} is not within {MIN_INTERVAL_S}..{MAX_SECONDS} s"
        )
    if not MIN_INTERVAL_S <= check.timeout_s <= MAX_SECONDS:
        raise SpecError(
            f"{field}.timeout_s", f"{check.timeout_s} is not within {MIN_INTERVAL_S}..{MAX_SECONDS} s"
        )
    if not 1 <= check.retries <= MAX_RETRIES:
        raise SpecError(f"{field}.retries", f"{check.retries} is not within 1..{MAX_RETRIES}")
    if not 0 <= check.start_period_s <= MAX_SECONDS:
        raise SpecError(f"{field}.start_period_s", f"{check.start_period_s} is not within 0..{MAX_SECONDS} s")
