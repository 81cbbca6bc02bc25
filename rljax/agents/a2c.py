"""Advantage actor-critic, the lockstep form of https://arxiv.org/abs/1602.01783 (A3C).

One gradient step on each short rollout. Differs from the paper: gradients are means over the
rollout, not sums; a lambda below 1 mixes the n-step returns by GAE.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    GAEConfig,
    acting,
    actor_critic_loss,
    default_network,
    default_optimizer,
    next_values,
    normalized_advantage,
)
from rljax.config import config, option
from rljax.networks import recurrent
from rljax.ops import returns
from rljax.types import Agent, EnvSpec, Metrics, PyTree, Transition, identity


@config
class A2CConfig(GAEConfig):
    num_steps: int = option(16, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(3e-3, "step size of the optimizer", above=0)
    optimizer: str = option("adam", "the optimizer", choices=("adam", "rmsprop"))
    normalize_advantage: bool = option(False, "to mean 0 and variance 1 in each rollout")


class A2CState(NamedTuple):
    params: PyTree
    opt_state: PyTree


def advantage_gradient(
    config: A2CConfig, network: Any, params: PyTree, trajectory: Transition,
    average: Callable[[PyTree], PyTree] = identity,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """The gradient of the loss of one rollout `[T, B]`, a mean over its steps, and metrics."""

    def value_of(obs):
        return network.apply(params, obs)[1]

    value = value_of(trajectory.obs)
    advantage, target = returns.gae(
        trajectory.reward, value, next_values(value_of, trajectory, value), trajectory.terminated,
        trajectory.truncated, config.gamma, config.gae_lambda,
    )  # fmt: skip
    if config.normalize_advantage:
        advantage = normalized_advantage(advantage, average)

    def loss(params):
        return actor_critic_loss(
            network, config, params, recurrent.to_learn(network, trajectory),
            trajectory.extras["raw_action"], advantage, target,
        )  # fmt: skip

    return average(jax.grad(loss, has_aux=True)(params))


def a2c(
    config: A2CConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an A2C agent; the arguments are those of `rljax.agents.ppo.ppo`."""
    network = network or default_network(config, spec)
    optimizer = optimizer or default_optimizer(config)
    sample_noise, act, greedy = acting(network, spec)

    def init(key):
        params = network.init(key, recurrent.example(network, spec))
        return A2CState(params, optimizer.init(params))

    def update(state, trajectory, key):
        del key
        grads, metrics = advantage_gradient(config, network, state.params, trajectory, average)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return A2CState(optax.apply_updates(state.params, updates), opt_state), metrics

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
