"""The fourth noun: v(z), the score when only the components in z are present. One batched engine for everything that perturbs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from askwhy._memory import resident
from askwhy.checks import whole
from askwhy.components import Components
from askwhy.errors import Cancelled, ModelError
from askwhy.models.base import Model, is_out_of_memory
from askwhy.score import Score, too_large
from askwhy.tables import Background

Progress = Callable[[int, int], Any]  # (done, total); returning False stops
Given = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
MANY = 48  # inputs from which on it pays to keep memory
LARGEST_CHUNK = 256 * 2**20  # bytes of one batch of inputs


class BatchSize:
    """Finds the batch size that is fastest here by timing the chunks of the real work; halves when memory runs out."""

    def __init__(self, start: int, limit: int, *, fixed: bool = False, patience: int = 2) -> None:
        self.size, self.limit, self.settled, self.patience = start, limit, fixed, patience
        self._best = (float("inf"), start)  # seconds per item, size
        self._times: list[float] = []  # of this size: the first chunks also prepare it, so the best of three counts
        self._misses = 0

    def learn(self, size: int, seconds: float) -> None:
        """Climb by doubling until a size is clearly slower, or `patience` in a row not faster: one may have met a busy moment."""
        if self.settled or size < self.size:
            return
        self._times.append(seconds)
        if len(self._times) < 3:
            return
        each, self._times = min(self._times) / size, []
        faster = each < 0.95 * self._best[0]  # a large batch has to earn its memory
        self._misses = 0 if faster else self._misses + 1
        if faster:
            self._best = each, size
        slower = each > 1.15 * self._best[0]
        if self._misses < self.patience and not slower and size * 2 <= self.limit:
            self.size = size * 2
        else:
            self.size, self.settled = self._best[1], True

    def halve(self, size: int) -> None:
        """After an out-of-memory error at `size`: never that large again."""
        self.size = self.limit = max(size // 2, 1)
        self.settled = True


def batch_size_for(score: Score, wanted: int | str, engine: Any = "forward") -> BatchSize:
    """The measured batch size of this question's model, engine and input shape, or a fixed one."""
    return batch_size_of(score.model, score.items.batch, wanted, engine)


