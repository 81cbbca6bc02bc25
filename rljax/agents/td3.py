"""Twin delayed deep deterministic policy gradient (TD3), https://arxiv.org/abs/1802.09477.

DDPG with three changes against overestimated values: the smaller of two critics in the target,
noise on the target action, and a policy that is updated less often than the critics (algorithm 1).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents import continuous, off_policy
from rljax.agents.acting import ActionNoise, check_action_noise, noise_repeat, noisy_policy
from rljax.agents.continuous import ActorCritic, DeterministicConfig
from rljax.agents.off_policy import Learned
from rljax.config import config, option
from rljax.networks.continuous import action_size, critic_network, deterministic_policy
from rljax.networks.policies import from_box
from rljax.ops import random, td
from rljax.ops.diagnostics import action_saturation
from rljax.ops.optimizers import apply_gradients, global_norm
from rljax.types import Agent, EnvSpec, Mean, PyTree, Replay, identity


@config
class TD3Config(DeterministicConfig):
    """Options of TD3; the defaults are those of the paper and of its published code."""

    policy_delay: int = option(2, "critic updates between two policy updates", low=1)
    target_noise: float = option(0.2, "standard deviation of the target action noise", low=0)
    target_noise_clip: float = option(0.5, "bound of the target action noise", low=0)


def td3(
    config: Any, spec: EnvSpec, *, policy: Any = None, critic: Any = None,
    actor_optimizer: optax.GradientTransformation | None = None,
    critic_optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    action_noise: ActionNoise | None = None, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TD3 agent.

    Args:
      config: a `TD3Config`; floats may be tracers.
      spec: description of the environment, with continuous actions.
      policy: flax module, `obs[..., *obs_shape] -> action[..., A]` in [-1, 1].
      critic: flax module, `obs[..., *obs_shape], action[..., A] -> Q[...]`; both critics are
        copies.
      actor_optimizer, critic_optimizer: default Adam.
      replay: for example `n_step(prioritized(...), ...)` of `rljax.replay`.
      action_noise: exploration noise, see `rljax.agents.acting`; default as `config.noise`.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are discrete or unbounded, a network does not fit the environment,
        an argument has the wrong type, or the replay buffer needs more memory than there is.

    Example:
      >>> import rljax
      >>> env = rljax.build("Pendulum-v1", num_envs=1)
      >>> agent = td3(TD3Config(policy_delay=1, buffer_size=1_000), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
    """
    continuous.check_continuous(spec)
    policy = deterministic_policy(policy, config, spec)
    critics = continuous.make_critics(critic_network(critic, config, spec), num_critics=2)
    optimizer, rate_metrics = continuous.make_optimizers(config, actor_optimizer, critic_optimizer)
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        obs, action = continuous.example_inputs(spec)
        params = ActorCritic(policy.init(actor_key, obs), critics.init(critic_key, obs, action))
        opt_state = ActorCritic(*(o.init(p) for o, p in zip(optimizer, params, strict=True)))
        return loop.init(Learned(params, jax.tree.map(jnp.copy, params), opt_state))

    def gradient_step(learned, batch):
        """One iteration of algorithm 1 of Fujimoto et al. (2018)."""
        params, target, opt_state = learned
        transitions = batch.transitions
        action = from_box(spec, transitions.action)
        clip = config.target_noise_clip
        noise = jnp.clip(config.target_noise * batch.noise, -clip, clip)
        next_action = policy.apply(target.actor, transitions.next_obs) + noise
        next_action = jnp.clip(next_action, -1.0, 1.0)
        next_q = critics.q_values(target.critic, transitions.next_obs, next_action).min(axis=0)
        td_target = td.td_target(transitions.reward, transitions.terminated, batch.discount, next_q)

        def critic_loss(critic_params):
            q = critics.q_values(critic_params, transitions.obs, action)
            return continuous.critic_loss(q, td_target, batch.weight)

        def actor_loss(actor_params):
            action = policy.apply(actor_params, transitions.obs)
            q = critics.first_q_value(critic_params, transitions.obs, action)
            return -q.mean(), action_saturation(action)

        def update_policy(actor, target, actor_state):
            (loss, saturation), grads = jax.value_and_grad(actor_loss, has_aux=True)(actor)
            grads = average(grads)
            actor, actor_state = apply_gradients(optimizer.actor, grads, actor_state, actor)
            params = ActorCritic(actor, critic_params)
            target = off_policy.update_target(target, params, config.tau, batch.target_is_due)
            metrics = loss, global_norm(grads), saturation
            return actor, target, actor_state, tuple(Mean(x, jnp.float32(1)) for x in metrics)

        def skip(actor, target, actor_state):
            return actor, target, actor_state, (Mean(jnp.float32(0), jnp.float32(0)),) * 3

        (loss, (td_error, q)), grads = jax.value_and_grad(critic_loss, has_aux=True)(params.critic)
        grads = average(grads)
        critic_params, critic_state = apply_gradients(
            optimizer.critic, grads, opt_state.critic, params.critic
        )
        policy_is_due = (batch.number + 1) % config.policy_delay == 0
        actor, target, actor_state, (policy_loss, policy_norm, saturation) = jax.lax.cond(
            policy_is_due, update_policy, skip, params.actor, target, opt_state.actor
        )
        opt_state = ActorCritic(actor_state, critic_state)
        metrics = {
            "losses/critic_loss": loss, "losses/policy_loss": policy_loss, **q,
            "losses/actor_grad_norm": policy_norm, "losses/critic_grad_norm": global_norm(grads),
            "charts/action_saturation": saturation, **rate_metrics(opt_state),
        }  # fmt: skip
        return Learned(ActorCritic(actor, critic_params), target, opt_state), td_error, metrics

    def target_noise(key, num):
        return random.normal(key, (num, config.batch_size, action_size(spec)))

    def update(state, trajectory, key):
        return loop.learn(state, trajectory, key, gradient_step, target_noise)

    def greedy_action(state, obs):
        return policy.apply(state.params.actor, loop.standardize(state, obs))

    noise = check_action_noise(action_noise or continuous.exploration_noise(config))
    acting = noisy_policy(spec, greedy_action, noise, config.learning_starts)
    return Agent(
        init, acting.act, acting.greedy, update, acting.sample_noise, noise_repeat(config, noise)
    )
