"""flax.nnx modules as networks: `from_nnx` makes a linen module of one."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict


class NNXNetwork(nn.Module):
    """A linen module with the parameters and the outputs of an nnx module; see `from_nnx`.

    Attributes:
      make: `(rngs=flax.nnx.Rngs) -> flax.nnx.Module`.
    """

    make: Callable[..., Any]

    @property
    def memory_size(self) -> int:
        """Attribute `memory_size` of the nnx module, 0 if it has none."""
        return _structure(self.make)[2]

    def __call__(self, *inputs):
        return self._module()(*inputs)

    def next_memory(self, obs):
        """Calls the method `next_memory` of a recurrent nnx module."""
        return self._module().next_memory(obs)

    def _module(self):
        """Returns the nnx module with the parameters of this module, which are made if needed."""
        from flax import nnx

        graph, paths, _ = _structure(self.make)
        if not self.has_variable("params", str(paths[0][0])):
            state = nnx.state(self.make(rngs=nnx.Rngs(self.make_rng("params"))))
            values = {tuple(map(str, p)): v.get_value() for p, v in nnx.to_flat_state(state)}
            for name, value in unflatten_dict(values).items():
                self.put_variable("params", name, value)
        params = flatten_dict(dict(self.variables["params"]))
        flat = [(path, nnx.Param(params[tuple(map(str, path))])) for path in paths]
        return nnx.merge(graph, nnx.from_flat_state(flat))


@functools.lru_cache(maxsize=64)
def _structure(make: Callable[..., Any]) -> tuple[Any, list[tuple], int]:
    """Returns the graph of the nnx module, the paths of its parameters, and its `memory_size`."""
    from flax import nnx

    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    if not isinstance(module, nnx.Module):
        raise ValueError(
            "`make` returns something other than a flax.nnx.Module: give a function that makes a "
            "module, such as lambda rngs: Net(rngs=rngs)."
        )
    graph, state = nnx.split(module)
    variables = nnx.to_flat_state(state)
    for path, variable in variables:
        if not isinstance(variable, nnx.Param):
            raise ValueError(
                f"{type(module).__name__} has the {type(variable).__name__} "
                f"`{'.'.join(map(str, path))}`, but agents keep only parameters (nnx.Param) of a "
                "network: leave out batch normalization and dropout; nnx.LayerNorm has no state."
            )
    return graph, [path for path, _ in variables], getattr(module, "memory_size", 0)


def from_nnx(make: Callable[..., Any]) -> NNXNetwork:
    """Returns a linen module of an nnx module, for the arguments `network`, `policy` and `critic`.

    Each run makes its own module from its own random key. Parameters are named by their paths, as
    in linen: `params["hidden"]["kernel"]`.

    Args:
      make: `(rngs=flax.nnx.Rngs) -> flax.nnx.Module`, such as the class or
        `lambda rngs: Net(64, rngs=rngs)`.

    Raises:
      ValueError: `make` is a module instead of a function that makes one, does not return a
        module, or the module has variables that are not parameters, such as the statistics of
        batch normalization or the random keys of dropout.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> network = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
      >>> params = network.init(jax.random.key(0), jnp.zeros((1, 4)))
      >>> network.apply(params, jnp.zeros((5, 4))).shape
      (5, 2)
    """
    from flax import nnx

    if isinstance(make, nnx.Module) or not callable(make):
        name = type(make).__name__
        raise ValueError(
            f"`make` is an object of type {name}, but it must be a function that makes an nnx "
            f"module, so that each seed has its own parameters: lambda rngs: {name}(rngs=rngs)."
        )
    _structure(make)
    return NNXNetwork(make)


def nnx_cure(network: Any) -> str:
    """Returns the end of an error that says how to use an nnx module, or "" for anything else."""
    if "flax.nnx" not in sys.modules:
        return ""
    from flax import nnx

    kind = network if isinstance(network, type) else type(network)
    if not issubclass(kind, nnx.Module):
        return ""
    name = kind.__name__
    return f"; wrap it: `rljax.networks.from_nnx(lambda rngs: {name}(..., rngs=rngs))`"
