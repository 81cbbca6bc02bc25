"""Soft actor-critic (SAC) with a learned temperature, https://arxiv.org/abs/1812.05905.

A stochastic policy maximizes the return plus alpha times its entropy; alpha is adapted so that the
entropy stays near a target (algorithm 1). Entropies are those of actions in [-1, 1], so that the
target does not depend on the bounds of the environment. Not in the paper: `noise` may correlate
the actions of neighboring steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents import continuous, off_policy
from rljax.agents.acting import EXPLORATION_REPEAT_HELP, noise_repeat, with_warmup
from rljax.agents.continuous import ActorCriticReplayConfig
from rljax.agents.off_policy import Learned
from rljax.config import config, option
from rljax.networks.continuous import (
    action_size,
    critic_network,
    squashed_gaussian_policy,
    squashed_sample,
)
from rljax.networks.policies import from_box
from rljax.ops import random, td
from rljax.ops.diagnostics import action_saturation
from rljax.ops.optimizers import apply_gradients, global_norm
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class EntropyConfig(ActorCriticReplayConfig):
    """Options of entropy regularization with a learned temperature."""

    alpha_learning_rate: float = option(
        3e-4, "learning rate of the temperature alpha; 0 keeps it fixed", low=0
    )
    initial_alpha: float = option(1.0, "initial temperature alpha of the entropy", above=0)


@config
class SACConfig(EntropyConfig):
    """Options of SAC; the defaults are those of the paper (appendix D).

    Differs from the paper: Gaussian noise of the actions is repeated for 8 steps
    (docs/robustness.md).
    """

    exploration_repeat: int = option(8, EXPLORATION_REPEAT_HELP, low=1)
    target_entropy_per_dimension: float = option(-1.0, "target entropy per action dimension")
    noise: str = option("gaussian", continuous.NOISE_HELP, choices=continuous.NOISES)
    noise_theta: float = option(0.15, continuous.NOISE_THETA_HELP, low=0, high=1)


class Parameters(NamedTuple):
    """A triple for the three learned quantities: parameters, optimizers or their states."""

    actor: PyTree
    critic: PyTree
    log_alpha: PyTree


class SoftActorCritic(NamedTuple):
    """The gradient steps of SAC, given its losses; see `soft_actor_critic`.

    Attributes:
      init: `(actor_params, critic_params) -> Learned`.
      step: `(learned, batch, critic_loss, actor_loss) -> (learned, td_error[N], metrics)`, where
        `critic_loss(critic_params) -> (loss, (td_error, q))` and
        `actor_loss(actor_params, critic_params) -> (loss, (entropy, metrics))`.
    """

    init: Callable[..., Learned]
    step: Callable[..., tuple[Learned, Array, dict[str, Array]]]


def sac(
    config: Any, spec: EnvSpec, *, policy: Any = None, critic: Any = None,
    actor_optimizer: optax.GradientTransformation | None = None,
    critic_optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a SAC agent.

    Args:
      config: a `SACConfig`; floats may be tracers.
      spec: description of the environment, with continuous actions.
      policy: flax module, `obs[..., *obs_shape] -> (mean[..., A], log_std[..., A])` before the
        tanh.
      critic: flax module, `obs[..., *obs_shape], action[..., A] -> Q[...]`; both critics are
        copies.
      actor_optimizer, critic_optimizer: default Adam.
      replay: for example `n_step(prioritized(...), ...)` of `rljax.replay`.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are discrete or unbounded, a network does not fit the environment,
        an argument has the wrong type, or the replay buffer needs more memory than there is.

    Example:
      >>> import rljax
      >>> env = rljax.build("Pendulum-v1", num_envs=1)
      >>> agent = sac(SACConfig(initial_alpha=0.1, buffer_size=1_000), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
    """
    continuous.check_continuous(spec)
    policy = squashed_gaussian_policy(policy, config, spec)
    critics = continuous.make_critics(critic_network(critic, config, spec), num_critics=2)
    target_entropy = config.target_entropy_per_dimension * action_size(spec)
    learn = soft_actor_critic(
        config, lambda batch: target_entropy, actor_optimizer, critic_optimizer, average
    )
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        obs, action = continuous.example_inputs(spec)
        actor_params = policy.init(actor_key, obs)
        return loop.init(learn.init(actor_params, critics.init(critic_key, obs, action)))

    def gaussian(actor_params, obs):
        """Returns the mean and the logarithm of the standard deviation before the tanh."""
        mean, log_std = policy.apply(actor_params, obs)
        return mean, log_std

    def gradient_step(learned, batch):
        """One gradient step of algorithm 1 of Haarnoja et al. (2018)."""
        params, target_critic, _ = learned
        transitions = batch.transitions
        action = from_box(spec, transitions.action)
        next_normal, normal = batch.noise
        alpha = jnp.exp(params.log_alpha)
        next_action, next_log_prob = squashed_sample(
            *gaussian(params.actor, transitions.next_obs), next_normal
        )
        next_q = critics.q_values(target_critic, transitions.next_obs, next_action)
        td_target = td.td_target(
            transitions.reward, transitions.terminated, batch.discount,
            continuous.smallest(next_q) - alpha * next_log_prob,
        )  # fmt: skip

        def critic_loss(critic_params):
            """Equation 5."""
            q = critics.q_values(critic_params, transitions.obs, action)
            return continuous.critic_loss(q, td_target, batch.weight)

        def actor_loss(actor_params, critic_params):
            """Equation 9, with the smaller of the two critics."""
            action, log_prob = squashed_sample(*gaussian(actor_params, transitions.obs), normal)
            q = continuous.smallest(critics.q_values(critic_params, transitions.obs, action))
            saturation = {"charts/action_saturation": action_saturation(action)}
            return (alpha * log_prob - q).mean(), (-log_prob.mean(), saturation)

        return learn.step(learned, batch, critic_loss, actor_loss)

    def policy_noise(key, num):
        return random.normal(key, (num, 2, config.batch_size, action_size(spec)))

    def update(state, trajectory, key):
        return loop.learn(state, trajectory, key, gradient_step, policy_noise)

    def distribution(state, obs):
        return gaussian(state.params.actor, loop.standardize(state, obs))

    noise = continuous.standard_noise(config)

    def explore(state, obs, memory, normal):
        sample, memory = noise.step(memory, normal)
        return squashed_sample(*distribution(state, obs), sample)[0], memory

    def greedy_action(state, obs):
        return jnp.tanh(distribution(state, obs)[0])

    acting = with_warmup(spec, explore, greedy_action, config.learning_starts, noise.has_memory)
    return Agent(
        init, acting.act, acting.greedy, update, acting.sample_noise, noise_repeat(config, noise)
    )


