"""The embedder: a process that turns texts into vectors behind OpenAI's embeddings route.

`python -m noria.engines.embedding` is the process; `prepare_e5` makes the folder that it serves. Inside, a request
passes through `_app` (HTTP), `_request` (the body, the tokens), `_batcher` (queues) and `_encoder` (OpenVINO).
"""

from noria.engines.embedding._model_folder import EmbeddingCard, prepare_e5, read_card

__all__ = ["EmbeddingCard", "prepare_e5", "read_card"]
