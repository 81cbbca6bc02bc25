"""Asynchronous advantage actor-critic (A3C), https://arxiv.org/abs/1602.01783, in lockstep.

As in the paper: workers with their own environments, n-step updates of at most `num_steps`,
gradients at a local copy of the parameters that are applied to shared, newer parameters, and
RMSProp with shared statistics. Differs from the paper: no races; workers push the mean of their
gradients together, and pull together every `pull_period` updates. A period of 1 gives A2C.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.a2c import A2CConfig, advantage_gradient
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    STD_HELP,
    network_or_default,
    optimizer_or_default,
    stochastic_policy,
)
from rljax.config import config, option
from rljax.networks import STDS, recurrent
from rljax.ops.optimizers import gradient_norm
from rljax.types import Agent, Array, EnvSpec, PyTree, Shared, identity


@config
class A3CConfig(A2CConfig):
    num_envs: int = option(16, "number of parallel environments", low=1)
    num_steps: int = option(5, "rollout length per environment", low=1)
    learning_rate: float = option(3e-3, "learning rate of the optimizer", above=0)
    gae_lambda: float = option(1.0, "lambda of generalized advantage estimation", low=0, high=1)
    ent_coef: float = option(0.01, "entropy bonus coefficient", low=0)
    optimizer: str = option("rmsprop", "optimizer of policy and value", choices=("adam", "rmsprop"))
    optimizer_eps: float = option(1e-5, "epsilon in the optimizer's denominator", above=0)
    reduction: str = option(
        "mean", "reduction of gradients over the rollout; the paper sums", choices=("mean", "sum")
    )
    pull_period: int = option(4, "updates between two pulls of the shared parameters", low=1)
    std: str = option("variance", STD_HELP, choices=STDS)


class A3CState(NamedTuple):
    """The state of A3C.

    Attributes:
      params: parameters shared by all workers.
      local: copy that acts and at which gradients are taken.
      opt_state: state of the shared optimizer.
      num_updates: number of updates so far.
    """

    params: PyTree
    local: PyTree
    opt_state: PyTree
    num_updates: Shared


def pull(num_updates: Array, pull_period: int, params: PyTree, local: PyTree) -> PyTree:
    """Returns the local copy after an update: `params` every `pull_period` updates, else `local`.

    Example:
      >>> [float(pull(jnp.int32(n), 2, jnp.float32(1.0), jnp.float32(0.0))) for n in (1, 2, 3)]
      [0.0, 1.0, 0.0]
    """
    is_due = num_updates % pull_period == 0
    return jax.tree.map(lambda new, old: jnp.where(is_due, new, old), params, local)


def a3c(
    config: A3CConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an A3C agent; each environment of each device is a worker.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default the one that `config.optimizer` names, with clipped gradients.
      average: mean over devices, `partial(lax.pmean, axis_name=...)`, which pushes gradients.

    Example:
      >>> agent = a3c(A3CConfig(pull_period=2), EnvSpec(obs_shape=(4,), num_actions=2))
    """
    network = network_or_default(network, config, spec)
    optimizer, rate_metric = optimizer_or_default(optimizer, config, config.optimizer_eps)
    sequences = recurrent.sequences(network, spec)
    acting = stochastic_policy(network, spec, sequences, acts_with="local")
    scale = config.num_steps if config.reduction == "sum" else 1

    def init(key):
        params = network.init(key, sequences.example_obs)
        return A3CState(params, params, optimizer.init(params), Shared(jnp.int32(0)))

    def update(state, trajectory, key):
        del key
        grads, metrics = advantage_gradient(
            network, config, spec, sequences, state.local, trajectory, average
        )
        grads = jax.tree.map(lambda x: scale * x, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {**metrics, "losses/grad_norm": gradient_norm(grads), **rate_metric(opt_state)}
        params = optax.apply_updates(state.params, updates)
        num_updates = state.num_updates.value + 1
        local = pull(num_updates, config.pull_period, params, state.local)
        return A3CState(params, local, opt_state, Shared(num_updates)), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)
