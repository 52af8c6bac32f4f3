"""A conversation with a model, over /v1/chat/completions: one message, or a prompt that remembers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from noria.errors import InvalidRequest, NoriaError

from ._api import Api
from ._command import target
from ._connection import connect, settings_of
from ._show import note, print_json

__all__ = ["Conversation", "Talk", "run_chat"]

_HELP = """\
/model [NAME]   show or change the model
/system [TEXT]  show or set the instructions (and begin anew)
/clear          forget the conversation
/save FILE      write it to a file: .json for the messages, else Markdown
/help           this
/exit           leave (also Ctrl-D)
A line that ends in \\ goes on in the next. Ctrl-C stops an answer."""
_HISTORY_LINES = 1000


@dataclass(frozen=True, slots=True)
class Talk:
    """What the command line says; None leaves it to the model's card."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None

    def body(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        sampling = {"temperature": self.temperature, "max_completion_tokens": self.max_tokens, "seed": self.seed}
        given = {name: value for name, value in sampling.items() if value is not None}
        return {"model": self.model, "messages": messages, **given}


@dataclass(slots=True)
class Conversation:
    """The messages so far."""

    talk: Talk
    messages: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.messages = [{"role": "system", "content": self.talk.system}] if self.talk.system else []

    def as_markdown(self) -> str:
        names = {"system": "System", "user": "You", "assistant": self.talk.model or "Model"}
        return "\n".join(f"**{names[message['role']]}**\n\n{message['content']}\n" for message in self.messages)


def run_chat(talk: Talk, message: str | None) -> None:
    """The command: one message when one is given or piped in, else the prompt."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read()
    once = "\n\n".join(part for part in (message, piped.strip()) if part)
    if not once and not sys.stdin.isatty():
        raise InvalidRequest("There is nothing to send: standard input is empty.", hint='Give a message with -m "…".')
    with connect() as api:
        if talk.model is None:
            talk = replace(talk, model=api.get("/v1/noria/status")["chat_model"])
        if once:
            _once(api, Conversation(talk), once)
        elif target().json:
            raise InvalidRequest("--json prints one answer.", hint='Give the message with -m "…".')
        else:
            _converse(api, Conversation(talk))


def _once(api: Api, conversation: Conversation, message: str) -> None:
    conversation.messages.append({"role": "user", "content": message})
    body = conversation.talk.body(conversation.messages)
    if target().json:
        print_json(api.post("/v1/chat/completions", body))
        return
    _answer(api, body)


def _answer(api: Api, body: dict[str, Any]) -> str:
    """Prints an answer as it comes, and returns it."""
    text, why = "", None
    with api.stream("/v1/chat/completions", {**body, "stream": True}) as reply:
        try:
            for chunk in reply.events:
                for choice in chunk["choices"]:
                    piece = choice["delta"].get("content") or ""
                    text += piece
                    why = choice.get("finish_reason") or why
                    print(piece, end="", flush=True)
        finally:
            print(flush=True)
    if why == "length":
        note("(cut off at the token limit)")
    return text


def _converse(api: Api, conversation: Conversation) -> None:
    note(f"{conversation.talk.model} · /help for help, Ctrl-D to leave")
    with _line_editing(settings_of().settings.home / "chat_history"):
        for line in _lines():
            if line.startswith("/"):
                if not _obey(api, conversation, line):
                    return
                continue
            conversation.messages.append({"role": "user", "content": line})
            try:
                said = _answer(api, conversation.talk.body(conversation.messages))
            except KeyboardInterrupt:
                note("(stopped)")
                conversation.messages.pop()
            except NoriaError as error:
                note(f"{error}")
                conversation.messages.pop()
            else:
                conversation.messages.append({"role": "assistant", "content": said})


def _lines() -> Iterator[str]:
    """What the user types, until the end of input. Ctrl-C drops the line."""
    held = ""
    while True:
        try:
            line = input("… " if held else "> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            held = ""
            continue
        held += line
        if held.endswith("\\"):
            held = held[:-1] + "\n"
        elif held.strip():
            yield held.strip()
            held = ""


def _obey(api: Api, conversation: Conversation, line: str) -> bool:
    """Does what a line that begins with / says. False: leave."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name in {"/exit", "/quit"}:
        return False
    commands: dict[str, Callable[[], None]] = {
        "/help": lambda: print(_HELP),
        "/model": lambda: _set_model(api, conversation, rest),
        "/system": lambda: _set_system(conversation, rest),
        "/clear": conversation.clear,
        "/save": lambda: _save(conversation, rest),
    }
    if name not in commands:
        note(f"There is no {name}; /help lists what there is.")
        return True
    try:
        commands[name]()
    except NoriaError as error:
        note(f"{error}")
    return True


def _set_model(api: Api, conversation: Conversation, name: str) -> None:
    if name:
        from urllib.parse import quote

        card = api.get(f"/v1/noria/models/{quote(name)}")
        conversation.talk = replace(conversation.talk, model=card["id"])
    print(conversation.talk.model)


def _set_system(conversation: Conversation, text: str) -> None:
    if text:
        conversation.talk = replace(conversation.talk, system=text)
        conversation.clear()
    print(conversation.talk.system or "(none)")


def _save(conversation: Conversation, name: str) -> None:
    if not name:
        raise InvalidRequest("Give a file: /save FILE.")
    path = Path(name).expanduser()
    as_json = json.dumps(conversation.messages, ensure_ascii=False, indent=2) + "\n"
    try:
        path.write_text(as_json if path.suffix == ".json" else conversation.as_markdown(), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}.") from None
    print(f"Saved to {path}.")


@contextlib.contextmanager
def _line_editing(history: Path) -> Generator[None, None, None]:
    """Arrow keys and a history that lasts, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(mode=0o600)
            readline.write_history_file(history)
