"""Chat with whatever model the server has, streaming. Run: python examples/chat.py "What does a water wheel do?"

Needs OPENAI_BASE_URL (http://127.0.0.1:8420/v1) and OPENAI_API_KEY (any value while no key exists).
"""

import sys

from openai import OpenAI


def main() -> None:
    question = " ".join(sys.argv[1:]) or "What does a water wheel do?"
    stream = OpenAI().chat.completions.create(
        model="gpt-4o-mini",  # an alias of the local default model
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage:
            print(f"\n({chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out)")


if __name__ == "__main__":
    main()
