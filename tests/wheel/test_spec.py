"""Specifications: what is refused, and that what is refused is named."""

from __future__ import annotations

from typing import Any

import pytest

from noria.errors import InvalidRequest
from noria.wheel import check_spec, parse_toml
from noria.wheel._spec import Trigger, parse_duration_s
from noria.wheel._triggers import is_due

WHOLE = """
name = "support"
base_model = "smollm2-135m-instruct"
route = "help"

[traffic]
metadata = { app = "desk" }
since_days = 30

[good]
thumbs_up = true
labels = true
min_agreement = 0.6

[data]
near_duplicates = "remove"
personal_data = "stop"
max_rows = 5000

[train]
method = "supervised"
minutes = 12
hyperparameters = { n_epochs = 2 }
options = { lora_rank = 16 }

[gate]
max_rows = 400
alpha = 0.01
[[gate.graders]]
type = "string_check"
name = "label"
operation = "ilike"
input = "{{sample.output_text}}"
reference = "{{item.expected}}"

[canary]
steps = [{ share = 0.1, min_requests = 50, minutes = 10 }, { share = 0.5 }]

[guard]
max_error_rate = 0.02
watch_hours = 6

[approval]
mode = "manual"

[trigger]
every = "24h"
new_feedback = 500

[budget]
minutes = 60
"""


def test_a_whole_specification_survives_json() -> None:
    spec = check_spec(parse_toml(WHOLE))
    assert spec.route == "help" and spec.canary.steps[1].min_requests == 100
    assert check_spec(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"canary": {"share": 0.1}}, "canary.share"),
        ({"canary": {"steps": [{"share": 0.5}, {"share": 0.1}]}}, "canary"),
        ({"gate": {"max_rows": 501}}, "gate.max_rows"),
        ({"gate": {"split": "test"}}, "gate.split"),
        ({"good": {"thumbs_up": False, "corrections": False}}, "good"),
        ({"data": {"exact_duplicates": "burn"}}, "data.exact_duplicates"),
        ({"trigger": {"every": "soon"}}, "trigger"),
        ({"trigger": {"at": "25:00"}}, "trigger.at"),
        ({"route": "small"}, "route"),
        ({"name": "with space"}, "name"),
        ({"train": {"method": "reinforcement"}}, "train.method"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_spec({"name": "support", "base_model": "small", **change})
    assert named in str(caught.value)


def test_what_is_not_toml_is_said() -> None:
    with pytest.raises(InvalidRequest, match="not TOML"):
        parse_toml("name = ")


def test_durations() -> None:
    assert [parse_duration_s(text) for text in ("90s", "1.5m", "24h", "7d")] == [90, 90, 86400, 604800]
    with pytest.raises(ValueError):
        parse_duration_s("0h")


def test_triggers_by_the_clock() -> None:
    day = 86400.0
    assert is_due(Trigger(every="24h"), 0, day) and not is_due(Trigger(every="24h"), 1, day)
    at_three = Trigger(at="03:00")
    assert is_due(at_three, 10 * day, 10 * day + 3 * 3600 + 1)
    assert not is_due(at_three, 10 * day + 3 * 3600 + 1, 10 * day + 5 * 3600)
    assert not is_due(at_three, 10 * day + 3600 * 4, 11 * day + 3600)
    assert not is_due(Trigger(), 0, day)
