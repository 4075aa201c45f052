"""Heavy libraries load when first used, so that `import askwhy` stays quick and torch stays optional."""

import importlib
from types import ModuleType
from typing import Any

from askwhy.errors import MissingPackageError


def load(name: str, extra: str) -> ModuleType:
    """Import a module of an optional package, or say which extra brings it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        root = name.split(".")[0]
        if error.name and error.name.split(".")[0] != root:
            raise
        raise MissingPackageError(f"{root} is needed for this: pip install 'askwhy[{extra}]'") from error


class lazy:
    """A stand-in for a module that is imported at the first attribute access."""

    def __init__(self, name: str, extra: str) -> None:
        self._name, self._extra = name, extra

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(load(self._name, self._extra), attribute)
        self.__dict__[attribute] = found  # found at once the next time
        return found
