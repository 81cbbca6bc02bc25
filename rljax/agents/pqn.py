"""Parallelised Q-network (PQN), https://arxiv.org/abs/2407.04811 (algorithm 1).

Q(lambda) on the rollouts of many environments, without replay or target network; layer
normalization stabilizes learning. Peng's Q(lambda): returns are not cut at exploratory actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.acting import EXPLORATION_REPEAT_HELP, check_discrete, epsilon_greedy
from rljax.agents.minibatches import (
    GRADIENT_STEPS,
    check_minibatches,
    gradient_steps_per_update,
    minibatch_indices,
)
from rljax.agents.policy_gradient import learning_rate
from rljax.config import RunConfig, config, option
from rljax.networks import action_values
from rljax.networks.action_values import check_q_network
from rljax.networks.encoder import example_obs
from rljax.networks.layers import ACTIVATIONS
from rljax.ops import optimizers, returns, td
from rljax.ops.diagnostics import q_value_metrics, spread_of_values
from rljax.ops.gradients import mean_grad, num_parts
from rljax.ops.observations import legal_values
from rljax.types import Agent, EnvSpec, PyTree, Shared, identity


@config
class PQNConfig(RunConfig):
    num_envs: int = option(32, "number of parallel environments", low=1)
    num_steps: int = option(64, "rollout length per environment", low=1)
    learning_rate: float = option(1e-3, "learning rate of the optimizer", above=0)
    anneal_lr: bool = option(True, "anneal the learning rate linearly to 0")
    max_grad_norm: float = option(10.0, "maximum global norm of the gradient", above=0)
    update_epochs: int = option(4, "epochs over each rollout", low=1)
    num_minibatches: int = option(16, "minibatches per epoch", low=1)
    trace_lambda: float = option(0.95, "lambda of the lambda-returns", low=0, high=1)
    eps_start: float = option(1.0, "initial epsilon of the epsilon-greedy policy", low=0, high=1)
    eps_end: float = option(0.05, "final epsilon of the epsilon-greedy policy", low=0, high=1)
    exploration_fraction: float = option(
        0.2, "fraction of training over which epsilon is annealed linearly", low=0, high=1
    )
    exploration_repeat: int = option(1, EXPLORATION_REPEAT_HELP, low=1)
    hidden_sizes: tuple[int, ...] = option((128, 128), "units of each hidden layer", low=1)
    activation: str = option("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))

    def __post_init__(self):
        super().__post_init__()
        check_minibatches(self)

    def counts(self) -> dict[str, int]:
        gradient_steps = self.num_updates * gradient_steps_per_update(self)
        return super().counts() | {
            "environment steps": self.total_timesteps,
            GRADIENT_STEPS: gradient_steps,
        }


class PQNState(NamedTuple):
    params: PyTree
    opt_state: PyTree
    env_steps: Shared  # int32


def pqn(
    config: PQNConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a PQN agent.

    Args:
      config: floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs[..., *obs_shape] -> values[..., A]`, with layer normalization.
      optimizer: default RAdam with clipped gradients, annealed by `config.anneal_lr`.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are continuous, or the network does not fit the environment.
    """
    check_discrete(spec)
    if network is None:
        network = action_values.q_network(
            spec, config.hidden_sizes, config.activation, layer_norm=True
        )
    else:
        check_q_network(network, spec)
    rate_metric = optimizers.learning_rate_metric(None if optimizer else learning_rate(config))
    if optimizer is None:
        optimizer = default_optimizer(config)
    optimizers.check_optimizer(optimizer)

    def q_values(state, obs, noise=None):
        del noise
        return legal_values(spec, obs, network.apply(state.params, obs))

    def init(key):
        params = network.init(key, example_obs(spec))
        return PQNState(params, optimizer.init(optimizers.packed(params)[0]), Shared(jnp.int32(0)))

    def update(state, trajectory, key):
        next_value = returns.next_values(
            lambda obs: q_values(state, obs).max(axis=-1), trajectory, trajectory.extras["value"]
        )
        td_target = returns.lambda_returns(
            trajectory.reward, next_value, trajectory.terminated, trajectory.truncated,
            config.gamma, config.trace_lambda,
        )  # fmt: skip
        batch = trajectory.obs, trajectory.action, td_target
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        params, unpack = optimizers.packed(state.params)

        def loss(params, minibatch):
            obs, action, td_target = minibatch
            q = td.chosen(network.apply(unpack(params), obs), action)
            loss = td.squared(td_target - q).mean()
            return loss, (loss, q)

        def minibatch_step(carry, indices):
            params, opt_state = carry
            minibatch = jax.tree.map(lambda x: x[indices], batch)
            grads, (td_loss, q) = mean_grad(loss, params, minibatch, parts)
            grads = average(grads)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            norm = optimizers.gradient_norm(grads)
            metrics = {"losses/td_loss": td_loss.mean(), "losses/grad_norm": norm}
            metrics |= q_value_metrics(q)
            return (optax.apply_updates(params, updates), opt_state), metrics

        indices = minibatch_indices(config, key, td_target.size)
        parts = num_parts(indices.shape[1], state.params)
        start = params, state.opt_state
        (params, opt_state), metrics = jax.lax.scan(minibatch_step, start, indices)
        env_steps = Shared(state.env_steps.value + td_target.size)
        state = PQNState(unpack(params), opt_state, env_steps)
        metrics = jax.tree.map(jnp.mean, metrics) | spread_of_values(trajectory.extras)
        return state, average(metrics) | rate_metric(opt_state)

    acting = epsilon_greedy(config, spec, q_values)
    return Agent(
        init, acting.act, acting.greedy, update, acting.sample_noise, config.exploration_repeat
    )


def default_optimizer(config: PQNConfig) -> optax.GradientTransformation:
    """Returns RAdam with clipped gradients and annealed learning rate."""
    return optimizers.clipped(optax.radam(learning_rate(config)), config.max_grad_norm)
