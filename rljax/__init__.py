"""rljax: reinforcement learning research on JAX. Agents are pure functions over explicit state.

    import rljax

    run = rljax.train("ppo", "CartPole-v1", num_seeds=8)
    run.plot("curve.png")

The public names are listed once, in `__init__.pyi`. Each is imported when it is first used, so
`import rljax` does not import JAX.
"""

import ast
import importlib

__version__ = "0.1.0"


def _module_of_each_name() -> dict[str, str]:
    """Returns the module that defines each public name, from the imports of `__init__.pyi`."""
    with open(__file__ + "i", encoding="utf-8") as file:  # importing pathlib costs 4 ms
        stub = ast.parse(file.read())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


_MODULE_OF = _module_of_each_name()
_SUBPACKAGES = [name for name, module in _MODULE_OF.items() if module == "rljax"]
__all__ = sorted({*_MODULE_OF} - {*_SUBPACKAGES})  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rljax' has no attribute {name!r}")
    if name in _SUBPACKAGES:
        return importlib.import_module(f"rljax.{name}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
