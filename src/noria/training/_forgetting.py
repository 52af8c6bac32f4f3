"""Has a model forgotten? The same items before and after, compared as pairs.

An exact McNemar test on items known, one-sided (https://en.wikipedia.org/wiki/McNemar%27s_test), and a paired t-test on the
margins, which sees a loss before answers flip. Sixty items are few: a small loss goes unseen, a warning means something.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["compare"]

_ALPHA = 0.01


def compare(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`before` and `after` are shares known; `forgot` is whether the loss is significant; `lost` names the items."""
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b["id"] == a["id"]]
    lost = [b["id"] for b, a in pairs if b["known"] and not a["known"]]
    gained = sum(a["known"] and not b["known"] for b, a in pairs)
    changes = [a["margin"] - b["margin"] for b, a in pairs]
    p_known, p_margin = _mcnemar(len(lost), gained), _falls(changes)
    worse = statistics.fmean(changes) < 0 if changes else False
    return {
        "items": len(pairs),
        "before": _share(pairs, 0),
        "after": _share(pairs, 1),
        "margin_change": round(statistics.fmean(changes), 4) if changes else 0.0,
        "p_known": round(p_known, 6),
        "p_margin": round(p_margin, 6),
        "lost": lost,
        "forgot": p_known < _ALPHA or (p_margin < _ALPHA and worse and len(lost) > gained + len(pairs) // 20),
    }


def _share(pairs: Sequence[tuple[Any, Any]], side: int) -> float:
    return round(sum(pair[side]["known"] for pair in pairs) / max(1, len(pairs)), 4)


def _mcnemar(lost: int, gained: int) -> float:
    """The chance of so many losses among the changes, were losses and gains equally likely."""
    total = lost + gained
    return sum(math.comb(total, k) for k in range(lost, total + 1)) / 2**total


def _falls(changes: Sequence[float]) -> float:
    """The chance of a mean so low were there no change; Student's t, taken as normal at this size."""
    if len(changes) < 2 or (spread := statistics.stdev(changes)) == 0:
        return 1.0 if not changes or statistics.fmean(changes) >= 0 else 0.0
    t = statistics.fmean(changes) / (spread / math.sqrt(len(changes)))
    return 0.5 * math.erfc(-t / math.sqrt(2))
