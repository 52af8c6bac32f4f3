"""Templates: what they render to, what they refuse, and that values are never looked into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import InvalidRequest, UnsupportedField
from noria.prompts import Example, Template, TemplateMessage, expand, names_in

WHOLE = Template(
    role="You answer for {{company}}.",
    task="Answer {{ who }} in one line.",
    output="Plain text.",
    examples=(Example(input="Hi", output="Hello from {{company}}."),),
    messages=(TemplateMessage(role="user", content="{{问题}}"),),
)
VALUES = {"company": "Noria", "who": "Ada", "问题": "为什么？"}


def test_blocks_become_one_system_message_then_examples_then_messages() -> None:
    assert WHOLE.variables() == ("company", "who", "问题")
    assert WHOLE.render(VALUES) == [
        {"role": "system", "content": "You answer for Noria.\n\nAnswer Ada in one line.\n\nPlain text."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello from Noria."},
        {"role": "user", "content": "为什么？"},
    ]


def test_a_value_is_never_expanded_again() -> None:
    attack = {**VALUES, "company": "{{who}} \\{{who}} {{", "问题": "{{company}}"}
    rendered = WHOLE.render(attack)
    assert "{{who}} \\{{who}} {{" in rendered[0]["content"]
    assert rendered[-1]["content"] == "{{company}}"


def test_openais_text_part_is_text_and_its_others_are_refused() -> None:
    template = Template(task="{{x}}")
    assert template.render({"x": {"type": "input_text", "text": "t"}})[0]["content"] == "t"
    with pytest.raises(UnsupportedField, match="input_image"):
        template.render({"x": {"type": "input_image", "image_url": "data:"}})
    for bad in (5, None, ["a"], {"type": "input_text"}):
        with pytest.raises(InvalidRequest, match="is not text"):
            template.render({"x": bad})


def test_missing_and_unknown_variables_are_named() -> None:
    with pytest.raises(InvalidRequest) as missing:
        WHOLE.render({"company": "Noria"}, param="prompt.variables")
    assert (missing.value.code, missing.value.param) == ("missing_variable", "prompt.variables")
    assert "who, 问题" in str(missing.value)
    with pytest.raises(InvalidRequest) as unknown:
        WHOLE.render({**VALUES, "compani": "x"})
    assert unknown.value.code == "unknown_variable"
    assert "Did you mean 'company'?" in str(unknown.value)
    with pytest.raises(InvalidRequest, match="It has no variables"):
        Template(task="x").render({"a": "b"})


@pytest.mark.parametrize("broken", ["{{", "{{}}", "a {{ b c }}", "{{1x}}", "{{a", "{{ {{a}} }}", "{{x|upper}}"])
def test_broken_braces_are_refused_where_they_stand(broken: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Template(role="fine", task=broken).check()
    assert error.value.param == "template.task"
    assert error.value.code == "invalid_template"


def test_an_empty_template_is_refused() -> None:
    for empty in (Template(), Template(task="  \n"), Template(model="scripted")):
        with pytest.raises(InvalidRequest, match="empty"):
            empty.check()


def test_escaped_and_single_braces_stay() -> None:
    text = '{"a": {"b": 1}} \\{{name}} {x} }}'
    assert names_in(text) == []
    assert expand(text, str.upper) == '{"a": {"b": 1}} {{name}} {x} }}'


def test_a_diff_names_the_part() -> None:
    newer = WHOLE.model_copy(update={"task": "Answer {{who}} in two lines."})
    diff = WHOLE.diff(newer, ("v1", "v2"))
    assert "-Answer {{ who }} in one line." in diff
    assert "+Answer {{who}} in two lines." in diff
    assert "[task]" in diff
    assert WHOLE.diff(WHOLE, ("v1", "v1")) == ""


@given(st.text(alphabet="ab{}\\ _1é问.-", max_size=40), st.text(max_size=20))
def test_whatever_is_accepted_renders_and_values_arrive_whole(text: str, value: str) -> None:
    template = Template(task="start" + text)
    try:
        names = template.variables()
    except InvalidRequest:
        return
    rendered = template.render(dict.fromkeys(names, value))[0]["content"]
    marked = template.render(dict.fromkeys(names, "\x00"))[0]["content"]
    assert rendered == marked.replace("\x00", value).strip()


def test_what_variables_add_has_an_end() -> None:
    template = Template(task="{{x}}" * 20_000, messages=(TemplateMessage(role="user", content="{{x}}" * 20_000),))
    assert len(template.render({"x": "a" * 200})[0]["content"]) == 4_000_000
    with pytest.raises(InvalidRequest, match="With x the prompt is longer than") as caught:
        template.render({"x": "a" * 300}, param="prompt.variables")
    assert (caught.value.code, caught.value.param) == ("prompt_too_long", "prompt.variables.x")
