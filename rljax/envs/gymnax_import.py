"""The import of gymnax without its plotting libraries, in 2 of 9 seconds."""

import contextlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from typing import Any

PLOTTING = ("matplotlib", "seaborn")  # libraries that gymnax imports only for rendering


class LazyModule(types.ModuleType):
    """A placeholder that imports the module of the same name at the first attribute access."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _without_plotting() -> Iterator[None]:
    """Replaces the plotting libraries by placeholders while gymnax is imported.

    gymnax imports seaborn (with pandas and scipy.stats) and matplotlib at module level, which
    takes 7 of its 9 seconds, and uses them only for rendering. The placeholders leave
    `sys.modules` afterwards; gymnax's references to them load the libraries when they are used.
    """
    names = []
    for top in PLOTTING:
        if top in sys.modules:
            continue
        for name in (top, f"{top}.pyplot", f"{top}.colors", f"{top}.animation"):
            module = LazyModule(name)
            module.__path__ = []
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            sys.modules[name] = module
            names.append(name)
        for part in ("pyplot", "colors", "animation"):
            sys.modules[top].__dict__[part] = sys.modules[f"{top}.{part}"]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def load_gymnax() -> Any:
    """Imports and returns the gymnax package, without its plotting libraries."""
    if "gymnax" not in sys.modules:
        with _without_plotting():
            importlib.import_module("gymnax")
    return sys.modules["gymnax"]
