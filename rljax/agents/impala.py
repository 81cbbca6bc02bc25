"""IMPALA, https://arxiv.org/abs/1802.01561: A3C's workers, one learner, V-trace between them.

Actors follow a copy of the policy that is up to `pull_period - 1` updates old; gradients are taken
at the learner's parameters, and V-trace (eq. 1) corrects for the difference. Without a lag it is
A2C with n-step returns. Differs from the paper: gradients are means; RMSProp's epsilon is 1e-5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax import networks
from rljax.agents.a3c import pulled
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    acting,
    actor_critic_loss,
    default_network,
    default_optimizer,
    next_values,
)
from rljax.config import config, option
from rljax.ops.vtrace import vtrace
from rljax.types import Agent, EnvSpec, PyTree, Shared, identity


@config
class IMPALAConfig(PolicyGradientConfig):
    num_envs: int = option(16, "environments side by side (B)", low=1)
    num_steps: int = option(5, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(3e-3, "step size of the optimizer", above=0)
    ent_coef: float = option(0.01, "weight of the entropy bonus", low=0)
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    optimizer: str = option("rmsprop", "the optimizer", choices=("adam", "rmsprop"))
    rho_bar: float = option(1.0, "largest ratio in a TD error; biases the fixed point", above=0)
    c_bar: float = option(1.0, "largest ratio in a trace; at most rho_bar", above=0)
    pull_period: int = option(4, "updates after which actors pull the parameters", low=1)


class IMPALAState(NamedTuple):
    params: PyTree  # of the learner
    local: PyTree  # what acts
    opt_state: PyTree
    num_updates: Shared


def impala(
    config: IMPALAConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an IMPALA agent; the arguments are those of `rljax.agents.ppo.ppo`."""
    network = network or default_network(config, spec)
    optimizer = optimizer or default_optimizer(config)
    sample_noise, act, greedy = acting(network, spec, acts_with="local")

    def init(key):
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        return IMPALAState(params, params, optimizer.init(params), Shared(jnp.int32(0)))

    def gradient(params, trajectory):
        raw_action = trajectory.extras["raw_action"]
        behaviour = networks.like(trajectory.extras["policy"])

        def value_of(obs):
            return network.apply(params, obs)[1]

        policy, value = network.apply(params, trajectory.obs)
        ratio = jnp.exp(policy.log_prob(raw_action) - behaviour.log_prob(raw_action))
        advantage, target = vtrace(
            ratio, trajectory.reward, value, next_values(value_of, trajectory, value),
            trajectory.terminated, trajectory.truncated, config.gamma, config.rho_bar, config.c_bar,
        )  # fmt: skip

        def loss(params):
            return actor_critic_loss(
                network, config, params, trajectory.obs, raw_action, advantage, target
            )

        grads, metrics = jax.grad(loss, has_aux=True)(params)
        return average((grads, metrics | {"losses/ratio": ratio.mean()}))

    def update(state, trajectory, key):
        del key
        grads, metrics = gradient(state.params, trajectory)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params, count = optax.apply_updates(state.params, updates), state.num_updates.value + 1
        local = pulled(count, config.pull_period, params, state.local)
        return IMPALAState(params, local, opt_state, Shared(count)), metrics

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
