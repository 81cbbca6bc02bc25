"""One-step actor-critic, Sutton and Barto (2018), section 13.5.

    delta = r + gamma v(s') - v(s),  actor: I delta grad log pi(a | s),  critic: delta grad v(s)

v(s') is 0 in terminal states and has no gradient. I is gamma^t in the book and 1 by default, as in
practice. Differs from the book: a batch of environments, one network, Adam.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    actor_critic_loss,
    network_or_default,
    optimizer_or_default,
    rollout_metrics,
    stochastic_policy,
    trajectory_values,
)
from rljax.config import config, option
from rljax.networks import recurrent
from rljax.ops import returns
from rljax.ops.optimizers import gradient_norm
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


@config
class ActorCriticConfig(PolicyGradientConfig):
    num_envs: int = option(16, "number of parallel environments", low=1)
    num_steps: int = option(1, "rollout length per environment", low=1)
    learning_rate: float = option(1e-3, "learning rate of the optimizer", above=0)
    vf_coef: float = option(0.5, "value loss coefficient", low=0)
    discount_gradient: bool = option(
        False, "weight the policy gradient of step t of an episode by gamma^t"
    )


class ActorCriticState(NamedTuple):
    """The state of the one-step actor-critic.

    Attributes:
      params: parameters of policy and value.
      opt_state: state of the optimizer.
      time: time of the next step within its episode, `[B]` int32.
    """

    params: PyTree
    opt_state: PyTree
    time: Array


def actor_critic(
    config: ActorCriticConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a one-step actor-critic agent.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default Adam with clipped gradients and annealed learning rate.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Example:
      >>> agent = actor_critic(ActorCriticConfig(), EnvSpec(obs_shape=(4,), num_actions=2))
    """
    network = network_or_default(network, config, spec)
    optimizer, rate_metric = optimizer_or_default(optimizer, config)
    sequences = recurrent.memoryless(spec)
    acting = stochastic_policy(network, spec, sequences)

    def init(key):
        params = network.init(key, sequences.example_obs)
        time = jnp.zeros(spec.num_envs, jnp.int32)
        return ActorCriticState(params, optimizer.init(params), time)

    def update(state, trajectory, key):
        del key
        value, next_value = trajectory_values(network, state.params, trajectory)
        ends = trajectory.terminated, trajectory.truncated
        td_target = returns.lambda_returns(trajectory.reward, next_value, *ends, config.gamma, 0.0)
        raw_action = trajectory.extras["raw_action"]
        diagnostics = rollout_metrics(spec, raw_action, value, td_target, average)
        td_error = td_target - value
        time, next_time = returns.episode_times(ends[0] | ends[1], state.time)
        if config.discount_gradient:
            td_error *= config.gamma**time

        def loss(params):
            return actor_critic_loss(
                network, config, params, trajectory.obs, raw_action, td_error, td_target
            )

        grads, metrics = average(jax.grad(loss, has_aux=True)(state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            **metrics, **diagnostics, "losses/grad_norm": gradient_norm(grads),
            **rate_metric(opt_state),
        }  # fmt: skip
        params = optax.apply_updates(state.params, updates)
        return ActorCriticState(params, opt_state, next_time), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)
