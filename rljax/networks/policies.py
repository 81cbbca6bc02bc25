"""Flax modules, orthogonal initialisation, and policies as distrax distributions.

An actor-critic maps `obs[..., *obs_shape]` to `(policy, value[...])`. Whatever does that, with a
`distrax.Categorical` or `distrax.MultivariateNormalDiag` for a policy, can be given as `network=`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.layers import MLP, ConvTorso, flat_features, orthogonal, torso_of
from rljax.types import Array, EnvSpec, Key, PyTree

STDS = ("free", "softplus", "variance")


class ActorCritic(nn.Module):
    """Policy and value. `[..., *obs_shape] -> (distrax policy over actions, value[...])`.

    By the torso "mlp" policy and value have separate layers over the flattened observation; by
    "conv" they share a convolutional one over an image, or have one each where `share` is off.
    Discrete actions get a Categorical; continuous ones a diagonal Normal, in units of half the
    action's range (see `to_box`). Its standard deviation, by `std`, is a "free" parameter that
    does not depend on the observation; the "softplus" of a linear layer; or the root of that,
    which then is the "variance", as A3C has it.
    """

    num_actions: int = 0
    action_shape: Sequence[int] = ()
    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"
    torso: str = "mlp"
    obs_rank: int = 1  # axes of an observation
    num_states: int = 0  # where observations are the numbers of states
    std: str = "free"
    share: bool = True  # the convolution

    @nn.compact
    def __call__(self, obs):
        import distrax  # two seconds, so only where a policy is first made

        if self.torso == "conv":
            torso = {"hidden_sizes": self.hidden_sizes, "activation": self.activation}
            actor = ConvTorso(**torso)(obs)
            critic = actor if self.share else ConvTorso(**torso)(obs)
        else:
            obs = flat_features(obs, self.obs_rank, self.num_states)
            actor = MLP(self.hidden_sizes, self.activation, name="actor")(obs)
            critic = MLP(self.hidden_sizes, self.activation, name="critic")(obs)
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="value")(critic)
        if self.num_actions:
            logits = nn.Dense(self.num_actions, kernel_init=orthogonal(0.01), name="logits")(actor)
            return distrax.Categorical(logits=logits), jnp.squeeze(value, -1)
        size = 1
        for axis in self.action_shape:
            size *= axis
        mean = nn.Dense(size, kernel_init=orthogonal(0.01), name="mean")(actor)
        if self.std == "free":
            log_std = self.param("log_std", nn.initializers.zeros, (size,))
            std = jnp.broadcast_to(jnp.exp(log_std), mean.shape)
        else:
            dense = nn.Dense(size, kernel_init=orthogonal(0.01), name="std")
            std = nn.softplus(dense(actor)) + 1e-4  # a density needs some width
            std = jnp.sqrt(std) if self.std == "variance" else std
        return normal(mean, std), jnp.squeeze(value, -1)


def actor_critic_network(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str, torso: str = "auto",
    std: str = "free", share: bool = True,
) -> ActorCritic:  # fmt: skip
    """The actor-critic that fits an environment: vector or image, discrete or continuous.

    Raises:
      ValueError: a convolution over observations that are no image `[H, W, C]` of 3 x 3 or more.
    """
    torso = torso_of(spec, torso)
    return ActorCritic(
        spec.num_actions, spec.action_shape, tuple(hidden_sizes), activation, torso,
        len(spec.obs_shape), spec.num_states, std, share,
    )  # fmt: skip


def policy_noise(spec: EnvSpec, key: Key, num_steps: int) -> Array:
    """The random numbers of `T` actions of each environment: `[T, B, A]`.

    Gumbel for discrete actions, standard normal for continuous ones; see `sample`.
    """
    if spec.num_actions:
        return jax.random.gumbel(key, (num_steps, spec.num_envs, spec.num_actions))
    size = 1
    for axis in spec.action_shape:
        size *= axis
    return jax.random.normal(key, (num_steps, spec.num_envs, size))


def normal(mean: Array, std: Array) -> PyTree:
    """A diagonal Normal over the last axis: log-probability and entropy are sums over it."""
    import distrax

    return distrax.Independent(distrax.Normal(mean, std), reinterpreted_batch_ndims=1)


def parameters(policy: PyTree) -> tuple[Any, ...]:
    """What a policy is made of, as arrays that can be stored, gathered and given to `like`.

    Categorical: its logits. Diagonal Normal: its mean and standard deviation.
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
    """The policy that `parameters` took apart."""
    import distrax

    return distrax.Categorical(logits=arrays[0]) if len(arrays) == 1 else normal(*arrays)


def sample(policy: PyTree, noise: Array) -> Array:
    """A sample from a policy, made from noise drawn beforehand by `draw_noise`.

    Categorical: `argmax(logits + Gumbel)`, `[..., A] -> [...]`. Normal: `mean + std * normal`,
    `[..., A] -> [..., A]`.
    """
    arrays = parameters(policy)
    if len(arrays) == 1:
        return jnp.argmax(arrays[0] + noise, axis=-1)
    mean, std = arrays
    return mean + std * noise


def to_box(spec: EnvSpec, raw: Array) -> Array:
    """Maps raw actions `[..., A]` to the environment's box `[..., *action_shape]`.

        low + (clip(raw, -1, 1) + 1) / 2 (high - low)

    Discrete actions pass. The policy, its density and what is stored stay with the raw action.
    """
    if spec.num_actions:
        return raw
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    raw = raw.reshape(*raw.shape[:-1], *spec.action_shape)
    low, high = (jnp.broadcast_to(x, raw.shape) for x in (low, high))
    return low + 0.5 * (jnp.clip(raw, -1.0, 1.0) + 1.0) * (high - low)