def batch_size_of(model: Model, batch: Any, wanted: int | str, engine: Any = "forward") -> BatchSize:
    """The same for inputs like these; what was measured lives on the wrapped model. Raises InputError."""
    if wanted != "auto":
        size = whole("batch_size", wanted, 1, instead="'auto' or ")
        return BatchSize(size, size, fixed=True)
    each = max(int(batch[:1].nbytes), 1)
    on_gpu = getattr(getattr(batch, "device", None), "type", "cpu") != "cpu"
    per_call = "gradients" not in model.offers or on_gpu  # each call costs much, whatever its size
    start = int(np.clip((2**24 if per_call else 2**20) // each, 4, 1024))
    key = ("batch size", tuple(batch.shape[1:]), engine)
    keeps = str(engine).endswith("backward")  # a pass that keeps its activations: trying a size costs the memory of that size
    start, patience = (max(start, 8), 1) if keeps else (start, 2)
    return model.memory.setdefault(key, BatchSize(start, max(LARGEST_CHUNK // each, start), patience=patience))


def in_chunks(n: int, work: Callable[[int, int], np.ndarray], size: BatchSize, tick: Progress | None) -> np.ndarray:
    """work(start, stop) -> [stop - start, ...] for all of 0..n, in chunks that fit; reports progress after each."""
    with resident() if n >= MANY else nullcontext():
        return np.concatenate(list(_chunks(n, work, size, tick)))


def _chunks(n: int, work: Callable[[int, int], np.ndarray], size: BatchSize, tick: Progress | None) -> Iterator[np.ndarray]:
    done = 0
    while done < n:
        count = min(size.size, n - done)
        began = time.perf_counter()
        try:
            part = work(done, done + count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or isinstance(error, ModelError):
                raise
            if count == 1:
                raise too_large() from error
            size.halve(count)
            continue
        done += count
        size.learn(count, time.perf_counter() - began)
        if tick is not None and tick(done, n) is False:
            raise Cancelled(f"stopped after {done} of {n} model calls.")
        yield part


class Game:
    """v(z): z bool [m, d] -> float64 [m], the score of one item when only the components in z are present.

    Equal z are asked once. Where `absent` holds several background rows, v is their mean, by `weights` [k].
    given: z [m, d] -> rows [m, k, *item] and their weights [m, k], where what stands for the absent depends on what is present.
    """

    def __init__(
        self, score: Score, item: int, components: Components, absent: np.ndarray, *,
        weights: np.ndarray | None = None, given: Given | None = None,
        batch_size: int | str = "auto", tick: Progress | None = None, total: int | None = None, precision: str = "float32",
    ) -> None:  # fmt: skip
        self.score, self.item, self.components, self.tick = score, item, components, tick
        self.batch_size, self.precision = batch_size, precision
        self._weights = np.full(len(absent), 1 / len(absent)) if weights is None else weights / weights.sum()
        self._given = given
        self.total, self._done = total, 0  # how many z will be asked in all, where that is known, for the progress
        self.deviation: float | None = None  # of the scores in another precision, measured on a few samples
        self._x = score.items.batch[item]
        self._absent = absent if components.write else self._like(absent)  # [k, *item]
        self._known: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self.components)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        z = np.asarray(z, dtype=bool)
        keys = [row.tobytes() for row in np.packbits(z, axis=1)]
        new = {key: k for k, key in enumerate(keys) if key not in self._known}
        if new:
            rows = sorted(new.values())
            values = self._ask(z[rows])
            self._known.update((keys[k], v) for k, v in zip(rows, values.tolist(), strict=True))
        return np.array([self._known[key] for key in keys])

    def _ask(self, z: np.ndarray) -> np.ndarray:
        """z [m, d], all different -> [m]; each z is shown with each background row."""
        rows, weights = (self._absent, self._weights) if self._given is None else self._given(z)
        k = weights.shape[-1]
        total, model = len(z) * k, self.score.model

        def show(start: int, stop: int) -> Any:
            return self._show(z, rows, k, start, stop)

        self._announce(total, show)
        with model.untouched():
            some = np.linspace(0, len(z) - 1, min(len(z), 2 if self.precision == "float32" else 4)).astype(int)
            samples = self._show(z[some], rows[some] if self._given else rows, k, 0, len(some))
            engine, name = self.score.engine(self.item, samples, total, self.precision)
            if self.precision != "float32" and self.deviation is None:
                self.deviation = deviation_of(self.score, self.item, engine, samples)

            def work(start: int, stop: int) -> np.ndarray:
                return self.score.evaluate(show(start, stop), self.item, engine)

            values = in_chunks(total, work, batch_size_for(self.score, self.batch_size, name), self._progress(k))
        self._done += total
        return (values.reshape(len(z), k) * weights).sum(1)

    def _show(self, z: np.ndarray, rows: Any, k: int, start: int, stop: int) -> Any:
        """The perturbed inputs start to stop, of which number j is z[j // k] with row j % k of what stands for the absent."""
        if self.components.write is not None:
            return self.components.write(z[start:stop], rows[0])
        if k > stop - start:  # not even one z is asked at once
            at = np.arange(start, stop)
            hidden = self._like(rows[at // k, at % k]) if self._given else rows[at % k]
            return self.score.model.compose(self.components.present(z[at // k]), self._x, hidden)
        first, last = start // k, -(-stop // k)
        present = self.components.present(z[first:last])
        hidden = self._like(rows[first:last]) if self._given else rows
        whole = self.score.model.compose(present[:, None] if k > 1 else present, self._x, hidden)
        return whole.reshape(-1, *self._x.shape)[start - first * k : stop - first * k] if k > 1 else whole

    def _announce(self, total: int, show: Callable[[int, int], Any]) -> None:
        """Tell a model that asks a service what it will be asked, before it is."""
        expect = getattr(self.score.model, "expect", None)
        if expect is not None:
            whole = total if self.total is None else max(total, self.total * len(self._weights) - self._done)
            expect(whole, self.score.items, (show(at, min(at + 256, total)) for at in range(0, total, 256)))

    def _progress(self, k: int) -> Progress | None:
        tick, before, whole = self.tick, self._done, self.total
        if tick is None:
            return None
        return lambda done, total: tick(before + done, total if whole is None else whole * k)

    def _like(self, absent: np.ndarray) -> Any:
        if not hasattr(self._x, "detach"):
            return absent
        torch = sys.modules["torch"]
        return torch.as_tensor(np.ascontiguousarray(absent)).to(self._x.device, self._x.dtype)


def deviation_of(score: Score, item: int, engine: Any, samples: Any) -> float:
    """How far an engine's scores of these inputs are from the model's own; a check is no question of the method, and not counted."""
    calls = score.calls
    found, own = (score.evaluate(samples, item, way) for way in (engine, None))
    score.calls = calls
    return float(np.abs(found - own).max())


def roughness(deviations: Iterable[float | None]) -> dict[str, float]:
    """What a result says of scores in another precision; nothing where there are none."""
    known = [deviation for deviation in deviations if deviation is not None]
    return {"bfloat16_deviation": max(known)} if known else {}


def weights_of(background: Any) -> np.ndarray | None:
    """The weights of a summarised background; None where every row counts alike."""
    return background.weights if isinstance(background, Background) else None


@contextmanager
def progress_of(progress: bool | Progress | None, text: str) -> Iterator[Progress | None]:
    """A callback from the argument `progress=`: None or False shows nothing, True a bar with the time left."""
    if not progress or callable(progress):
        yield progress or None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task(text)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def counted(tick: Progress | None, done: int, total: int) -> None:
    """Report rows; a callback that answers False stops. Raises Cancelled."""
    if tick is not None and tick(done, total) is False:
        raise Cancelled(f"stopped after {done} of {total} rows.")


def over_items(tick: Progress | None, n: int) -> list[Progress | None]:
    """One callback for each of n items, so that the whole is counted: item i of n reports (i * total + done, n * total)."""
    if tick is None:
        return [None] * n
    return [lambda done, total, i=i: tick(i * total + done, n * total) for i in range(n)]  # type: ignore[misc]
