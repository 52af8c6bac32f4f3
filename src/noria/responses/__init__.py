"""The server-side loop of a response: model, tools, knowledge, conversation state."""

from ._draft import Event
from ._request import ResponseRequest
from ._responder import Responder

__all__ = ["Event", "Responder", "ResponseRequest"]
