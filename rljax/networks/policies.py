"""Policies as distrax distributions, and actions in the environment's box.

A policy is a `distrax.Categorical` over discrete actions, or a diagonal Gaussian over raw actions:
continuous actions in units of half the action range, before they are clipped (see `to_box`).
"""

import math
from typing import Any

import jax.numpy as jnp

from rljax.ops import random
from rljax.types import Array, EnvSpec, Key, PyTree


def policy_noise(spec: EnvSpec, key: Key, num_steps: int) -> Array:
    """Returns the random numbers for `num_steps` actions of each environment, `[T, B, A]`.

    They are Gumbel noise for discrete actions and standard normals for continuous ones; see
    `sample`.
    """
    if spec.num_actions:
        return random.gumbel(key, (num_steps, spec.num_envs, spec.num_actions))
    return random.normal(key, (num_steps, spec.num_envs, math.prod(spec.action_shape)))


def normal(mean: Array, std: Array) -> PyTree:
    """Returns a diagonal Gaussian over the last axis: log-probability and entropy sum over it.

    Example:
      >>> normal(jnp.zeros((5, 2)), jnp.ones((5, 2))).entropy().shape
      (5,)
    """
    import distrax

    return distrax.Independent(distrax.Normal(mean, std), reinterpreted_batch_ndims=1)


def parameters(policy: PyTree) -> tuple[Any, ...]:
    """Returns the arrays that define a policy, which can be stored, gathered and given to `like`.

    They are the logits of a Categorical, or the mean and standard deviation of a diagonal Gaussian.

    Raises:
      ValueError: the policy is another kind of distribution.

    Example:
      >>> mean, std = parameters(normal(jnp.zeros(2), jnp.ones(2)))
      >>> std
      Array([1., 1.], dtype=float32)
    """
    import distrax

    if isinstance(policy, distrax.Categorical):
        return (policy.logits,)
    if isinstance(policy, distrax.Independent) and isinstance(policy.distribution, distrax.Normal):
        return policy.distribution.loc, policy.distribution.scale
    if isinstance(policy, distrax.MultivariateNormalDiag):
        return policy.loc, policy.scale_diag
    raise ValueError(
        f"the network's policy is a {type(policy).__name__}, but it must be a distrax Categorical, "
        "a MultivariateNormalDiag, or an Independent Normal (`rljax.networks.normal`)."
    )


def like(arrays: tuple[Any, ...]) -> PyTree:
    """Returns the policy that the arrays define; the inverse of `parameters`.

    Example:
      >>> like((jnp.zeros((5, 4)),)).probs[0]
      Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    import distrax

    return distrax.Categorical(logits=arrays[0]) if len(arrays) == 1 else normal(*arrays)


def sample(policy: PyTree, noise: Array) -> Array:
    """Returns a sample of a policy, computed from noise drawn by `policy_noise`.

    Categorical: `argmax(logits + noise)`, `[..., A] -> [...]`. Gaussian: `mean + std * noise`,
    `[..., A] -> [..., A]`.

    Example:
      >>> sample(normal(jnp.ones(2), 2.0 * jnp.ones(2)), noise=jnp.array([0.0, -1.0]))
      Array([ 1., -1.], dtype=float32)
    """
    arrays = parameters(policy)
    if len(arrays) == 1:
        return jnp.argmax(arrays[0] + noise, axis=-1)
    mean, std = arrays
    return mean + std * noise


def to_box(spec: EnvSpec, raw: Array) -> Array:
    """Maps raw actions `[..., A]` to the environment's box `[..., *action_shape]`.

        low + (clip(raw, -1, 1) + 1) / 2 (high - low)

    Discrete actions are returned unchanged. Policies, their densities and stored actions use the
    raw action.

    Example:
      >>> spec = EnvSpec(action_shape=(2,), action_low=0.0, action_high=jnp.array([1.0, 10.0]))
      >>> to_box(spec, jnp.array([[0.0, 0.5], [-3.0, 3.0]]))
      Array([[ 0.5,  7.5],
             [ 0. , 10. ]], dtype=float32)
    """
    if spec.num_actions:
        return raw
    raw = raw.reshape(*raw.shape[:-1], *spec.action_shape)
    low, high = _bounds(spec, raw.shape)
    return low + 0.5 * (jnp.clip(raw, -1.0, 1.0) + 1.0) * (high - low)


def from_box(spec: EnvSpec, action: Array) -> Array:
    """Maps actions in the environment's box `[..., *action_shape]` to `[..., A]` in [-1, 1].

        2 (action - low) / (high - low) - 1

    The inverse of `to_box` for raw actions in [-1, 1]. Where `low` equals `high`, the result is 0.
    Discrete actions are returned unchanged.

    Example:
      >>> spec = EnvSpec(action_shape=(2,), action_low=0.0, action_high=jnp.array([1.0, 10.0]))
      >>> from_box(spec, jnp.array([0.5, 7.5]))
      Array([0. , 0.5], dtype=float32)
    """
    if spec.num_actions:
        return action
    low, high = _bounds(spec, action.shape)
    width = high - low
    raw = 2.0 * (action - low) / jnp.where(width > 0, width, 1.0) - 1.0
    raw = jnp.where(width > 0, raw, 0.0)
    return raw.reshape(*raw.shape[: raw.ndim - len(spec.action_shape)], -1)


def _bounds(spec: EnvSpec, shape: tuple[int, ...]) -> tuple[Array, Array]:
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    return jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape)
