"""Does LIME find the words that a model goes by, and do two seeds name the same ones? Prints the tables of docs/lime.md.

python examples/lime_recall.py              # some minutes; fetches the film reviews (2.5 MB) the first time
python examples/lime_recall.py --documents 20

Recall follows section 5.2 of the LIME paper (Ribeiro et al. 2016): models that use at most ten words of any document, so
that we know which; the share of them among the ten words that a method finds strongest.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

import askwhy as aw

K = 10  # words that a model may use, and that a method may name


def documents(sentences: int = 5) -> tuple[list[str], np.ndarray]:
    """Reviews of five sentences that agree, in small letters without signs, so that everyone sees the same words."""
    texts, scores = aw.zoo.reviews()
    made, labels = [], []
    for label in (0, 1):
        kept = [" ".join(re.findall("[a-z]+", text.lower())) for text, score in zip(texts, scores, strict=True) if (score > 0) == label]
        groups = [" ".join(kept[start : start + sentences]) for start in range(0, len(kept) - sentences, sentences)]
        made += groups
        labels += [label] * len(groups)
    order = np.random.default_rng(0).permutation(len(made))
    return [made[k] for k in order], np.array(labels)[order]


def sparse_logistic(texts: list[str], labels: np.ndarray) -> tuple[Any, Callable[[str], set[str]]]:
    """L1 logistic regression, and the words of a document that have a weight."""
    for strength in np.geomspace(0.2, 0.01, 25):
        model = make_pipeline(vectorizer(), LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", random_state=0)).fit(texts, labels)
        weights = dict(zip(model[0].get_feature_names_out(), model[1].coef_[0], strict=True))
        used = lambda text, weights=weights: {word for word in text.split() if weights.get(word)}  # noqa: E731
        if max(len(used(text)) for text in texts) <= K:
            return model, used
    raise ValueError("no penalty leaves ten words")


def tree(texts: list[str], labels: np.ndarray) -> tuple[Any, Callable[[str], set[str]]]:
    """A decision tree, and the words on a document's path that it holds."""
    model = make_pipeline(vectorizer(), DecisionTreeClassifier(max_depth=K, min_samples_leaf=5, random_state=0)).fit(texts, labels)
    names, grown = model[0].get_feature_names_out(), model[1]

    def used(text: str) -> set[str]:
        path = grown.decision_path(model[0].transform([text])).indices
        return {names[grown.tree_.feature[node]] for node in path[:-1]} & set(text.split())

    return model, used


def vectorizer() -> CountVectorizer:
    return CountVectorizer(binary=True, token_pattern="[a-z]+", min_df=5)


def by_lime(predict: Any, text: str, seed: int) -> list[str]:
    why = aw.lime(predict, text, samples=5000, components=aw.words(together=True), seed=seed)
    return [name for name, _ in why.top(K)]


def by_greedy(predict: Any, text: str, seed: int) -> list[str]:
    """Take out the word that lowers the score most, again and again, until the class changes or K are gone (Martens & Provost 2014)."""
    words, gone = list(dict.fromkeys(text.split())), []
    target = int(predict([text])[0].argmax())
    while len(gone) < K and len(gone) < len(words) - 1:
        left = [word for word in words if word not in gone]
        scores = predict([" ".join(w for w in text.split() if w not in (*gone, word)) for word in left])
        gone.append(left[int(scores[:, target].argmin())])
        if scores[:, target].min() < 0.5:
            break
    return gone


def by_chance(predict: Any, text: str, seed: int) -> list[str]:
    return np.random.default_rng(seed).permutation(list(dict.fromkeys(text.split())))[:K].tolist()


METHODS = {"lime": by_lime, "greedy removal": by_greedy, "random": by_chance}
MODELS = {"sparse logistic regression": sparse_logistic, "decision tree": tree}


def recall(make: Callable[..., Any], count: int, methods: dict[str, Callable[..., list[str]]] = METHODS) -> dict[str, tuple[float, float]]:
    """Of each method, the mean share of the model's own words that it finds, and its standard error."""
    texts, labels = documents()
    cut = len(texts) * 4 // 5
    model, used = make(texts[:cut], labels[:cut])
    asked = [text for text in texts[cut:] if used(text)][:count]
    found: dict[str, list[float]] = {name: [] for name in methods}
    for seed, text in enumerate(asked):
        gold = used(text)
        for name, method in methods.items():
            found[name].append(len(gold & set(method(model.predict_proba, text, seed))) / len(gold))
    return {name: (float(np.mean(v)), float(np.std(v) / len(v) ** 0.5)) for name, v in found.items()}


def overlap(a: set[str], b: set[str]) -> float:
    """Jaccard: the share that both name of what either does."""
    return len(a & b) / max(len(a | b), 1)


def sure(why: aw.Explanation) -> set[str]:
    """The words whose 95 % interval leaves zero out."""
    return {name for name, v, e in zip(why.components[0], why.values[0], why.std_error[0], strict=True) if abs(v) > 1.96 * e}


def agreement(count: int, samples: int = 5000, peer: bool = True) -> dict[str, float]:
    """How far two seeds name the same words, on single reviews and TF-IDF with logistic regression: those that are sure, and as many strongest ones."""
    texts, scores = aw.zoo.reviews()
    model = make_pipeline(TfidfVectorizer(token_pattern="[a-z]+"), LogisticRegression(C=10, max_iter=1000)).fit(texts, [s > 0 for s in scores])
    found: dict[str, list[float]] = {}
    for text in [" ".join(re.findall("[a-z]+", text.lower())) for text in texts[:: len(texts) // count][:count]]:
        pair = [aw.lime(model.predict_proba, text, 1, samples=samples, components=aw.words(together=True), seed=seed) for seed in (0, 1)]
        many = len(sure(pair[0]))
        found.setdefault("askwhy, those that are sure", []).append(overlap(*map(sure, pair)))
        found.setdefault("askwhy, as many strongest", []).append(overlap(*({name for name, _ in why.top(many)} for why in pair)))
        if peer:
            found.setdefault("lime, as many strongest", []).append(overlap(*(by_peer(model, text, samples, seed, many) for seed in (0, 1))))
    return {name: float(np.mean(values)) for name, values in found.items()}


def by_peer(model: Any, text: str, samples: int, seed: int, words: int) -> set[str]:
    from lime.lime_text import LimeTextExplainer

    why = LimeTextExplainer(random_state=seed).explain_instance(text, model.predict_proba, num_samples=samples, num_features=10_000)
    return {name for name, _ in why.as_list()[:words]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    count = parser.parse_args().documents
    print("| model | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    for name, make in MODELS.items():
        found = recall(make, count)
        print(f"| {name} | " + " | ".join(f"{mean:.1%} ± {error:.1%}" for mean, error in found.values()) + " |", flush=True)
    print("\nTwo seeds, the share of words that both name:")
    for samples in (1000, 5000):
        print(f"  {samples} samples: " + ", ".join(f"{name} {value:.3f}" for name, value in agreement(min(count, 60), samples).items()), flush=True)


if __name__ == "__main__":
    main()
