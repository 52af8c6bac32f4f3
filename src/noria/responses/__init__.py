"""The server-side loop of a response: model, tools, knowledge, conversation state."""

from ._draft import Event
from ._prompts import PRODUCTION, PromptStore, mark_trace
from ._request import ResponseRequest
from ._responder import Responder, Running

__all__ = ["PRODUCTION", "Event", "PromptStore", "Responder", "ResponseRequest", "Running", "mark_trace"]
