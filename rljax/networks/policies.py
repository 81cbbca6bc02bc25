"""Policies as distrax distributions, and actions in the environment's box.

A policy is a `distrax.Categorical` over discrete actions, a `MultiCategorical` over several at
once, or a diagonal Gaussian over raw actions: continuous actions in units of half the action range,
before they are clipped (see `to_box`).
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp

from rljax.ops import random
from rljax.ops.observations import legal_logits, num_logits, split_actions
from rljax.types import Array, EnvSpec, Key, PyTree


class MultiCategorical:
    """Independent Categorical distributions over K discrete actions, a MultiDiscrete action.

    Actions are int32 `[..., K]`. Log-probability, entropy and KL divergence are sums over them.

    Attributes:
      factors: the K distributions, `distrax.Categorical`s.

    Example:
      >>> policy = MultiCategorical((jnp.zeros((5, 2)), jnp.zeros((5, 3))))
      >>> policy.mode().shape, round(float(jnp.exp(policy.entropy()[0])), 4)
      ((5, 2), 6.0)
    """

    def __init__(self, logits: Sequence[Array]):
        """Takes the logits of each factor, `[..., n_k]`."""
        import distrax

        self.factors = [distrax.Categorical(logits=x) for x in logits]

    def log_prob(self, value: Array) -> Array:
        """Returns the log-probability of actions, `[..., K] -> [...]`."""
        pairs = zip(self.factors, jnp.moveaxis(value, -1, 0), strict=True)
        return _sum(factor.log_prob(action) for factor, action in pairs)

    def entropy(self) -> Array:
        """Returns the entropy, `[...]`."""
        return _sum(factor.entropy() for factor in self.factors)

    def kl_divergence(self, other: "MultiCategorical") -> Array:
        """Returns KL(self || other), `[...]`."""
        pairs = zip(self.factors, other.factors, strict=True)
        return _sum(mine.kl_divergence(its) for mine, its in pairs)

    def mode(self) -> Array:
        """Returns the most probable actions, int32 `[..., K]`."""
        return jnp.stack([factor.mode() for factor in self.factors], axis=-1).astype(jnp.int32)


def _sum(parts: Iterable[Any]) -> Array:
    return functools.reduce(jnp.add, parts)


def policy_noise(spec: EnvSpec, key: Key, num_steps: int) -> Array:
    """Returns the random numbers for `num_steps` actions of each environment, `[T, B, A]`.

    They are Gumbel noise for discrete actions (A is the number of logits) and standard normals for
    continuous ones; see `sample`.
    """
    if spec.num_actions:
        return random.gumbel(key, (num_steps, spec.num_envs, num_logits(spec.num_actions)))
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

    They are the logits of a Categorical, a tuple of logits of a MultiCategorical, or the mean and
    standard deviation of a diagonal Gaussian.

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
    if isinstance(policy, MultiCategorical):
        return (tuple(factor.logits for factor in policy.factors),)
    if isinstance(policy, distrax.Independent) and isinstance(policy.distribution, distrax.Normal):
        return policy.distribution.loc, policy.distribution.scale
    if isinstance(policy, distrax.MultivariateNormalDiag):
        return policy.loc, policy.scale_diag
    raise ValueError(
        f"the network's policy is a {type(policy).__name__}, but it must be a distrax Categorical, "
        "a MultivariateNormalDiag, an Independent Normal (`rljax.networks.normal`) or a "
        "`rljax.networks.MultiCategorical`."
    )


def like(arrays: tuple[Any, ...]) -> PyTree:
    """Returns the policy that the arrays define; the inverse of `parameters`.

    Example:
      >>> like((jnp.zeros((5, 4)),)).probs[0]
      Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    import distrax

    if len(arrays) == 2:
        return normal(*arrays)
    logits = arrays[0]
    return MultiCategorical(logits) if isinstance(logits, tuple) else distrax.Categorical(logits)


def with_legal_actions(policy: PyTree, mask: Array) -> PyTree:
    """Returns a policy over discrete actions whose illegal actions have probability 0.

    Args:
      policy: a Categorical, or a MultiCategorical over K actions.
      mask: legal actions, bool `[..., A]` or `[..., n_1 + ... + n_K]`.

    Example:
      >>> with_legal_actions(like((jnp.zeros(3),)), jnp.array([True, False, True])).probs
      Array([0.5, 0. , 0.5], dtype=float32)
    """
    (logits,) = parameters(policy)
    if not isinstance(logits, tuple):
        return like((legal_logits(logits, mask),))
    masks = split_actions(mask, [x.shape[-1] for x in logits])
    return like((tuple(map(legal_logits, logits, masks)),))


def sample(policy: PyTree, noise: Array) -> Array:
    """Returns a sample of a policy, computed from noise drawn by `policy_noise`.

    Categorical: `argmax(logits + noise)`, `[..., A] -> [...]`. MultiCategorical: the same for each
    of K actions, `[..., K]`. Gaussian: `mean + std * noise`, `[..., A] -> [..., A]`.

    Example:
      >>> sample(normal(jnp.ones(2), 2.0 * jnp.ones(2)), noise=jnp.array([0.0, -1.0]))
      Array([ 1., -1.], dtype=float32)
    """
    arrays = parameters(policy)
    if len(arrays) == 1 and isinstance(arrays[0], tuple):
        parts = zip(arrays[0], split_actions(noise, [x.shape[-1] for x in arrays[0]]), strict=True)
        actions = [jnp.argmax(logits + part, axis=-1) for logits, part in parts]
        return jnp.stack(actions, axis=-1).astype(jnp.int32)
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
