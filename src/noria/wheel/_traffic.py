"""A wheel's route in the catalogue: its weights, and loading a model before it gets any."""

from __future__ import annotations

from collections.abc import Mapping

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.models import Hub, ModelCard, RouteSpec, RouteTarget

__all__ = ["HubTraffic"]


class HubTraffic:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def warm(self, project_id: str, model: str) -> None:
        await self._hub.warm(model, project_id)

    async def shares(self, project_id: str, route: str) -> Mapping[str, float] | None:
        card = (await self._hub.catalogue.added(project_id)).get(route)
        if card is None or card.route is None:
            return None
        total = sum(target.weight for target in card.route.targets)
        return {target.model: target.weight / total for target in card.route.targets if target.weight > 0}

    async def set_shares(self, project_id: str, route: str, shares: Mapping[str, float], salt: str) -> None:
        """Writes the card, if it is not so already. The base comes first, so that users with the candidate keep it as its
        share grows: who is drawn stays with the salt."""
        before = (await self._hub.catalogue.added(project_id)).get(route)
        targets = tuple(RouteTarget(model=model, weight=weight) for model, weight in shares.items() if weight > 0)
        spec = RouteSpec(strategy="weighted", targets=targets, sticky=True, salt=salt)
        if before is not None and before.route == spec:
            return
        if before is None:
            card = ModelCard(id=route, source="route", task="chat", title=route, route=spec)
        else:
            card = before.model_copy(update={"route": spec})
        await self._hub.catalogue.add(card, project_id)

    async def base(self, project_id: str, base_model: str) -> str:
        """The id of a base model. Raises NotFound, InvalidRequest for one that does not chat."""
        card, _ = await self._hub.catalogue.find(base_model, project_id)
        if card.task != "chat":
            raise InvalidRequest(
                f"{base_model!r} is a model for {card.task}.", param="base_model", hint="A chat model is needed."
            )
        return card.id

    async def prepare(self, project_id: str, route: str, base_model: str) -> str:
        """Makes the route, or takes over one with a single target; the model it leads to. Raises Conflict, NotFound."""
        base_id = await self.base(project_id, base_model)
        try:
            found, alias = await self._hub.catalogue.find(route, project_id)
        except NotFound:
            await self.set_shares(project_id, route, {base_id: 1.0}, "")
            return base_id
        if alias is not None or found.route is None:
            raise Conflict(
                f"{route!r} is a model already.",
                param="route",
                hint="Give the wheel a route with a name of its own: --route NAME",
            )
        targets = [target.model for target in found.route.targets if target.weight > 0]
        if len(targets) != 1:
            raise Conflict(
                f"The route {route!r} leads to {len(targets)} models.", param="route", hint="Leave one, or name another route."
            )
        return targets[0]
