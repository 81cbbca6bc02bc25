"""Asynchronous advantage actor-critic (A3C), https://arxiv.org/abs/1602.01783, in lockstep.

Kept: workers with environments of their own, n-step updates of at most `num_steps`, gradients taken
at a local copy of the parameters and pushed to shared ones that have moved on since, RMSProp with
shared statistics. Not kept: races; workers push the mean of their gradients at one time, and pull
at one time, every `pull_period` updates. With a period of 1, it is A2C.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.a2c import A2CConfig, advantage_gradient
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import STD_HELP, acting, default_network, default_optimizer
from rljax.config import config, option
from rljax.networks import STDS, recurrent
from rljax.types import Agent, EnvSpec, PyTree, Shared, identity


@config
class A3CConfig(A2CConfig):
    num_envs: int = option(16, "environments side by side (B), of one worker each", low=1)
    num_steps: int = option(5, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(3e-3, "step size of the optimizer", above=0)
    gae_lambda: float = option(1.0, "lambda of generalized advantage estimation", low=0, high=1)
    ent_coef: float = option(0.01, "weight of the entropy bonus", low=0)
    optimizer: str = option("rmsprop", "the optimizer", choices=("adam", "rmsprop"))
    optimizer_eps: float = option(1e-5, "its epsilon; RMSProp has it inside the root", above=0)
    reduction: str = option(
        "mean", "of gradients over the steps of a rollout; the paper's is the sum",
        choices=("mean", "sum"),
    )  # fmt: skip
    pull_period: int = option(4, "updates after which the shared parameters are pulled", low=1)
    std: str = option("variance", STD_HELP, choices=STDS)


class A3CState(NamedTuple):
    params: PyTree  # shared by all workers
    local: PyTree  # what acts, and where gradients are taken
    opt_state: PyTree
    num_updates: Shared


def pulled(num_updates: Any, pull_period: int, params: PyTree, local: PyTree) -> PyTree:
    """The local copy after an update: the shared parameters every `pull_period` updates."""
    now = num_updates % pull_period == 0
    return jax.tree.map(lambda new, old: jnp.where(now, new, old), params, local)


def a3c(
    config: A3CConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an A3C agent; the arguments are those of `rljax.agents.ppo.ppo`.

    `average` pushes the gradients of all devices. On one, its environments are the workers.
    """
    network = network or default_network(config, spec)
    optimizer = optimizer or default_optimizer(config, config.optimizer_eps)
    sample_noise, act, greedy = acting(network, spec, acts_with="local")
    scale = config.num_steps if config.reduction == "sum" else 1

    def init(key):
        params = network.init(key, recurrent.example(network, spec))
        return A3CState(params, params, optimizer.init(params), Shared(jnp.int32(0)))

    def update(state, trajectory, key):
        del key
        grads, metrics = advantage_gradient(config, network, state.local, trajectory, average)
        grads = jax.tree.map(lambda x: scale * x, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params, count = optax.apply_updates(state.params, updates), state.num_updates.value + 1
        local = pulled(count, config.pull_period, params, state.local)
        return A3CState(params, local, opt_state, Shared(count)), metrics

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
