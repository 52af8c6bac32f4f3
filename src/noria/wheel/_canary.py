"""A candidate's way into the traffic: its share of the route, step by step, while the guard holds.

The state is a plain dictionary in the turn's row, so that a restart goes on where it was. Live figures come from recorded
traces and feedback, which survive a restart too. Knows nothing about who asks for a roll-back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ._guard import Watch, latency_bound_s
from ._parts import Against, Live, LiveFigures, Traffic
from ._spec import WheelSpec

__all__ = ["CanaryKeeper", "Look"]

_TIMELINE = 400
_WINDOW = 500
"""Requests after which what came of late begins anew."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. `over` with no `breach`: all steps were passed (or the watch is over)."""

    state: dict[str, Any]
    step: int
    over: bool = False
    breach: str | None = None


class CanaryKeeper:
    def __init__(
        self,
        traffic: Traffic,
        live: Live,
        spec: WheelSpec,
        project_id: str,
        data: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        self._traffic, self._live, self._spec, self._project_id = traffic, live, spec, project_id
        self._base, self._candidate, self._salt = data["base"], data["candidate"], data.get("salt", "")
        self._promoted_at: float = data.get("promoted_at", 0.0)
        self._canary: Mapping[str, Any] = data.get("canary") or {}
        self._clock = clock
        self._state: dict[str, Any] = dict(self._canary)

    def resume(self, state: Mapping[str, Any]) -> None:
        self._state = dict(state)

    async def blocked(self) -> str | None:
        """Why the candidate cannot go in: somebody has changed the route since the turn began."""
        shares = await self._traffic.shares(self._project_id, self._spec.route)
        if shares is None:
            return f"The route {self._spec.route!r} was deleted during the turn."
        if set(shares) - {self._base, self._candidate}:
            return f"The route {self._spec.route!r} was changed during the turn: it leads to {', '.join(sorted(shares))}."
        return None

    async def look(self) -> Look:
        """Sets the step's share when it begins; else looks at the live figures and may go to the next step."""
        steps, now = self._spec.canary.steps, self._clock()
        number = int(self._state.get("step", 0))
        if number >= len(steps):
            return Look(self._state, number, over=True)
        step = steps[number]
        # Set at each look: after a crash between the setting and its record, and when somebody has edited the route.
        await self._set(step.share)
        if "begun_at" not in self._state:
            self._state |= {"step": number, "share": step.share, "begun_at": now, "guard": {}}
            self._state.setdefault("first_at", now)
            return Look(self._state, number)
        candidate, base, breach = await self._compare(self._state["first_at"], now)
        self._record(now, candidate, base, step.share)
        if breach is not None:
            self._state["breach"] = breach
            return Look(self._state, number, over=True, breach=breach)
        in_step = candidate.requests - self._state.get("requests_before", 0)
        if in_step >= step.min_requests and now - self._state["begun_at"] >= step.minutes * 60:
            guard = self._state["guard"]
            self._state = {**self._state, "step": number + 1, "requests_before": candidate.requests, "guard": guard}
            del self._state["begun_at"]
            return await self._begin(number + 1)
        if now - self._state["first_at"] > self._spec.canary.max_hours * 3600:
            why = f"The canary saw {in_step} of {step.min_requests} requests in {self._spec.canary.max_hours:g} hours."
            return Look(self._state, number, over=True, breach=why)
        return Look(self._state, number)

    async def _begin(self, number: int) -> Look:
        if number >= len(self._spec.canary.steps):
            return Look(self._state, number, over=True)
        share = self._spec.canary.steps[number].share
        await self._set(share)
        self._state |= {"share": share, "begun_at": self._clock()}
        return Look(self._state, number)

    async def promote(self) -> None:
        await self._traffic.set_shares(self._project_id, self._spec.route, {self._candidate: 1.0}, self._salt)

    async def look_after(self) -> Look:
        """After promotion: the candidate since then, beside what the base did during the canary."""
        now, shares = self._clock(), await self._traffic.shares(self._project_id, self._spec.route)
        if shares is None or set(shares) != {self._candidate}:  # the next turn's canary, or somebody's edit
            self._state["superseded"] = True
            return Look(self._state, 0, over=True)
        reference = LiveFigures(**self._canary["base"]) if self._canary.get("base") else LiveFigures()
        over = now - self._promoted_at >= self._spec.guard.watch_hours * 3600
        candidate, _, breach = await self._compare(self._promoted_at, now, reference, last=over)
        self._record(now, candidate, reference, 1.0)
        if breach is not None:
            self._state["breach"] = breach
            return Look(self._state, 0, over=True, breach=breach)
        return Look(self._state, 0, over=over)

    async def _set(self, share: float) -> None:
        shares = {self._base: 1.0 - share, self._candidate: share} if share < 1 else {self._candidate: 1.0}
        await self._traffic.set_shares(self._project_id, self._spec.route, shares, self._salt)

    async def _compare(
        self, since: float, now: float, reference: LiveFigures | None = None, *, last: bool = False
    ) -> tuple[LiveFigures, LiveFigures, str | None]:
        """Both variants since then, and what is out of bounds, over the whole time or of late."""
        candidate, base, breach = await self._watch("guard", since, reference, last)
        if breach is None and (recent := self._state.get("recent_at")) is not None:
            newest, _, late = await self._watch("recent", recent, reference, last)
            breach = f"Of late: {late}" if late is not None else None
        else:
            newest = candidate
        if newest.requests >= _WINDOW:
            self._state["recent_at"] = now
            self._state["recent"] = {**self._state.get("recent", {}), "seen": {}}
        return candidate, base, breach

    async def _watch(
        self, name: str, since: float, reference: LiveFigures | None, last: bool
    ) -> tuple[LiveFigures, LiveFigures, str | None]:
        guard = self._spec.guard
        base = reference or await self._figures(self._base, since, None)
        candidate = await self._figures(self._candidate, since, latency_bound_s(guard, base))
        watch = Watch.resumed(guard, self._state.get(name), share=0.5)
        breach = watch.breach(candidate, replace(base, slow=0), last=last)
        self._state[name] = watch.state
        return candidate, base, breach

    async def _figures(self, model: str, since: float, slower_than_s: float | None) -> LiveFigures:
        return await self._live.figures(
            self._project_id,
            self._spec.route,
            model,
            since=since,
            slower_than_s=slower_than_s,
            against=Against(self._spec.guard.score_below, self._spec.good.labels),
        )

    def _record(self, now: float, candidate: LiveFigures, base: LiveFigures, share: float) -> None:
        """The newest figures, and a line of the report's plot when something was new."""
        new = {"candidate": asdict(candidate), "base": asdict(base)}
        if any(self._state.get(name) != value for name, value in new.items()):
            counted = ("requests", "errors", "feedback", "negative")
            point = [round(now, 1), share, *(figures[key] for figures in new.values() for key in counted)]
            timeline = [*self._state.get("timeline", []), point]
            self._state["timeline"] = timeline if len(timeline) <= _TIMELINE else timeline[::2]
        self._state |= new
