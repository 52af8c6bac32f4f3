"""Rate limits: one token bucket a key, in memory (one process serves one home)."""

from __future__ import annotations

import time
from collections.abc import Callable

from noria.errors import RateLimited

__all__ = ["RateLimiter"]

_MOST_KEYS = 10_000


class RateLimiter:
    """Allows `per_minute` calls a key on average, and as many at once after a quiet minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str, per_minute: int) -> None:
        """Counts one call. Raises RateLimited with the seconds until the next is allowed. 0 means no limit."""
        if per_minute <= 0:
            return
        now = self._clock()
        tokens, at = self._buckets.get(key, (float(per_minute), now))
        tokens = min(float(per_minute), tokens + (now - at) * per_minute / 60)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            wait_s = (1 - tokens) * 60 / per_minute
            raise RateLimited(
                f"Rate limit reached: {per_minute} requests per minute.",
                hint=f"Try again in {wait_s:.1f} s.",
                retry_after_s=wait_s,
            )
        if len(self._buckets) >= _MOST_KEYS:
            self._buckets.clear()
        self._buckets[key] = (tokens - 1, now)
