"""One door to every model: protocol, cards, catalogue, providers, engines, routes, prices."""

from ._cards import MODEL_ID, ModelCard, Price, RouteSpec, RouteTarget, Usage, tuned_card
from ._catalogue import Catalogue, CatalogueFilter, ProviderSpec, builtin_providers
from ._gguf_cards import card_of_gguf
from ._hub import Hub, Resolved
from ._prices import cost_usd, read_usage
from ._protocol import Call, Model, Operation, Reply
from ._provider_keys import origin_of
from ._routes import HOPELESS, Retry, Retrying, Route, sticky_key
from ._sse import SSEDecoder, WholeEvents, chunks, is_stream_error, stream_error
from ._stream_facts import error_in
from ._traced import Observed, call_model
from ._wire import WireClient

__all__ = [
    "HOPELESS",
    "MODEL_ID",
    "Call",
    "Catalogue",
    "CatalogueFilter",
    "Hub",
    "Model",
    "ModelCard",
    "Observed",
    "Operation",
    "Price",
    "ProviderSpec",
    "Reply",
    "Resolved",
    "Retry",
    "Retrying",
    "Route",
    "RouteSpec",
    "RouteTarget",
    "SSEDecoder",
    "Usage",
    "WholeEvents",
    "WireClient",
    "builtin_providers",
    "call_model",
    "card_of_gguf",
    "chunks",
    "cost_usd",
    "error_in",
    "is_stream_error",
    "origin_of",
    "read_usage",
    "sticky_key",
    "stream_error",
    "tuned_card",
]
