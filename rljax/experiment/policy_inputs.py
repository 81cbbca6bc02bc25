"""Observations that a policy is called with: one or a batch, checked, in the dtypes of training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rljax.experiment.plan import Plan
from rljax.types import EnvSpec, PyTree


class ObservationForm:
    """The shapes and dtypes of one observation, and how to bring others into this form."""

    def __init__(
        self, spec: EnvSpec, structs: PyTree, convert: Callable[[Any], PyTree] | None = None
    ):  # fmt: skip
        """Takes the form of one observation as the agent receives it.

        Args:
          spec: description of the environment.
          structs: shapes and dtypes.
          convert: brings observations of another form into this one.
        """
        self._convert = convert
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(structs)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
        self._env_id, self._num_states = spec.env_id, spec.num_states
        self._fields = [
            (f"observation `{name}`" if name else "observation", tuple(x.shape), np.dtype(x.dtype))
            for name, (_, x) in zip(names, leaves, strict=True)
        ]
        self._is_array = self.structure == jax.tree.structure(0)

    def __call__(self, obs: Any) -> tuple[PyTree, int | None]:
        """Returns an observation or a batch as arrays, and the size of the batch.

        Args:
          obs: arrays or numbers, `[*obs_shape]` or `[B, *obs_shape]`.

        Returns:
          The arrays in the dtypes of training; and B, or None for one observation.

        Raises:
          ValueError: a shape, a dtype or the structure is wrong, or a state is out of range.
        """
        try:
            return self._checked(obs)
        except ValueError:
            if self._convert is None:
                raise
            try:
                converted = self._convert(obs)
            except (ValueError, TypeError, KeyError, IndexError):
                converted = obs
            return self._checked(converted)

    def _checked(self, obs: Any) -> tuple[PyTree, int | None]:
        if self._is_array:
            return self._converted(self._fields[0], obs)
        try:
            leaves = self.structure.flatten_up_to(obs)
        except ValueError:
            raise ValueError(
                f"observations of {self._env_id} have the structure {self._shown()}, but this one "
                f"is a {type(obs).__name__}{_fields_of(obs)}: pass it as the environment does."
            ) from None
        pairs = [self._converted(*pair) for pair in zip(self._fields, leaves, strict=True)]
        sizes = {size for _, size in pairs}
        if len(sizes) > 1:
            shapes = ", ".join(
                f"{field[0]} {x.shape}" for field, (x, _) in zip(self._fields, pairs, strict=True)
            )
            raise ValueError(
                f"the arrays of an observation of {self._env_id} are not of one batch: {shapes}."
            )
        return self.structure.unflatten([x for x, _ in pairs]), sizes.pop()

    def _converted(self, field: tuple[str, tuple, np.dtype], x: Any) -> tuple[np.ndarray, Any]:
        name, shape, dtype = field
        array = x if isinstance(x, np.ndarray) else self._as_array(name, x)
        if array.dtype != dtype:
            array = self._cast(name, array, dtype)
        if (
            self._num_states
            and array.size
            and not 0 <= array.min() <= array.max() < self._num_states
        ):
            raise ValueError(
                f"the {name} is {array}, but states of {self._env_id} are numbered from 0 to "
                f"{self._num_states - 1}."
            )
        if array.shape == shape:
            return array, None
        if array.ndim and len(array) and array.shape[1:] == shape:
            return array, len(array)
        batch = f"[B{''.join(f', {size}' for size in shape)}]"
        raise ValueError(
            f"the {name} has shape {array.shape}, but in {self._env_id} it has {shape}, or {batch} "
            "for a batch of B."
        )

    def _as_array(self, name: str, x: Any) -> np.ndarray:
        try:
            return np.asarray(x)
        except ValueError:  # rows of different lengths
            raise ValueError(
                f"the {name} is no array: pass it as {self._env_id} returns it."
            ) from None

    def _cast(self, name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Returns the array in a dtype: floats of any number, integers and bools of integers."""
        kinds = {"f": "fiub", "i": "iu", "u": "iu", "b": "iub"}[dtype.kind]
        is_pixel = dtype == np.uint8 and array.dtype.kind in kinds
        if array.dtype.kind not in kinds or (is_pixel and array.dtype != np.uint8):
            raise ValueError(
                f"the {name} has dtype {array.dtype}, but in {self._env_id} it is {dtype}: pass it "
                "as the environment returns it."
            )
        return array.astype(dtype)

    def _shown(self) -> str:
        names = [name.split("`")[1] for name, *_ in self._fields]
        return ", ".join(f"`{name}`" for name in names)


def converter_of(plan: Plan) -> Callable[[Any], PyTree] | None:
    """Returns the conversion of gymnasium's own observations, such as the tuples of Blackjack."""
    suite, _, name = plan.env_id.partition("/")
    if plan.custom_env or suite != "gymnasium" or name.startswith("ALE/"):
        return None
    from rljax.envs import gymnasium

    return gymnasium.converter(name, plan.env_params)


def _fields_of(obs: Any) -> str:
    return f" with {', '.join(f'`{key}`' for key in obs)}" if isinstance(obs, dict) else ""
