"""Advantage actor-critic, the lockstep form of https://arxiv.org/abs/1602.01783 (A3C).

One gradient step on each short rollout. Differs from the paper: gradients are means over the
rollout, not sums; RMSProp adds its epsilon outside the root as optax does; a lambda below 1 mixes
the n-step returns by GAE.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax import optimizers
from rljax.agents.actor_critic import (
    ActorCriticConfig,
    acting,
    default_network,
    next_values,
    normalized_advantage,
)
from rljax.agents.normalize import normalized
from rljax.config import config, option
from rljax.ops import returns
from rljax.types import Agent, EnvSpec, PyTree, identity


@config
class A2CConfig(ActorCriticConfig):
    num_steps: int = option(16, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(3e-3, "step size of the optimizer", above=0)
    optimizer: str = option("adam", "the optimizer", choices=("adam", "rmsprop"))
    normalize_advantage: bool = option(False, "to mean 0 and variance 1 in each rollout")


class A2CState(NamedTuple):
    params: PyTree
    opt_state: PyTree


def a2c(
    config: A2CConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an A2C agent; the arguments are those of `rljax.agents.ppo.ppo`."""
    network = network or default_network(config, spec)
    rate = config.learning_rate
    if config.anneal_lr:
        rate = optimizers.learning_rate_schedule(rate, config.num_updates)
    inner = {
        "adam": lambda: optax.adam(rate, eps=1e-5),
        "rmsprop": lambda: optax.rmsprop(rate, decay=0.99, eps=1e-5),
    }[config.optimizer]
    optimizer = optimizer or optimizers.clipped(inner(), config.max_grad_norm)

    draw, act, greedy = acting(network, spec)

    def init(key):
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        return A2CState(params, optimizer.init(params))

    def loss(params, trajectory, advantage, target):
        policy, value = network.apply(params, trajectory.obs)
        log_prob = policy.log_prob(trajectory.extras["raw_action"])
        policy_loss = -(log_prob * advantage).mean()
        value_loss = 0.5 * jnp.square(value - target).mean()
        entropy = policy.entropy().mean()
        total = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
        return total, {
            "losses/policy_loss": policy_loss, "losses/value_loss": value_loss,
            "losses/entropy": entropy,
        }  # fmt: skip

    def update(state, trajectory, key):
        del key

        def value_of(obs):
            return network.apply(state.params, obs)[1]

        value = value_of(trajectory.obs)
        next_value = next_values(value_of, trajectory, value)
        advantage, target = returns.gae(
            trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated,
            config.gamma, config.gae_lambda,
        )  # fmt: skip
        if config.normalize_advantage:
            advantage = normalized_advantage(advantage, average)
        grads, metrics = jax.grad(loss, has_aux=True)(state.params, trajectory, advantage, target)
        updates, opt_state = optimizer.update(average(grads), state.opt_state, state.params)
        return A2CState(optax.apply_updates(state.params, updates), opt_state), average(metrics)

    return normalized(
        Agent(init, act, greedy, update, draw), spec, obs=config.normalize_obs,
        reward=config.normalize_reward, gamma=config.gamma, average=average,
    )  # fmt: skip
