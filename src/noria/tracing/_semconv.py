"""The names of span attributes that Noria writes and reads.

OpenTelemetry's GenAI names where it has one, `noria.*` where it has not. Other libraries' names live in
`_normalise.py`, the only reader of them. Knows nothing about how spans are stored.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/ (status: development, so the names are pinned here).
"""

from __future__ import annotations

from typing import Final

# What ran.
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
AGENT_NAME: Final = "gen_ai.agent.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
ERROR_TYPE: Final = "error.type"

# Usage.
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"

# Content: JSON text or structured, in OpenTelemetry's "parts" shape or in OpenAI's chat shape.
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"

# Values of OPERATION.
CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
RETRIEVAL: Final = "retrieval"
RERANK: Final = "rerank"

# What OpenTelemetry has no name for.
PROJECT: Final = "noria.project"
KEY_ID: Final = "noria.key_id"
COST_USD: Final = "noria.cost_usd"
TTFT_S: Final = "noria.ttft_s"
ROUTE: Final = "noria.route.name"
ROUTE_VARIANT: Final = "noria.route.variant"
ALIAS: Final = "noria.model.alias"
METADATA_PREFIX: Final = "noria.metadata."
USER_ID: Final = "user.id"
# Which stored prompt ran. Traces are found by these, as by metadata.
PROMPT_ID: Final = "noria.prompt.id"
PROMPT_NAME: Final = "noria.prompt.name"
PROMPT_VERSION: Final = "noria.prompt.version"
# Set to True on a span whose usage repeats what its children report, so that a trace's sums count it once.
ROLLUP: Final = "noria.usage.rollup"

# Set to False on a span whose content must not be stored, whatever the settings say.
CAPTURE: Final = "noria.capture_content"

# Content that is not messages (a retrieval's query and passages, a job's arguments), and what a request asked for
# beside its messages. A replay is INPUT_MESSAGES or INPUT, plus REQUEST, plus TOOL_DEFINITIONS.
INPUT: Final = "noria.input"
OUTPUT: Final = "noria.output"
REQUEST: Final = "noria.request"
