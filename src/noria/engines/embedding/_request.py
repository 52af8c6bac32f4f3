"""`POST /v1/embeddings`: the body, checked, and the answer, written. Knows nothing about sockets or the model.

Two fields are Noria's own: `input_type` (`query` or `passage`: the E5 family was trained with a prefix before each kind;
default: the card's, `query`, which its authors advise where both sides go through one call) and `truncate` (cut long inputs
instead of refusing them). Source of the rest: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError
from tokenizers import Encoding, Tokenizer

from noria.engines.embedding._model_folder import EmbeddingCard, InputType
from noria.errors import ContextTooLong, InvalidRequest, NotFound, UnsupportedField

__all__ = ["MAX_INPUTS", "EmbeddingRequest", "Tokens", "parse_request", "write_answer"]

MAX_INPUTS = 2048
"""OpenAI's limit."""


class EmbeddingRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: StrictStr
    input: StrictStr | list[StrictStr] | list[StrictInt] | list[list[StrictInt]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: StrictInt | None = None
    user: StrictStr | None = None
    """OpenAI's label for the end user: it has no effect on the answer, here as there."""
    input_type: InputType | None = None
    truncate: bool = False


def parse_request(body: bytes, name: str, card: EmbeddingCard) -> EmbeddingRequest:
    """The request, or the error that names its field. `name` is the model this worker serves."""
    try:
        fields: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", code="invalid_json") from error
    if isinstance(fields, dict):
        for field in fields:
            if field not in EmbeddingRequest.model_fields:
                raise UnsupportedField(f"Unknown field {field!r}.", param=str(field))
    try:
        request = EmbeddingRequest.model_validate(fields)
    except ValidationError as error:
        raise _first_fault(error) from error
    if request.model != name:
        raise NotFound(f"This engine serves {name!r}, not {request.model!r}.", param="model", code="model_not_found")
    if request.dimensions is not None and request.dimensions != card.dimensions:
        raise InvalidRequest(
            f"dimensions must be {card.dimensions}, not {request.dimensions}.",
            param="dimensions",
            code="invalid_dimensions",
            hint="This model was not trained to keep its meaning when its vectors are cut.",
        )
    inputs = request.input
    if not inputs:
        raise InvalidRequest("input is empty.", param="input", code="empty_input")
    if isinstance(inputs, list) and not isinstance(inputs[0], int) and len(inputs) > MAX_INPUTS:
        raise InvalidRequest(
            f"input has {len(inputs)} items; the most in one request is {MAX_INPUTS}.",
            param="input",
            code="too_many_inputs",
        )
    return request


def _first_fault(error: ValidationError) -> InvalidRequest:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = str(fault["loc"][0]) if fault["loc"] else None
    if where == "input":
        return InvalidRequest(
            "input must be a string, a list of strings, a list of token ids or a list of such lists.", param="input"
        )
    return InvalidRequest(f"{where or 'The body'}: {fault['msg']}.", param=where)


class Tokens:
    """Turns a request's input into token ids, with the prefix that the model was trained to find."""

    def __init__(self, tokenizer: Tokenizer, card: EmbeddingCard) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._card = card

    def of(self, request: EmbeddingRequest) -> list[Sequence[int]]:
        """The ids of each input, the special tokens included; raises on an empty or a too long one."""
        inputs = request.input
        if isinstance(inputs, str):
            inputs = [inputs]
        if isinstance(inputs[0], int):
            inputs = [inputs]
        many = len(inputs) > 1
        if isinstance(inputs[0], str):
            return self._texts([str(text) for text in inputs], request, many)
        rows: list[Sequence[int]] = []
        for index, ids in enumerate(inputs):
            param = f"input[{index}]" if many else "input"
            rows.append(self._fit(self._checked_ids(ids, param), request.truncate, param))
        return rows

    def _texts(self, texts: list[str], request: EmbeddingRequest, many: bool) -> list[Sequence[int]]:
        prefixes = tuple(self._card.prefixes.values())
        prefix = self._card.prefixes[request.input_type or self._card.default_input_type]
        for index, text in enumerate(texts):
            if not text:
                param = f"input[{index}]" if many else "input"
                raise InvalidRequest(f"{param} is an empty string.", param=param, code="empty_input")
            # A caller who knows the model has put the prefix himself.
            if request.input_type is not None or not text.startswith(prefixes):
                texts[index] = prefix + text
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(texts)
        return [
            self._fit(encoding.ids, request.truncate, f"input[{index}]" if many else "input")
            for index, encoding in enumerate(encodings)
        ]

    def _checked_ids(self, ids: Any, param: str) -> Sequence[int]:
        """Ids made by another model's tokenizer (some clients send OpenAI's) would give a vector that means nothing, so
        only whole sequences of this tokenizer are taken: they begin and end with its special tokens.
        """
        if not ids:
            raise InvalidRequest(f"{param} is an empty list.", param=param, code="empty_input")
        card = self._card
        if ids[0] != card.bos_id or ids[-1] != card.eos_id or min(ids) < 0 or max(ids) >= card.vocabulary:
            raise InvalidRequest(
                f"{param} was not made by this model's tokenizer.",
                param=param,
                code="foreign_tokens",
                hint=f"Send text, or ids that begin with {card.bos_id} and end with {card.eos_id} as this model's "
                "tokenizer writes them (LangChain: check_embedding_ctx_length=False).",
            )
        return ids

    def _fit(self, ids: Sequence[int], truncate: bool, param: str) -> Sequence[int]:
        limit = self._card.max_tokens
        if len(ids) <= limit:
            return ids
        if truncate:
            return [*ids[: limit - 1], self._card.eos_id]
        raise ContextTooLong(
            f"{param} has {len(ids)} tokens; this model reads at most {limit}.",
            param=param,
            hint='Split the text, or send "truncate": true to have it cut.',
        )


def write_answer(request: EmbeddingRequest, vectors: NDArray[np.float32], num_tokens: int) -> bytes:
    """OpenAI's `list` of `embedding` objects. base64 holds little-endian f32."""
    embeddings: list[Any]
    if request.encoding_format == "base64":
        embeddings = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        embeddings = list(vectors)
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(embeddings)],
        "model": request.model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
