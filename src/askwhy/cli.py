"""The command line. Its verbs are the questions; a user's mistake is one sentence and exit code 1, wrong usage is 2."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from askwhy.errors import AskwhyError, Cancelled, FileError, InputError, LayerError, ModelError, UnsupportedError

if TYPE_CHECKING:
    from askwhy.explanation import Explanation
    from askwhy.models.base import Model
    from askwhy.report import Case

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help="Ask a trained model why.", pretty_exceptions_enable=False)
DEMO_METHODS = "occlusion,lime,smooth_grad,grad_cam,guided_backprop"
ModelOption = Annotated[str, typer.Option("--model", help="A model of the zoo, or FILE.py:FUNCTION that returns anything askwhy.wrap takes.")]


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from askwhy._version import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def explain(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Pictures to explain.")],
    model: ModelOption = "efficientnet-lite0",
    method: Annotated[str, typer.Option(help="Names of methods, with commas between; 'auto' chooses one; see: askwhy methods.")] = DEMO_METHODS,
    target: Annotated[str | None, typer.Option(help="The class to explain, by label or number. Default: the predicted one.")] = None,
    versus: Annotated[str | None, typer.Option(help="Explain why TARGET rather than this class.")] = None,
    out: Annotated[Path, typer.Option(help="The report to write.")] = Path("report.html"),
    seed: Annotated[int, typer.Option(help="Seed of the methods that sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print numbers for other programs, and write no report.")] = False,
) -> None:
    """Why did the model answer so? Explain photos by one or several methods and write a report."""
    with errors_in_one_sentence():
        names = [name.strip() for name in method.split(",") if name.strip()]
        check_names(names)
        if not as_json:
            check_writable(out)
        run(photos, model, names, as_class(target), as_class(versus), out, seed, as_json)


@app.command()
def methods(as_json: Annotated[bool, typer.Option("--json", help="Print the table for other programs.")] = False) -> None:
    """List the methods: what each one asks, and what it needs."""
    with errors_in_one_sentence():
        from askwhy.registry import methods as known

        columns = ("name", "question", "scope", "when", "access", "needs", "inputs", "asks", "reads", "paper")
        if as_json:
            print(json.dumps([{c: getattr(m, c) for c in columns} for m in known()], indent=2))
            return
        for m in known():
            print(f"{m.name}  (needs {m.needs}; for {', '.join(m.inputs)}; {m.scope}, {m.when}, {m.access})")
            print(f"    {m.asks}")


@app.command()
def demo(out: Annotated[Path, typer.Option(help="The report to write.")] = Path("askwhy-demo.html")) -> None:
    """Ask EfficientNet-Lite0, a real ImageNet network, why it calls a real photo a cat."""
    with errors_in_one_sentence():
        check_writable(out)
        from askwhy import zoo

        run([str(zoo.photo_path("cat"))], "efficientnet-lite0", DEMO_METHODS.split(","), None, None, out, 0, False)


def run(photos: list[str], model_name: str, names: list[str], target: Any, versus: Any, out: Path, seed: int, as_json: bool) -> None:
    """Read everything first, so that a wrong path costs no waiting; then ask; then write."""
    from askwhy.models.pictures import read_picture

    opened = [(Path(photo).name, read_picture(photo)) for photo in photos]
    note(f"askwhy: loading {model_name}")
    wrapped = load_model(model_name)
    cases: list[Case] = []
    interrupted = False
    try:
        with progress_bar() as bar:
            for name, photo in opened:
                cases.append(ask_all(wrapped, name, photo, names, target, versus, seed, bar))
    except KeyboardInterrupt:
        if not cases:
            raise
        interrupted = True
    hand_over(cases, model_name, out, as_json)
    if interrupted:
        raise Cancelled(f"interrupted; {len(cases)} of {len(opened)} photos were explained, and they are in the result.")
    silent = [case.name for case in cases if not case.explanations]
    if silent:
        raise UnsupportedError(f"no method could explain {', '.join(silent)}; see the reasons above.")


def hand_over(cases: list[Case], model_name: str, out: Path, as_json: bool) -> None:
    """Print the numbers, or write the report and say what is in it."""
    if as_json:
        print(json.dumps([as_numbers(case) for case in cases], indent=2))
        return
    from askwhy.files import write_file
    from askwhy.report import render

    write_file(out, render(cases, model_name).encode())
    tell(cases, out)


def ask_all(model: Model, name: str, photo: Any, names: list[str], target: Any, versus: Any, seed: int, bar: Callable[[str], Any]) -> Case:
    """All methods about one photo; a method that refuses is noted, and the others go on."""
    from askwhy.ask import explain as ask_by_name
    from askwhy.report import Case

    explanations, refused = [], []
    try:
        top = top_classes(model, photo)
    except ModelError as error:
        note(f"askwhy: {name}: {error}")
        return Case(name, photo, [], [], [(method, str(error)) for method in names])
    for method in names:
        try:
            options = {"seed": seed} if takes_seed(method) else {}
            explanations.append(ask_by_name(model, photo, method, target, versus=versus, progress=bar(f"{name}: {method}"), **options))
        except (UnsupportedError, ModelError, LayerError) as error:
            refused.append((method, str(error)))
            note(f"askwhy: {method} refuses: {error}")
    return Case(name, photo, top, explanations, refused)


def takes_seed(method: str) -> bool:
    import inspect

    from askwhy.registry import find

    return method != "auto" and "seed" in inspect.signature(find(method).function).parameters


def top_classes(model: Model, photo: Any, k: int = 5) -> list[tuple[str, float]]:
    """The k most probable classes. A model of logits gets a softmax; scores that are probabilities stay."""
    import numpy as np

    from askwhy.score import as_floats, ask

    score = ask(model, photo)
    with model.untouched():
        outputs = as_floats(score.outputs(score.items.batch, [0]))[0]
    if outputs.ndim != 1 or len(outputs) < 2:
        return []
    if outputs.min() < 0 or abs(outputs.sum() - 1) > 1e-3:
        outputs = np.exp(outputs - outputs.max())
        outputs /= outputs.sum()
    return [(score.name(int(i)), float(outputs[i])) for i in np.argsort(-outputs, kind="stable")[:k]]


def as_numbers(case: Case) -> dict[str, Any]:
    """One photo's answers as plain numbers."""
    return {
        "photo": case.name,
        "predictions": [{"label": label, "probability": p} for label, p in case.top],
        "explanations": [explanation_numbers(why) for why in case.explanations],
        "refused": [{"method": method, "reason": reason} for method, reason in case.refused],
    }


