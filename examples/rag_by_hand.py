"""Retrieval-augmented generation without a framework: search, write the prompt yourself, ask any model.

Run: python examples/rag_by_hand.py STORE "question", where STORE is a vector store's name or id.
"""

import sys

from openai import OpenAI

PROMPT = "Answer from these passages only; say so if they do not hold the answer.\n\n{passages}\n\nQuestion: {question}"


def main() -> None:
    store, question = sys.argv[1], sys.argv[2]
    client = OpenAI()
    found = client.vector_stores.search(store, query=question, max_num_results=4)
    passages = "\n\n".join(f"[{number}] {hit.content[0].text}" for number, hit in enumerate(found.data, start=1))
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": PROMPT.format(passages=passages, question=question)}],
        temperature=0,
    )
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
