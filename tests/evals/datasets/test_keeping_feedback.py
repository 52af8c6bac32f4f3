"""Feedback kept by two at once: each opinion once, and none lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from noria.evals._feedback import FeedbackStore, Opinion
from noria.evals._feedback_targets import Found, Target, TargetFinder, parse_target
from noria.store import DEFAULT_PROJECT, Feedback
from tests.evals.datasets.conftest import Bench


async def test_what_another_process_has_kept_meanwhile_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def there(self: TargetFinder, project_id: str, targets: Sequence[Target]) -> list[Found | None]:
        return [Found(target, None, None, "m") for target in targets]

    monkeypatch.setattr(TargetFinder, "find_all", there)
    here, other = (FeedbackStore(bench.database, bench.tracing.store, lambda _: True) for _ in range(2))
    said = [(parse_target("chatcmpl-1"), Opinion(rating="up", external_id=f"{n}")) for n in range(3)]
    look = here._by_external  # pyright: ignore[reportPrivateUsage]

    async def late(project_id: str, ids: Sequence[str]) -> dict[str, Feedback]:
        """Looks; and only then the other keeps what was looked for."""
        known = await look(project_id, ids)
        await other.create_all(project_id, said[:1])
        return known

    monkeypatch.setattr(here, "_by_external", late)
    made, problems = await here.create_all(DEFAULT_PROJECT, said)
    assert ([row.external_id for row in made], problems) == (["1", "2"], [None] * 3)
