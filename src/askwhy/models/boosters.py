"""XGBoost, LightGBM and CatBoost: estimators, raw boosters and saved files. Which files can be wrapped is here too."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from askwhy._lazy import load
from askwhy.errors import AskwhyError, FileError, InputError, ModelError
from askwhy.models.base import as_labels, first_line
from askwhy.models.function import FunctionModel, offered

PICKLES = (".joblib", ".pickle", ".pkl")


@dataclass(frozen=True)
class Trees:
    """What a booster says of itself."""

    native: Any
    scores: Callable[[Any], Any] | None  # rows -> probabilities [n] or [n, k], or what a regression predicts; None where it gives labels
    margin: Callable[[Any], Any]  # rows -> the sum over the trees, [n] or [n, k]
    names: tuple[str, ...] | None  # of the features; None where the booster made them up
    width: int  # number of features
    classes: int = 0  # 0 for a regression or a ranking
    labels: Any = None
    columns: tuple[str, ...] | None = None  # the names, where they are those of the user's table to the letter


# ---- a booster ----------------------------------------------------------------------------------------------------


def reader(model: Any) -> Callable[[Any], Trees] | None:
    """How to read a model, by the name of its class, so that no library is imported for it."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
    return next((READERS[name] for name in names if name in READERS), None)


def from_booster(model: Any, labels: Any, output: Any, transform: Any) -> FunctionModel:
    """One score a class (probabilities, or with "logits" the margin), or what a regression or ranking predicts."""
    trees = read(model)
    ask = chosen(trees, output)
    named = as_labels(labels if labels is not None or not trees.classes else trees.labels)
    if named and trees.classes and len(named) != trees.classes:
        raise InputError(f"labels= has {len(named)} names for {trees.classes} classes; give one for each.")
    whole = 0 if output == "logits" else 1

    def scores(rows: Any) -> np.ndarray:
        check_columns(rows, trees)
        out = np.asarray(ask(rows))
        return np.stack([whole - out, out], 1) if trees.classes == 2 and out.ndim == 1 else out

    return FunctionModel(scores, named, transform, trees.columns, trees.classes or None, native=trees.native, source=model, offers=offered(model))


def read(model: Any) -> Trees:
    read_it = reader(model)
    assert read_it is not None, "only for what has a reader"
    try:
        return read_it(model)
    except AskwhyError:
        raise
    except Exception as error:  # each library has an error of its own for a model without trees
        raise ModelError(f"the {type(model).__name__} cannot be asked before it is fitted or loaded: {first_line(error)}") from error


def chosen(trees: Trees, output: Any) -> Callable[[Any], Any]:
    if output not in (None, "probabilities", "logits"):
        raise InputError(f"output={output!r}: for a booster it is 'probabilities' or 'logits'.")
    if output == "logits":
        return trees.margin
    if output == "probabilities" and not trees.classes:
        raise InputError("output='probabilities': this booster is no classifier; leave output out, or give 'logits' for the sum of its trees.")
    if trees.scores is None:
        raise InputError("this booster gives only class labels, and a label is no score; output='logits' explains its margin.")
    return trees.scores


def check_columns(rows: Any, trees: Trees) -> None:
    """The libraries take other columns than they were trained on, some without a word."""
    found = rows.shape[1]
    if found != trees.width:
        known = f" ({', '.join(trees.names[:20])}{', ...' if trees.width > 20 else ''})" if trees.names else ""
        raise InputError(f"x has {found} columns, the model was trained on {trees.width}{known}.")
    given = [str(name) for name in getattr(rows, "columns", ())]
    # LightGBM writes an underscore for a space
    odd = [name for name, own in zip(given, trees.names or (), strict=False) if own not in (name, re.sub(r"\s", "_", name))]
    if odd:
        raise InputError(
            f"the table's column {odd[0]!r} is not where the model has it; give it the columns {', '.join(trees.names or ())}, in this order."
        )


# ---- the three libraries ------------------------------------------------------------------------------------------

