"""Parallelised Q-network, https://arxiv.org/abs/2407.04811 (algorithm 1).

Q(lambda) on the rollouts of many environments, without replay and without a target network: layer
normalisation keeps it stable. Peng's lambda: returns are not cut where an action explores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rljax.agents.acting import acting, check_discrete
from rljax.agents.off_policy import example
from rljax.agents.policy_gradient import check_minibatches, next_values
from rljax.config import RunConfig, config, option
from rljax.networks import ACTIVATIONS, action_values
from rljax.ops import optimizers, returns, shuffling, td
from rljax.types import Agent, EnvSpec, PyTree, Shared, identity


@config
class PQNConfig(RunConfig):
    num_envs: int = option(32, "environments side by side (B)", low=1)
    num_steps: int = option(64, "steps of each between updates (T)", low=1)
    learning_rate: float = option(1e-3, "step size of the optimizer", above=0)
    anneal_lr: bool = option(True, "let the step size fall linearly to 0 over the run")
    max_grad_norm: float = option(10.0, "largest global norm of a gradient", above=0)
    update_epochs: int = option(4, "passes over each rollout", low=1)
    num_minibatches: int = option(16, "parts of a pass", low=1)
    trace_lambda: float = option(0.95, "lambda of the returns", low=0, high=1)
    eps_start: float = option(1.0, "chance of a random action at first", low=0, high=1)
    eps_end: float = option(0.05, "and at last", low=0, high=1)
    exploration_fraction: float = option(0.2, "part of the run over which it falls", low=0, high=1)
    hidden_sizes: tuple[int, ...] = option((128, 128), "units of each hidden layer", low=1)
    activation: str = option("relu", "of the hidden layers", choices=tuple(ACTIVATIONS))

    def __post_init__(self):
        super().__post_init__()
        check_minibatches(self)


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
      spec: of the environment that it will see.
      network: flax module, `obs[..., *obs_shape] -> values[..., A]`; it should normalise layers.
      optimizer: default RAdam with clipped gradients; annealing is then its own business.
      average: over workers: `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: actions are continuous.
    """
    check_discrete("pqn", spec)
    network = network or action_values.q_network(
        spec, config.hidden_sizes, config.activation, layer_norm=True
    )
    num_minibatch_steps = config.update_epochs * config.num_minibatches
    rate = config.learning_rate
    if config.anneal_lr:
        rate = optimizers.learning_rate_schedule(rate, config.num_updates, num_minibatch_steps)
    optimizer = optimizer or optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.radam(rate)
    )

    sample_noise, act, greedy = acting(
        config, spec, lambda state, obs, key: network.apply(state.params, obs)
    )

    def init(key):
        params = network.init(key, example(spec).obs[None])
        return PQNState(params, optimizer.init(ravel_pytree(params)[0]), Shared(jnp.int32(0)))

    def loss(flat, unravel, obs, action, target):
        value = td.chosen(network.apply(unravel(flat), obs), action)
        loss = td.squared(target - value).mean()
        return loss, {"losses/td_loss": loss, "losses/q_value": value.mean()}

    def update(state, trajectory, key):
        def value_of(obs):
            return network.apply(state.params, obs).max(axis=-1)

        next_value = next_values(value_of, trajectory, trajectory.extras["value"])
        target = returns.lambda_returns(
            trajectory.reward, next_value, trajectory.terminated, trajectory.truncated,
            config.gamma, config.trace_lambda,
        )  # fmt: skip
        batch = trajectory.obs, trajectory.action, target
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

        def minibatch_step(carry, rows):
            flat, opt_state = carry
            minibatch = jax.tree.map(lambda x: x[rows], batch)
            grads, metrics = jax.grad(loss, has_aux=True)(flat, unravel, *minibatch)
            updates, opt_state = optimizer.update(average(grads), opt_state, flat)
            return (flat + updates, opt_state), metrics

        rows = shuffling.permutations(key, config.update_epochs, target.size)
        flat, unravel = ravel_pytree(state.params)
        (flat, opt_state), metrics = jax.lax.scan(
            minibatch_step, (flat, state.opt_state), rows.reshape(num_minibatch_steps, -1)
        )
        env_steps = Shared(state.env_steps.value + target.size)
        state = PQNState(unravel(flat), opt_state, env_steps)
        return state, average(jax.tree.map(jnp.mean, metrics))

    return Agent(init, act, greedy, update, sample_noise)
