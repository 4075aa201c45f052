"""What can go wrong, said so that the reader knows what to do next. Every error that askwhy raises on purpose is here."""


class AskwhyError(Exception):
    """The base: catch it to catch everything that askwhy refuses."""


class InputError(AskwhyError, ValueError):
    """The item to explain, or an argument, has a wrong type, shape or value."""


class TargetError(AskwhyError, ValueError):
    """The target names no class of the model, or does not give one number per input."""


class ModelError(AskwhyError, RuntimeError):
    """The model cannot be asked: it is in training mode, failed, or returned something that is no score."""


class LayerError(AskwhyError, ValueError):
    """There is no such layer, or it gives no feature map."""


class UnsupportedError(AskwhyError, NotImplementedError):
    """The method is not defined for this model or input, or could not be carried out faithfully."""


class MissingPackageError(AskwhyError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class FileError(AskwhyError, OSError):
    """A file cannot be read or written."""


class Cancelled(AskwhyError):
    """The progress callback returned False; the model is as it was found."""


def near(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """A half sentence that suggests the nearest known names."""
    import difflib

    lower = {k.lower(): k for k in known}
    words = [k for k in known if name.lower() in k.lower()][:5]
    close = words or [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.5)]
    if close:
        return "did you mean " + ", ".join(repr(k) for k in close) + "?"
    return f"known are {', '.join(map(repr, known[:8]))}{', ...' if len(known) > 8 else ''}."
