"""IMPALA, https://arxiv.org/abs/1802.01561: many actors, one learner, V-trace correction.

Actors follow a copy of the policy that is up to `pull_period - 1` updates old. Gradients are taken
at the learner's parameters, and V-trace (eq. 1) corrects for the difference. With a period of 1 it
is A2C with n-step returns. Differs from the paper: gradients are means; RMSProp's epsilon is 1e-5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.a3c import pull
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    actor_critic_loss,
    network_or_default,
    optimizer_or_default,
    rollout_metrics,
    stochastic_policy,
)
from rljax.config import config, option
from rljax.networks import policies, recurrent
from rljax.ops import returns
from rljax.ops.optimizers import gradient_norm
from rljax.ops.vtrace import vtrace
from rljax.types import Agent, EnvSpec, Metrics, PyTree, Shared, Transition, identity


@config
class IMPALAConfig(PolicyGradientConfig):
    num_envs: int = option(16, "number of parallel environments", low=1)
    num_steps: int = option(5, "rollout length per environment", low=1)
    learning_rate: float = option(3e-3, "learning rate of the optimizer", above=0)
    ent_coef: float = option(0.01, "entropy bonus coefficient", low=0)
    vf_coef: float = option(0.5, "value loss coefficient", low=0)
    optimizer: str = option("rmsprop", "optimizer of policy and value", choices=("adam", "rmsprop"))
    rho_bar: float = option(1.0, "truncation of the importance ratio in TD errors", above=0)
    c_bar: float = option(1.0, "truncation of the importance ratio in traces", above=0)
    pull_period: int = option(4, "updates between two pulls of the learner's parameters", low=1)


class IMPALAState(NamedTuple):
    """The state of IMPALA.

    Attributes:
      params: parameters of the learner.
      local: copy that acts.
      opt_state: state of the optimizer.
      num_updates: number of updates so far.
    """

    params: PyTree
    local: PyTree
    opt_state: PyTree
    num_updates: Shared


def vtrace_gradient(
    network: Any, config: IMPALAConfig, spec: EnvSpec, params: PyTree, trajectory: Transition,
    average: Callable[[PyTree], PyTree] = identity,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """Returns the gradient of the actor-critic loss with V-trace targets, and metrics."""
    raw_action = trajectory.extras["raw_action"]
    behavior = policies.like(trajectory.extras["policy"])
    policy, value = network.apply(params, trajectory.obs)
    next_value = returns.next_values(lambda obs: network.apply(params, obs)[1], trajectory, value)
    log_ratio = policy.log_prob(raw_action) - behavior.log_prob(raw_action)
    ratio = jnp.exp(log_ratio)
    advantage, target = vtrace(
        ratio, trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated,
        config.gamma, config.rho_bar, config.c_bar,
    )  # fmt: skip

    def loss(params):
        return actor_critic_loss(
            network, config, params, trajectory.obs, raw_action, advantage, target
        )

    grads, metrics = jax.grad(loss, has_aux=True)(params)
    approx_kl = (ratio - 1.0 - log_ratio).mean()
    metrics = {**metrics, "losses/ratio": ratio.mean(), "losses/approx_kl": approx_kl}
    grads, metrics = average((grads, metrics))
    return grads, {**metrics, **rollout_metrics(spec, raw_action, value, target, average)}


def impala(
    config: IMPALAConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an IMPALA agent.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default the one that `config.optimizer` names, with clipped gradients.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Example:
      >>> agent = impala(IMPALAConfig(pull_period=2), EnvSpec(obs_shape=(4,), num_actions=2))
    """
    network = network_or_default(network, config, spec)
    optimizer, rate_metric = optimizer_or_default(optimizer, config)
    sequences = recurrent.memoryless(spec)
    acting = stochastic_policy(network, spec, sequences, acts_with="local")

    def init(key):
        params = network.init(key, sequences.example_obs)
        return IMPALAState(params, params, optimizer.init(params), Shared(jnp.int32(0)))

    def update(state, trajectory, key):
        del key
        grads, metrics = vtrace_gradient(network, config, spec, state.params, trajectory, average)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {**metrics, "losses/grad_norm": gradient_norm(grads), **rate_metric(opt_state)}
        params = optax.apply_updates(state.params, updates)
        num_updates = state.num_updates.value + 1
        local = pull(num_updates, config.pull_period, params, state.local)
        return IMPALAState(params, local, opt_state, Shared(num_updates)), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)
