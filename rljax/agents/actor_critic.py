"""What the actor-critic algorithms share: their common options, and how they act."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import networks
from rljax.config import RunConfig, config, option
from rljax.types import Array, EnvSpec, PyTree, Transition, drawn, identity


@config
class ActorCriticConfig(RunConfig):
    """Options that mean the same in every actor-critic algorithm."""

    gae_lambda: float = option(0.95, "lambda of generalized advantage estimation", low=0, high=1)
    learning_rate: float = option(1e-3, "step size of the optimizer", above=0)
    anneal_lr: bool = option(True, "let the step size fall linearly to 0 over the run")
    max_grad_norm: float = option(0.5, "largest global norm of a gradient", above=0)
    ent_coef: float = option(0.0, "weight of the entropy bonus", low=0)
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    normalize_obs: bool = option(False, "show observations by their running mean and variance")
    normalize_reward: bool = option(False, "scale rewards by the spread of returns")
    hidden_sizes: tuple[int, ...] = option((64, 64), "units of each hidden layer", low=1)
    activation: str = option("tanh", "of the hidden layers", choices=tuple(networks.ACTIVATIONS))
    torso: str = option("auto", "conv where it observes an image", choices=("auto", "mlp", "conv"))


def default_network(config: ActorCriticConfig, spec: EnvSpec) -> networks.ActorCritic:
    """The network that an agent has where none is given."""
    return networks.actor_critic(spec, config.hidden_sizes, config.activation, config.torso)


class Acting(NamedTuple):
    """`draw`, `act` and `greedy` of an agent whose state has `params`."""

    draw: Callable[..., PyTree]
    act: Callable[..., tuple[Array, PyTree]]
    greedy: Callable[..., Array]


def acting(network: Any, spec: EnvSpec) -> Acting:
    """Acts by sampling the network's policy; remembers the raw action and the policy.

    The raw action is what the policy's density is of, before it is clipped into the box.
    """

    def draw(key, num_steps):
        return networks.draw_noise(spec, key, num_steps)

    def act(state, obs, key):
        policy, _ = network.apply(state.params, obs)
        raw = networks.sample(policy, drawn(draw, key))
        extras = {"raw_action": raw, "policy": networks.parameters(policy)}
        return networks.to_box(spec, raw), extras

    def greedy(state, obs, key):
        del key
        return networks.to_box(spec, network.apply(state.params, obs)[0].mode())

    return Acting(draw, act, greedy)


def normalized_advantage(advantage: Array, average: Callable[[PyTree], PyTree] = identity) -> Array:
    """To mean 0 and variance 1, over all workers together; 0, not NaN, where all are equal."""
    mean = average(advantage.mean())
    variance = average(jnp.square(advantage - mean).mean())
    return (advantage - mean) / jnp.sqrt(variance + 1e-8)


def next_values(value_of: Callable[[PyTree], Array], trajectory: Transition, value: Array) -> Array:
    """The value of each `next_obs`, given those of each `obs`. `[T, B] -> [T, B]`.

    Within an episode the next observation of one step is the observation of the following one,
    whose value is known. What is left is the end of the trajectory, and each observation at which
    a time limit cut an episode: these are evaluated one an environment at a time, for as long as
    there are any (a `while_loop`, which unlike `cond` stays lazy under `vmap`). Where an episode
    terminated, the number is of no meaning, as no value lies beyond.
    """
    last = jax.tree.map(lambda x: x[-1], trajectory.next_obs)
    following = jnp.concatenate([value[1:], value_of(last)[None]])
    pending = trajectory.truncated.at[-1].set(False)
    environments = jnp.arange(value.shape[1])

    def evaluate_one_each(carry):
        following, pending = carry
        times = pending.argmax(axis=0)
        reached = jax.tree.map(lambda x: x[times, environments], trajectory.next_obs)
        old = following[times, environments]
        new = jnp.where(pending[times, environments], value_of(reached), old)
        following = following.at[times, environments].set(new)
        return following, pending.at[times, environments].set(False)

    return jax.lax.while_loop(
        lambda carry: carry[1].any(), evaluate_one_each, (following, pending)
    )[0]