LINKS: dict[str, Callable[[Any], Any] | None] = {  # where XGBoost's own prediction is no score: what makes one of the margin
    "binary:hinge": None,
    "binary:logitraw": expit,
    "multi:softmax": partial(softmax, axis=1),
}


def xgboost_trees(model: Any) -> Trees:
    """An xgboost.Booster, or an estimator around one."""
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    config = json.loads(booster.save_config())["learner"]
    objective, sizes = config["objective"]["name"], config["learner_model_param"]
    single = objective.startswith("binary:") and sizes["num_target"] == "1"
    ask = ask_in_place if config["gradient_booster"]["name"] == "gbtree" else ask_xgboost
    predict = partial(ask, booster, rounds_of(booster, booster is not model), getattr(model, "missing", np.nan))
    margin = partial(predict, margin=True)
    link = LINKS.get(objective)
    scores = predict if objective not in LINKS else link and (lambda rows: link(margin(rows)))
    names = tuple(booster.feature_names) if booster.feature_names else None
    classes = 2 if single else int(sizes["num_class"]) if objective.startswith("multi:") else 0
    return Trees(booster, scores, margin, names, booster.num_features(), classes, getattr(model, "classes_", None), names)


def rounds_of(booster: Any, estimator: bool) -> tuple[int, int]:
    """XGBoost's estimators, and files that they wrote, stop at the best round; a raw booster asks all its trees."""
    told = booster.attributes()
    stops = "best_iteration" in told and (estimator or "scikit_learn" in told)
    return (0, int(told["best_iteration"]) + 1) if stops else (0, 0)


def ask_xgboost(booster: Any, rounds: tuple[int, int], missing: Any, rows: Any, margin: bool = False) -> Any:
    data = load("xgboost", "boosters").DMatrix(rows, missing=missing, enable_categorical=True)
    data.feature_names = booster.feature_names
    return booster.predict(data, output_margin=margin, iteration_range=rounds)


def ask_in_place(booster: Any, rounds: tuple[int, int], missing: Any, rows: Any, margin: bool = False) -> Any:
    """The same numbers without a DMatrix, which takes a quarter of the time; categories of a table need one."""
    plain = isinstance(rows, np.ndarray) and rows.dtype.kind == "f" and missing is not None and np.isnan(missing)
    if not plain or (np.abs(rows) > np.finfo(np.float32).max).any():  # which a DMatrix refuses
        return ask_xgboost(booster, rounds, missing, rows, margin)
    kind = "margin" if margin else "value"
    return booster.inplace_predict(rows, iteration_range=rounds, predict_type=kind, missing=missing, validate_features=False)