def explanation_numbers(why: Explanation) -> dict[str, Any]:
    numbers = {
        key: None if getattr(why, key) is None else getattr(why, key)[0].tolist() for key in ("prediction", "base_value", "residual", "values")
    }
    error = None if why.std_error is None else [None if v != v else v for v in why.std_error[0].ravel().tolist()]
    return {
        "method": why.method, "target": why.target[0], "versus": why.versus[0] if why.versus else None, **numbers, "std_error": error,
        "components": why.components[0] if why.components else None, "top": why.top(5), "details": dict(why.details),
        "params": dict(why.params), "model_calls": why.model_calls, "seconds": why.seconds, "seed": why.seed, "versions": dict(why.versions),
    }  # fmt: skip


def tell(cases: list[Case], out: Path) -> None:
    """What was found, in a few lines."""
    for case in cases:
        best = ", ".join(f"{label} {p:.2f}" for label, p in case.top[:3])
        print(f"{case.name}: {best}")
        for why in case.explanations:
            print("  " + why.summary().replace("\n", "\n    "))
    print(f"report: {out.resolve()}")


def load_model(name: str) -> Model:
    """A model of the zoo, or what FILE.py:FUNCTION returns."""
    from askwhy import zoo
    from askwhy.models import wrap

    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        if name.endswith(".py"):
            raise InputError(f"--model {name}: say which function makes the model, as {name}:FUNCTION.")
        return zoo.load(name)
    return wrap(call_function(Path(path), function))


def call_function(path: Path, function: str) -> Any:
    """Run a user's file and call the function that makes the model."""
    if not path.is_file():
        raise FileError(f"{path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise InputError(f"{path} has no function {function!r}; it has {', '.join(found) or 'none'}.")
        return getattr(module, function)()
    except AskwhyError:
        raise
    except Exception as error:  # the user's own code may raise anything; say where
        raise InputError(f"{path}:{function} failed: {type(error).__name__}: {error} ({where(error, path)})") from error
    finally:
        sys.path.remove(str(path.resolve().parent))


def where(error: Exception, path: Path) -> str:
    """The last line of the user's file that an error passed through."""
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path.resolve()]
    return f"line {lines[-1]}" if lines else f"line {getattr(error, 'lineno', '?')}"


def as_class(text: str | None) -> Any:
    """A class number is typed as text; anything else is a label."""
    return int(text) if text is not None and text.isdigit() else text


def check_names(names: list[str]) -> None:
    from askwhy.registry import find

    if not names:
        raise InputError("--method names no method; see: askwhy methods")
    for name in names:
        if name != "auto":
            find(name)


def check_writable(out: Path) -> None:
    """Before the work and not after it."""
    import os

    if out.is_dir():
        raise FileError(f"{out} is a folder; name a file in it, as {out / 'report.html'}.")
    if not out.resolve().parent.is_dir():
        raise FileError(f"{out} cannot be written: the folder {out.resolve().parent} does not exist.")
    if not os.access(out if out.exists() else out.resolve().parent, os.W_OK):
        raise FileError(f"{out} cannot be written: permission denied.")


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """A user's mistake, or an interrupt, without a traceback."""
    try:
        yield
    except AskwhyError as error:
        note(f"askwhy: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        note("askwhy: interrupted; nothing was written.")
        raise typer.Exit(1) from None


@contextmanager
def progress_bar() -> Iterator[Callable[[str], Any]]:
    """A bar with the time left for each method, on the terminal's error channel; bar(text) -> a progress callback."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:

        def begin(text: str) -> Any:
            task = bar.add_task(text, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield begin


def note(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """The entry point of the command `askwhy`."""
    app()


if __name__ == "__main__":
    main()
