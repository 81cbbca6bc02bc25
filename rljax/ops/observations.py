"""The form of observations: trees of arrays, action masks and state indices.

An action mask is a field of the observation, `EnvSpec.action_mask`: a bool array `[A]` that is
True where an action is legal. For K discrete actions at once, `(n_1, ..., n_K)`, it has the
length `n_1 + ... + n_K`: the masks of the K actions, one after the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Array, EnvSpec, PyTree, RecurrentObs, StateObs


def is_shape(x: Any) -> bool:
    """Whether `x` is the shape of an array, a tuple of integers."""
    return type(x) is tuple and all(isinstance(size, int | np.integer) for size in x)


def obs_structs(spec: EnvSpec) -> PyTree:
    """Returns the shape and dtype of each array of an observation, a tree of `ShapeDtypeStruct`.

    Raises:
      ValueError: `obs_dtype` is neither one dtype nor a tree of the same structure as `obs_shape`.

    Example:
      >>> structs = obs_structs(EnvSpec({"position": (2,), "mask": (4,)}, 4, action_mask="mask"))
      >>> structs["position"].shape, structs["mask"].dtype.name
      ((2,), 'bool')
    """
    shapes, structure = jax.tree.flatten(spec.obs_shape, is_leaf=is_shape)
    dtypes, dtype_structure = jax.tree.flatten(spec.obs_dtype)
    if not all(map(is_shape, shapes)):
        raise ValueError(
            f"{spec.env_id}: `obs_shape` is {spec.obs_shape}, but it must be a shape such as (4,), "
            "or a tree of shapes."
        )
    if len(dtypes) == 1:
        dtypes *= len(shapes)
    elif dtype_structure != structure:
        raise ValueError(
            f"{spec.env_id}: `obs_dtype` is {spec.obs_dtype}, but it must be one dtype, or a tree "
            f"of the same structure as `obs_shape`, {spec.obs_shape}."
        )
    structs = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, dtypes, strict=True)]
    obs, mask = split_mask(spec, jax.tree.unflatten(structure, structs))
    if spec.num_states:
        obs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.int32), obs)
    return obs if mask is None else with_field(obs, spec.action_mask, _as_bool(mask))


def _as_bool(struct: Any) -> Any:
    return jax.ShapeDtypeStruct(struct.shape, jnp.bool)


def field(obs: PyTree, name: str) -> Any:
    """Returns a field of a dict or a NamedTuple.

    Raises:
      ValueError: `obs` has no such field.
    """
    fields = obs if isinstance(obs, Mapping) else getattr(obs, "_asdict", dict)()
    if name not in fields:
        known = ", ".join(f"`{key}`" for key in fields) or "none"
        raise ValueError(
            f"`action_mask` is {name!r}, but the observation has no such field (its fields: "
            f"{known}): it must be a dict or a NamedTuple that holds the mask."
        )
    return fields[name]


def with_field(obs: PyTree, name: str, value: Any) -> PyTree:
    """Returns a dict or a NamedTuple with one field replaced."""
    return {**obs, name: value} if isinstance(obs, Mapping) else obs._replace(**{name: value})


def split_mask(spec: EnvSpec, obs: PyTree) -> tuple[PyTree, Array | None]:
    """Returns the observation without its mask, in whose place is None, and the mask.

    Args:
      spec: description of the environment; without an `action_mask` the mask is None.
      obs: observations `[..., *obs_shape]`.

    Example:
      >>> spec = EnvSpec({"board": (9,), "legal": (9,)}, 9, action_mask="legal")
      >>> obs, mask = split_mask(spec, {"board": jnp.zeros(9), "legal": jnp.ones(9, bool)})
      >>> obs["legal"], mask.shape
      (None, (9,))
    """
    if not spec.action_mask:
        return obs, None
    mask = field(obs, spec.action_mask)
    return with_field(obs, spec.action_mask, None), mask


def environment_obs(obs: PyTree) -> PyTree:
    """Returns the observation of the environment, without the memory or the state beside it."""
    return obs.obs if isinstance(obs, RecurrentObs | StateObs) else obs


def state_index(spec: EnvSpec, obs: PyTree) -> Array:
    """Returns the index of the state, `[...]` int32, of an environment with numbered states."""
    obs, _ = split_mask(spec, environment_obs(obs))
    return jax.tree.leaves(obs)[0].astype(jnp.int32)


def legal_values(spec: EnvSpec, obs: PyTree, values: Array) -> Array:
    """Returns action values with -inf for illegal actions, `[..., A] -> [..., A]`.

    The operations of `ops.td` and `ops.planning` never choose an action of value -inf and leave it
    out of expectations.

    Args:
      spec: description of the environment; without an `action_mask` all actions are legal.
      obs: observations `[..., *obs_shape]`.
      values: action values `[..., A]`.

    Example:
      >>> spec = EnvSpec({"x": (1,), "legal": (2,)}, 2, action_mask="legal")
      >>> obs = {"x": jnp.zeros(1), "legal": jnp.array([True, False])}
      >>> legal_values(spec, obs, jnp.array([1.0, 2.0])).tolist()
      [1.0, -inf]
    """
    _, mask = split_mask(spec, environment_obs(obs))
    return values if mask is None else jnp.where(mask, values, -jnp.inf)


def legal_logits(logits: Array, mask: Array | None) -> Array:
    """Returns logits whose softmax is 0 for illegal actions, `[..., A] -> [..., A]`.

    Their logits become the smallest finite number. With -inf, entropies and KL divergences would
    have NaN gradients. Huang and Ontanon 2022, https://arxiv.org/abs/2006.14171.

    Args:
      logits: `[..., A]`.
      mask: legal actions, `[..., A]` bool; None if all are.

    Example:
      >>> jax.nn.softmax(legal_logits(jnp.zeros(2), jnp.array([True, False]))).tolist()
      [1.0, 0.0]
    """
    return logits if mask is None else jnp.where(mask, logits, jnp.finfo(logits.dtype).min)


def mean_legal_actions(spec: EnvSpec, obs: PyTree) -> Array:
    """Returns the mean number of legal actions; NaN if there is a state without any.

    Args:
      spec: description of an environment with an action mask.
      obs: observations `[..., *obs_shape]`.

    Example:
      >>> spec = EnvSpec({"x": (1,), "legal": (2,)}, 2, action_mask="legal")
      >>> obs = {"x": jnp.zeros((2, 1)), "legal": jnp.array([[True, True], [True, False]])}
      >>> float(mean_legal_actions(spec, obs))
      1.5
    """
    mask = field(environment_obs(obs), spec.action_mask)
    mean = mask.sum(axis=-1).astype(jnp.float32).mean()
    return jnp.where(has_no_legal_action(spec, mask).any(), jnp.nan, mean)


def has_no_legal_action(spec: EnvSpec, mask: Array) -> Array:
    """Whether no action is legal, or none of one of several actions, `[..., A] -> [...]`."""
    parts = split_actions(mask, choices(spec.num_actions))
    return ~jnp.stack([part.any(axis=-1) for part in parts]).all(axis=0)


def choices(num_actions: Any) -> tuple[int, ...]:
    """Returns the numbers of choices `(n_1, ..., n_K)` of K discrete actions at once, or `(A,)`."""
    return num_actions if isinstance(num_actions, tuple) else (int(num_actions),)


def split_actions(x: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
    """Splits the last axis into K parts, `[..., n_1 + ... + n_K] -> [..., n_k]`.

    Example:
      >>> [part.tolist() for part in split_actions(jnp.arange(5), (2, 3))]
      [[0, 1], [2, 3, 4]]
    """
    return tuple(jnp.split(x, np.cumsum(sizes)[:-1], axis=-1))


def num_logits(num_actions: Any) -> int:
    """Returns the number of logits of a policy: A, or n_1 + ... + n_K for K actions at once."""
    return sum(choices(num_actions))


def action_struct(spec: EnvSpec) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of one action of the environment.

    Example:
      >>> action_struct(EnvSpec((4,), num_actions=(3, 5))).shape
      (2,)
    """
    if isinstance(spec.num_actions, tuple):
        return jax.ShapeDtypeStruct((len(spec.num_actions),), jnp.int32)
    if spec.num_actions:
        return jax.ShapeDtypeStruct((), jnp.int32)
    return jax.ShapeDtypeStruct(tuple(spec.action_shape), jnp.float32)
