"""Advantage actor-critic (A2C), the synchronous form of A3C, https://arxiv.org/abs/1602.01783.

One gradient step per short rollout. Differs from the paper: gradients are means over the rollout,
not sums; a lambda below 1 averages the n-step returns by GAE.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    GAEConfig,
    actor_critic_loss,
    estimate_advantages,
    network_or_default,
    normalized_advantage,
    optimizer_or_default,
    rollout_metrics,
    stochastic_policy,
)
from rljax.config import config, option
from rljax.networks import recurrent
from rljax.ops.gradients import mean_grad
from rljax.ops.optimizers import gradient_norm
from rljax.types import Agent, EnvSpec, Metrics, PyTree, Transition, identity


@config
class A2CConfig(GAEConfig):
    num_steps: int = option(16, "rollout length per environment", low=1)
    learning_rate: float = option(3e-3, "learning rate of the optimizer", above=0)
    optimizer: str = option("adam", "optimizer of policy and value", choices=("adam", "rmsprop"))
    normalize_advantage: bool = option(
        False, "normalize advantages to mean 0 and variance 1 in each update"
    )


class A2CState(NamedTuple):
    params: PyTree
    opt_state: PyTree


def advantage_gradient(
    network: Any, config: A2CConfig, spec: EnvSpec, sequences: recurrent.Sequences, params: PyTree,
    trajectory: Transition, average: Callable[[PyTree], PyTree] = identity,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """Returns the gradient of the actor-critic loss of a rollout `[T, B]`, and metrics."""
    value, advantage, target = estimate_advantages(network, config, params, trajectory)
    raw_action = trajectory.extras["raw_action"]
    diagnostics = rollout_metrics(spec, raw_action, value, target, average)
    if config.normalize_advantage:
        advantage = normalized_advantage(advantage, average)

    def loss(params, batch):
        return actor_critic_loss(network, config, params, *batch)

    inputs = sequences.training_inputs(trajectory)
    num_items, take = sequences.split((inputs, raw_action, advantage, target))
    parts = sequences.num_parts(num_items, params)
    grads, metrics = mean_grad(loss, params, take(slice(None)), parts)
    grads, metrics = average((grads, jax.tree.map(jnp.mean, metrics)))
    return grads, {**metrics, **diagnostics}


def a2c(
    config: A2CConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an A2C agent.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default the one that `config.optimizer` names, with clipped gradients.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Example:
      >>> agent = a2c(A2CConfig(gae_lambda=0.9), EnvSpec(obs_shape=(4,), num_actions=2))
    """
    network = network_or_default(network, config, spec)
    optimizer, rate_metric = optimizer_or_default(optimizer, config)
    sequences = recurrent.sequences(network, spec)
    acting = stochastic_policy(network, spec, sequences)

    def init(key):
        params = network.init(key, sequences.example_obs)
        return A2CState(params, optimizer.init(params))

    def update(state, trajectory, key):
        del key
        grads, metrics = advantage_gradient(
            network, config, spec, sequences, state.params, trajectory, average
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {**metrics, "losses/grad_norm": gradient_norm(grads), **rate_metric(opt_state)}
        return A2CState(optax.apply_updates(state.params, updates), opt_state), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)
