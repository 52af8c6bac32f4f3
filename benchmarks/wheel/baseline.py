"""TF-IDF and logistic regression on s-labs' prompts, in an environment of its own: what a tuned model has to be measured against.

C is chosen on the validation rows. Run alone it prints the figures; `predictions` is for the benchmark beside it.
    python -m benchmarks.wheel.baseline
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE, injections

__all__ = ["predictions"]

_SCRIPT = """
import json, sys, time
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
import sklearn
given = json.load(sys.stdin)
begun = time.time()
words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, lowercase=True)
train = words.fit_transform([text for text, _ in given["train"]])
labels = [label for _, label in given["train"]]
valid = words.transform([text for text, _ in given["validation"]])
truth = [label for _, label in given["validation"]]
best = None
for c in (1, 3, 10, 30, 100):
    model = LogisticRegression(C=c, max_iter=2000).fit(train, labels)
    score = model.score(valid, truth)
    if best is None or score > best[0]:
        best = (score, c, model)
test = words.transform([text for text, _ in given["test"]])
print(json.dumps({"c": best[1], "validation_accuracy": best[0], "version": sklearn.__version__,
    "seconds": time.time() - begun, "predictions": [bool(x) for x in best[2].predict(test)]}))
"""


def predictions(rows: int | None = None) -> dict[str, Any]:
    """Trained on the first `rows` training rows (all by default): predictions on the test rows, and how they came about."""
    python = _environment()
    splits: dict[str, Any] = {split: injections(split) for split in ("train", "validation", "test")}
    if rows is not None:
        splits["train"] = splits["train"][:rows]
    done = subprocess.run([python, "-c", _SCRIPT], input=json.dumps(splits), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _environment() -> Path:
    folder = CACHE / "venv-sklearn"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "scikit-learn==1.7.2"], check=True)
    return python


def main() -> int:
    found = predictions()
    truth = [label for _, label in injections("test")]
    right = sum(said == label for said, label in zip(found.pop("predictions"), truth, strict=True))
    print(json.dumps({**found, "test_accuracy": right / len(truth)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
