"""Who gets the candidate: the same users throughout, more of them as its share grows, others in the next turn."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from noria.models import Call, ModelCard, Route, RouteSpec, RouteTarget, sticky_key
from noria.models._routes import choose


def _variant(user: str, share: float, salt: str) -> str:
    targets = (RouteTarget(model="base", weight=1 - share), RouteTarget(model="candidate", weight=share))
    spec = RouteSpec(strategy="weighted", targets=targets, sticky=True, salt=salt)
    route = Route(ModelCard(id="support", source="route", route=spec), None)  # type: ignore[arg-type]
    draw = route._draw(Call("chat", {}, sticky=user))  # pyright: ignore[reportPrivateUsage]
    return choose(targets, draw).model


@settings(max_examples=200)
@given(st.text(min_size=1), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.text(max_size=20))
def test_a_user_keeps_the_variant_and_never_loses_the_candidate_as_its_share_grows(
    user: str, one: float, other: float, salt: str
) -> None:
    small, large = sorted((one, other))
    assert _variant(user, small, salt) == _variant(user, small, salt)
    if _variant(user, small, salt) == "candidate":
        assert _variant(user, large, salt) == "candidate"


def test_the_share_is_kept_over_many_users_and_another_salt_draws_others() -> None:
    users = [f"user-{number}" for number in range(4000)]
    first = {user for user in users if _variant(user, 0.1, "turn_1") == "candidate"}
    second = {user for user in users if _variant(user, 0.1, "turn_2") == "candidate"}
    assert 320 < len(first) < 480  # 400 expected, ± 4 standard deviations
    assert len(first & second) < 0.3 * len(first)


def test_what_a_request_says_of_who_asks() -> None:
    assert sticky_key("safe", "user", {"conversation_id": "c"}) == "safe"
    assert sticky_key(None, "user", {"conversation_id": "c"}) == "user"
    assert sticky_key(None, None, {"topic": "x", "session_id": "s"}) == "s"
    assert sticky_key(None, None, None) is None
