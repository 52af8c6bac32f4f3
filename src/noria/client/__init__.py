"""What every client of Noria's API needs, whichever library carries its calls: answers as errors or JSON, events, the address.

Knows nothing of commands and pages, and opens no connection.
"""

from ._answers import error_from, event_error, json_of, no_noria
from ._events import EventReader, events
from ._figures import money, seconds, size
from ._running import Announced, announced

__all__ = [
    "Announced",
    "EventReader",
    "announced",
    "error_from",
    "event_error",
    "events",
    "json_of",
    "money",
    "no_noria",
    "seconds",
    "size",
]