def lightgbm_trees(model: Any) -> Trees:
    """A lightgbm.Booster, or an estimator around one."""
    booster = model.booster_ if hasattr(type(model), "booster_") else model
    found = re.search(r"^objective=(\w+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
    objective = found[1] if found else "one of the user's own"
    classes = 2 if objective == "binary" else booster.num_model_per_iteration() if objective.startswith("multiclass") else 0
    names = tuple(booster.feature_name())
    own = None if names == tuple(f"Column_{k}" for k in range(len(names))) else names
    # an underscore may have been a space; and of categories LightGBM takes the codes in an array, but not in a table
    exact = own if own and "_" not in "".join(own) and not booster.pandas_categorical else None
    trees = (
        (booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration())
        if booster.model_to_string(num_iteration=1).find("\naverage_output") >= 0
        else 1
    )

    def margin(rows: Any) -> np.ndarray:
        return np.asarray(booster.predict(rows, raw_score=True)) / trees  # of a random forest it gives the sum

    return Trees(booster, booster.predict, margin, own, len(names), classes, getattr(model, "classes_", None), exact)


def catboost_trees(model: Any) -> Trees:
    """A catboost.CatBoost, which its estimators are too."""
    if not model.is_fitted():
        raise ValueError("it has no trees")
    labels, names = model.classes_, tuple(model.feature_names_)
    own = None if names == tuple(map(str, range(len(names)))) else names
    scores = partial(model.predict, prediction_type="Probability") if len(labels) else model.predict
    raw = partial(load("catboost", "boosters").CatBoost.predict, model, prediction_type="RawFormulaVal")  # a ranker's own takes no type
    return Trees(model, scores, raw, own, len(names), len(labels), labels, own)


READERS: dict[str, Callable[[Any], Trees]] = {
    "catboost.core.CatBoost": catboost_trees,
    "lightgbm.basic.Booster": lightgbm_trees,
    "lightgbm.sklearn.LGBMModel": lightgbm_trees,
    "xgboost.core.Booster": xgboost_trees,
    "xgboost.sklearn.XGBModel": xgboost_trees,
}


# ---- files --------------------------------------------------------------------------------------------------------


def from_file(path: str | os.PathLike[str], labels: Any, output: Any, transform: Any) -> FunctionModel:
    """A saved model, by how its name ends. Raises InputError, FileError, MissingPackageError."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind in PICKLES:
        raise InputError(f"{path} is a pickle, and reading one runs the code in it: if you trust it, load it yourself and wrap what it holds.")
    if kind != ".onnx" and kind not in FILES:
        raise InputError(
            f"{str(path)[:200]!r} cannot be asked: give an nn.Module, an estimator or a function made from it, or a file that ends in "
            f"{', '.join(sorted([*FILES, '.onnx']))}."
        )
    check_readable(path)
    if kind == ".onnx":
        from askwhy.models.onnx import from_onnx

        return from_onnx(path, labels, output, transform)
    return from_booster(loaded(path, *FILES[kind]), labels, output, transform)


def check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise FileError(f"{path}: there is no such file.") from error
    except (OSError, ValueError) as error:
        raise FileError(f"{str(path)[:200]} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def loaded(path: Path, library: str, reads: Callable[[Any, Path], Any]) -> Any:
    """What the library reads from its file."""
    module = load(library.lower(), "boosters")
    try:
        return reads(module, path)
    except MemoryError:
        raise
    except Exception as error:  # a library may raise anything on a damaged file
        raise FileError(f"{path} is no {library} model, or is damaged; save the model again with {library} and wrap that file.") from error


def load_xgboost(xgboost: Any, path: Path) -> Any:
    """From the bytes, since XGBoost guesses the format of a file by its name, with a warning. A file that was cut off would end the whole process."""
    content = path.read_bytes().strip()
    if not (content.startswith(b"{") and content.endswith(b"}")):
        raise ValueError("it does not begin and end as JSON and UBJSON do")
    booster = xgboost.Booster()
    booster.load_model(bytearray(content))
    return booster


def load_lightgbm(lightgbm: Any, path: Path) -> Any:
    """A file that was cut off would end the whole process, so that its own table of sizes is looked at first."""
    text = path.read_text(encoding="utf-8")
    sizes = re.search(r"^tree_sizes=([\d ]+)$", text, re.MULTILINE)
    trees = text[text.find("Tree=0") : text.find("end of trees")]
    if not text.startswith("tree\n") or sizes is None or sum(map(int, sizes[1].split())) != len(trees.encode()):
        raise ValueError("the trees are not as long as the head of the file says")
    if ("\nparameters:" in text) != ("\nend of parameters" in text):
        raise ValueError("the parameters have no end")
    return lightgbm.Booster(model_str=text)


def load_catboost(catboost: Any, path: Path) -> Any:
    """As a regressor where it has no classes, since that applies the link, exp for counts."""
    model = catboost.CatBoost().load_model(str(path))
    return model if len(model.classes_) else catboost.CatBoostRegressor().load_model(str(path))


FILES: dict[str, tuple[str, Callable[[Any, Path], Any]]] = {
    ".bst": ("XGBoost", load_xgboost),
    ".cbm": ("CatBoost", load_catboost),
    ".json": ("XGBoost", load_xgboost),
    ".txt": ("LightGBM", load_lightgbm),
    ".ubj": ("XGBoost", load_xgboost),
}
