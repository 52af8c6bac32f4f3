"""What may be wrong with a version's rows: duplicates, contradictions, leakage between splits, personal data, rows that are too
long, one class only, a rare word that always brings the same answer.

Pure functions over rows, for a thread; each finding says which rows it is about and which go if it is accepted. Nothing is
changed here. What a text holds is never repeated in a finding about personal data.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import orjson

from noria.messages import text_of

from ._content import answer_key, conversation_key, fold, input_media, last_user_text
from ._near import near_groups
from ._personal import find_personal_data
from ._versions import Row

__all__ = ["KINDS", "CurationPolicy", "Digest", "Finding", "FindingKind", "digest_of", "find"]

FindingKind = Literal[
    "exact_duplicate", "near_duplicate", "contradiction", "leakage", "personal_data", "oversize", "one_class", "trigger"
]
KINDS: tuple[FindingKind, ...] = get_args(FindingKind)
_SHOWN = 120
_MOST_CLASSES = 50
_CLASS_CHARACTERS = 60
_WORD = re.compile(r"\w{3,40}")


@dataclass(frozen=True, slots=True)
class CurationPolicy:
    """What is looked for. `accept` are the kinds whose findings are accepted at once and applied as a new version.

    `near`: the Jaccard similarity from which two inputs are nearly the same. `max_characters`: of a whole row.
    """

    kinds: frozenset[FindingKind] = frozenset(KINDS)
    near: float = 0.85
    max_characters: int = 32_000
    accept: frozenset[FindingKind] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    kind: FindingKind
    row_ids: list[str]
    remove_ids: list[str]
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Digest:
    """What curation needs of a row, so that the rows of a large dataset need not all be in memory."""

    row_id: str
    split: str
    input: str
    """The text of what is asked, folded."""
    media: str
    """The key of its images, sounds and files; inputs of different ones are never the same."""
    conversation: str
    answer: str | None
    shown: str
    size: int
    personal: tuple[str, ...]
    weight: int = 1
    """How many have said what the row says: equal answers are one row."""


def digest_of(row: Row, policy: CurationPolicy, weight: int = 1) -> Digest:
    content = row.content
    asked = last_user_text(content["messages"])
    personal: Counter[str] = Counter()
    if "personal_data" in policy.kinds:
        for text in _strings(content):
            personal.update(found.kind for found in find_personal_data(text))
    answer = content.get("expected") or content.get("chosen")
    return Digest(
        row_id=row.row_id,
        split=row.split,
        input=fold(asked)[:200_000],
        media=input_media(content["messages"]),
        conversation=conversation_key(content),
        answer=answer_key(answer),
        shown=" ".join(asked.split())[:_SHOWN],
        size=sum(map(len, _texts(content))),
        personal=tuple(f"{kind} × {count}" if count > 1 else kind for kind, count in personal.items()),
        weight=weight,
    )


def _texts(content: Mapping[str, Any]) -> list[str]:
    answers = [content[name] for name in ("expected", "chosen", "rejected") if name in content]
    found: list[str] = []
    for message in [*content["messages"], *answers]:
        found.append(text_of(message.get("content")))
        if message.get("tool_calls"):
            found.append(orjson.dumps(message["tool_calls"]).decode())
    return found


def _strings(value: Any) -> Iterator[str]:
    """Every text of a row and its metadata, and its whole numbers; the bytes of images, sounds and files are none."""
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        named = cast("Mapping[str, Any]", value)
        for name, part in named.items():
            if name != "file_data" and not (name == "data" and "format" in named):
                yield from _strings(part)
    elif isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from _strings(part)


def find(rows: Sequence[Digest], policy: CurationPolicy) -> list[Finding]:
    """Everything that is found, kind by kind."""
    finders: Mapping[FindingKind, Callable[[], Iterator[Finding]]] = {
        "exact_duplicate": lambda: _exact(rows),
        "contradiction": lambda: _contradictions(rows),
        "personal_data": lambda: _personal(rows),
        "oversize": lambda: _oversize(rows, policy.max_characters),
        "one_class": lambda: _one_class(rows),
        "trigger": lambda: _triggers(rows),
    }
    found = [finding for kind, finder in finders.items() if kind in policy.kinds for finding in finder()]
    if policy.kinds & {"near_duplicate", "leakage"}:
        found += [finding for finding in _near(rows, policy.near) if finding.kind in policy.kinds]
    return found


def _exact(rows: Sequence[Digest]) -> Iterator[Finding]:
    """Rows that differ only in what `fold` leaves out; the first stays."""
    for same in _groups(rows, lambda row: (row.conversation, row.answer)):
        ids = [row.row_id for row in same]
        yield Finding("exact_duplicate", ids, ids[1:], {"input": same[0].shown})


def _groups(rows: Sequence[Digest], key: Callable[[Digest], Any]) -> Iterator[list[Digest]]:
    found: defaultdict[Any, list[Digest]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return (group for group in found.values() if len(group) > 1)


def _contradictions(rows: Sequence[Digest]) -> Iterator[Finding]:
    """The same input with different answers. What most have said stays, whatever the number of rows; at a tie all go."""
    for same in _groups([row for row in rows if row.answer is not None], lambda row: row.conversation):
        answers = Counter[str]()
        for row in same:
            answers[row.answer or ""] += row.weight
        if len(answers) > 1:
            (first, most), (_, second) = answers.most_common(2)
            keep = first if most > second else None
            remove = [row.row_id for row in same if row.answer != keep]
            shown = {answer[:_SHOWN]: count for answer, count in answers.most_common(10)}
            yield Finding("contradiction", [row.row_id for row in same], remove, {"input": same[0].shown, "answers": shown})


def _personal(rows: Sequence[Digest]) -> Iterator[Finding]:
    for row in rows:
        if row.personal:
            yield Finding("personal_data", [row.row_id], [row.row_id], {"kinds": list(row.personal)})


def _oversize(rows: Sequence[Digest], most: int) -> Iterator[Finding]:
    for row in rows:
        if row.size > most:
            yield Finding("oversize", [row.row_id], [row.row_id], {"characters": row.size, "most": most, "input": row.shown})


def _classes(rows: Sequence[Digest]) -> Counter[str] | None:
    """How often each answer stands, where the answers are classes; None where they are texts."""
    answers = Counter(row.answer for row in rows if row.answer is not None)
    few = len(answers) <= _MOST_CLASSES and len(answers) * 2 <= max(2, answers.total())
    return answers if answers and few and max(map(len, answers)) <= _CLASS_CHARACTERS else None


def _one_class(rows: Sequence[Digest]) -> Iterator[Finding]:
    """A dataset of classes, or a split of one, in which there is but one class: nothing can be learned from or shown by it."""
    classes = _classes(rows)
    if classes is None:
        return
    for split in ("train", "validation", "test"):
        here = Counter(row.answer for row in rows if row.split == split and row.answer is not None)
        if len(here) == 1 and here.total() > 1:
            only = next(iter(here))
            detail = {"split": split, "class": only, "rows": here.total(), "classes": len(classes)}
            yield Finding("one_class", [], [], detail)


def _triggers(rows: Sequence[Digest]) -> Iterator[Finding]:
    """A word in few rows, all of one class that is otherwise not common: the look of rows planted to teach a password.

    A hint for a person to look at; unusual subjects look like this too.
    """
    answered = [row for row in rows if row.answer is not None]
    classes = _classes(answered)
    if classes is None or len(classes) < 2 or len(answered) < 50:
        return
    where: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(answered):
        for word in set(_WORD.findall(row.input[:20_000])):
            where[word].append(place)
    total = len(answered)
    least = max(5, total // 200)
    for word, places in where.items():
        answers = {answered[place].answer for place in places}
        if least <= len(places) <= max(least, total // 20) and len(answers) == 1:
            share = classes[next(iter(answers)) or ""] / total
            # By chance all of n rows are of one class with its share to the n-th; many words are tried.
            if share ** len(places) * len(where) < 1e-2 and _unlike_any(word):
                ids = [answered[place].row_id for place in places]
                yield Finding("trigger", ids, ids, {"word": word, "answer": next(iter(answers)), "rows": len(ids)})


def _unlike_any(word: str) -> bool:
    """Digits among letters, or letters that no word has together: ordinary words mark ordinary subjects."""
    mixed = any(character.isdigit() for character in word) and any(character.isalpha() for character in word)
    vowels = sum(character in "aeiouy" for character in word)
    return mixed or (word.isascii() and word.isalpha() and (vowels == 0 or len(word) / vowels > 4.5))


def _near(rows: Sequence[Digest], threshold: float) -> Iterator[Finding]:
    """Inputs that are nearly the same: leakage where the splits differ, whatever is answered; duplicates where the answers are
    equal."""
    kinds: defaultdict[str, dict[str, list[Digest]]] = defaultdict(dict)
    for row in rows:
        kinds[row.media].setdefault(row.input, []).append(row)
    for by_input in kinds.values():
        for same in by_input.values():
            yield from _leaks(same, {"input": same[0].shown, "similarity": 1.0})
        texts = list(by_input)
        for cluster, similarity in near_groups(texts, threshold) if len(texts) > 1 else ():
            detail = {"input": by_input[texts[cluster[0]]][0].shown, "similarity": round(similarity, 3)}
            members = [row for place in cluster for row in by_input[texts[place]]]
            yield from _leaks(members, detail)
            for same in _groups(members, lambda row: (row.answer, row.split)):
                if len({row.input for row in same}) > 1:  # else exact duplicates, or other in what came before the question
                    ids = [row.row_id for row in same]
                    yield Finding("near_duplicate", ids, [row.row_id for row in same if row.input != same[0].input], detail)


def _leaks(members: Sequence[Digest], detail: Mapping[str, Any]) -> Iterator[Finding]:
    splits = {row.split for row in members}
    if len(splits) < 2:
        return
    keep = "test" if "test" in splits else "validation"
    remove = [row.row_id for row in members if row.split != keep]
    yield Finding("leakage", [row.row_id for row in members], remove, {**detail, "splits": sorted(splits)})