def soft_actor_critic(
    config: EntropyConfig, target_entropy: Callable[[off_policy.Batch], Any], actor_optimizer: Any,
    critic_optimizer: Any, average: Callable[[PyTree], PyTree],
) -> SoftActorCritic:  # fmt: skip
    """Makes the gradient steps that SAC takes for continuous and for discrete actions.

    The critics take one step, then the policy by the new critics, then the temperature alpha,
    which falls where the entropy is above `target_entropy(batch)` (equation 18); then the target
    critics move.
    """
    optimizers, rate_metrics = continuous.make_optimizers(config, actor_optimizer, critic_optimizer)
    optimizer = Parameters(*optimizers, optax.adam(config.alpha_learning_rate))

    def init(actor_params, critic_params):
        log_alpha = jnp.log(jnp.float32(config.initial_alpha))
        params = Parameters(actor_params, critic_params, log_alpha)
        opt_state = Parameters(*(o.init(p) for o, p in zip(optimizer, params, strict=True)))
        return Learned(params, jax.tree.map(jnp.copy, critic_params), opt_state)

    def step(learned, batch, critic_loss, actor_loss):
        params, target_critic, opt_state = learned

        value_and_grad = partial(jax.value_and_grad, has_aux=True)
        (loss, (td_error, q)), grads = value_and_grad(critic_loss)(params.critic)
        critic_grads = average(grads)
        critic, critic_state = apply_gradients(
            optimizer.critic, critic_grads, opt_state.critic, params.critic
        )
        (policy_loss, (entropy, metrics)), grads = value_and_grad(actor_loss)(params.actor, critic)
        actor_grads = average(grads)
        actor, actor_state = apply_gradients(
            optimizer.actor, actor_grads, opt_state.actor, params.actor
        )
        alpha = jnp.exp(params.log_alpha)
        grads = alpha * (entropy - target_entropy(batch))
        log_alpha, alpha_state = apply_gradients(
            optimizer.log_alpha, average(grads), opt_state.log_alpha, params.log_alpha
        )
        target_critic = off_policy.update_target(
            target_critic, critic, config.tau, batch.target_is_due
        )
        params = Parameters(actor, critic, log_alpha)
        opt_state = Parameters(actor_state, critic_state, alpha_state)
        metrics = {
            "losses/critic_loss": loss, "losses/policy_loss": policy_loss, **q,
            "losses/entropy": entropy, "losses/alpha": alpha, **metrics,
            "losses/actor_grad_norm": global_norm(actor_grads),
            "losses/critic_grad_norm": global_norm(critic_grads), **rate_metrics(opt_state),
        }  # fmt: skip
        return Learned(params, target_critic, opt_state), td_error, metrics

    return SoftActorCritic(init, step)
