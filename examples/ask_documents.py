"""Ask a folder of documents: upload, index, answer with citations. Run: python examples/ask_documents.py ./my-docs "question"

Only the official client is used; `noria` in the body is the one extension, and may be left out.
"""

import sys
from pathlib import Path

from openai import OpenAI


def main() -> None:
    folder, question = Path(sys.argv[1]), sys.argv[2]
    client = OpenAI()
    store = client.vector_stores.create(name=folder.name, expires_after={"anchor": "last_active_at", "days": 1})
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    uploads = [client.files.create(file=path, purpose="assistants").id for path in paths]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=uploads)
    print(f"{batch.file_counts.completed} files indexed, {batch.file_counts.failed} failed")

    response = client.responses.create(
        model="gpt-4o-mini",
        input=question,
        tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
        extra_body={"noria": {"answer": "extract"}},
    )
    print(response.output_text)
    for annotation in response.output[-1].content[0].annotations:
        place = annotation.noria
        heading = " > ".join(place["heading_path"])
        print(f"[{place['number']}] {annotation.filename}, {heading}, characters {place['start']}-{place['end']}")


if __name__ == "__main__":
    main()
