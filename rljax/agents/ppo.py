"""Proximal policy optimization, https://arxiv.org/abs/1707.06347.

Clipping (eq. 7) and the adaptive KL penalty (eq. 8) are two `Surrogate`s. Differs from the paper:
advantages are normalised per minibatch, gradients clipped by global norm, beta is bounded.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    GAEConfig,
    acting,
    check_minibatches,
    default_network,
    default_optimizer,
    next_values,
    normalized_advantage,
)
from rljax.config import config, option
from rljax.networks import policies, recurrent
from rljax.ops import policy as objectives
from rljax.ops import returns, shuffling
from rljax.types import Agent, EnvSpec, PyTree, identity


@config
class PPOConfig(GAEConfig):
    num_steps: int = option(64, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(2e-3, "step size of the optimizer", above=0)
    update_epochs: int = option(10, "passes over each rollout", low=1)
    num_minibatches: int = option(4, "parts of a pass", low=1)
    surrogate: str = option("clip", "the objective", choices=("clip", "kl"))
    clip_eps: float = option(0.2, "how far the ratio may move (surrogate clip)", above=0)
    target_kl: float = option(0.01, "KL that beta steers towards (surrogate kl)", above=0)
    clip_value: bool = option(False, "hold values near their old ones by clip_eps as well")

    def __post_init__(self):
        super().__post_init__()
        check_minibatches(self)


class PPOState(NamedTuple):
    params: PyTree
    opt_state: PyTree
    surrogate: PyTree


class Surrogate(NamedTuple):
    """What the policy climbs.

    init: `() -> state`; objective: `(state, ratio[N], advantage[N], kl[N]) -> [N]`;
    adapt: `(state, kl) -> state`, once an update, of the mean KL(old || new) after it;
    stop: `(kl) -> bool`, of the mean KL of a minibatch: leaves the rest of the update undone.
    """

    init: Callable[[], PyTree]
    objective: Callable[..., Any]
    adapt: Callable[[PyTree, Any], PyTree]
    stop: Callable[[Any], Any] | None = None


def clip(clip_eps: Any) -> Surrogate:
    """The clipped surrogate, eq. 7."""

    def objective(state, ratio, advantage, kl):
        del state, kl
        return objectives.clipped_surrogate(ratio, advantage, clip_eps)

    return Surrogate(lambda: (), objective, lambda state, kl: state)


def adaptive_kl(target_kl: Any, beta: float = 1.0) -> Surrogate:
    """The KL penalty, eq. 8, with its weight adapted towards `target_kl`."""

    def objective(beta, ratio, advantage, kl):
        return ratio * advantage - beta * kl

    def adapt(beta, kl):
        return objectives.adapted_beta(beta, kl, target_kl)

    return Surrogate(lambda: jnp.float32(beta), objective, adapt)


def ppo(
    config: PPOConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, surrogate: Surrogate | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a PPO agent.

    Args:
      config: floats may be tracers.
      spec: of the environment that it will see.
      network: flax module, `obs -> (distrax policy, value)`; default by `spec`.
      optimizer: default Adam with clipped gradients; annealing is then its own business.
      surrogate: default what `config.surrogate` names.
      average: over workers, for DPPO: `partial(lax.pmean, axis_name=...)`.
    """
    network = network or default_network(config, spec)
    surrogate = (
        surrogate
        or {"clip": clip(config.clip_eps), "kl": adaptive_kl(config.target_kl)}[config.surrogate]
    )
    num_minibatch_steps = config.update_epochs * config.num_minibatches
    optimizer = optimizer or default_optimizer(config, steps_per_update=num_minibatch_steps)
    sample_noise, act, greedy = acting(network, spec)

    def init(key):
        params = network.init(key, recurrent.example(network, spec))
        return PPOState(params, optimizer.init(ravel_pytree(params)[0]), surrogate.init())

    def value_of(params, obs):
        return network.apply(params, obs)[1]

    def loss(flat, unravel, surrogate_state, batch):
        obs, raw_action, old_policy, old_log_prob, old_value, advantage, target = batch
        policy, value = network.apply(unravel(flat), obs)
        ratio = jnp.exp(policy.log_prob(raw_action) - old_log_prob)
        kl = policies.like(old_policy).kl_divergence(policy)
        advantage = normalized_advantage(advantage, average)
        policy_loss = -surrogate.objective(surrogate_state, ratio, advantage, kl).mean()
        if config.clip_value:
            value_loss = objectives.clipped_value_loss(
                value, old_value, target, config.clip_eps
            ).mean()
        else:
            value_loss = 0.5 * jnp.square(value - target).mean()
        entropy = policy.entropy().mean()
        total = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
        return total, {
            "losses/policy_loss": policy_loss, "losses/value_loss": value_loss,
            "losses/entropy": entropy, "losses/kl": kl.mean(),
            "losses/clip_fraction": (jnp.abs(ratio - 1.0) > config.clip_eps).mean(),
        }  # fmt: skip

    def update(state, trajectory, key):
        old_policy, raw_action = trajectory.extras["policy"], trajectory.extras["raw_action"]
        value = value_of(state.params, trajectory.obs)
        next_value = next_values(partial(value_of, state.params), trajectory, value)
        advantage, target = returns.gae(
            trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated,
            config.gamma, config.gae_lambda,
        )  # fmt: skip
        old_log_prob = policies.like(old_policy).log_prob(raw_action)
        obs = recurrent.to_learn(network, trajectory)
        batch = (obs, raw_action, old_policy, old_log_prob, value, advantage, target)
        num_rows, take = recurrent.rows_of(network, batch)

        def minibatch_step(carry, rows):
            *before, stopped = carry
            flat, opt_state = before
            grads, metrics = jax.grad(loss, has_aux=True)(
                flat, unravel, state.surrogate, take(rows)
            )
            updates, opt_state = optimizer.update(average(grads), opt_state, flat)
            after = [flat + updates, opt_state]
            if surrogate.stop is not None:
                stopped = stopped | surrogate.stop(average(metrics["losses/kl"]))
                after = jax.tree.map(partial(jnp.where, stopped), before, after)
            return (*after, stopped), metrics

        rows = shuffling.permutations(key, config.update_epochs, num_rows)
        flat, unravel = ravel_pytree(state.params)
        (flat, opt_state, _), metrics = jax.lax.scan(
            minibatch_step, (flat, state.opt_state, jnp.bool_(False)),
            rows.reshape(num_minibatch_steps, -1),
        )  # fmt: skip
        params = unravel(flat)
        metrics = average(jax.tree.map(jnp.mean, metrics))
        policy, _ = network.apply(params, obs)
        kl = average(policies.like(old_policy).kl_divergence(policy).mean())
        return PPOState(params, opt_state, surrogate.adapt(state.surrogate, kl)), metrics

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
