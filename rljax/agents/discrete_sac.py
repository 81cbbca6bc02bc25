"""Soft actor-critic for discrete actions, https://arxiv.org/abs/1910.07207 (section 4).

The critics return one value for each action, so expectations over the policy are sums, without
sampled actions. Differs from the paper: Polyak averaging of the target critics, as in SAC.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents import continuous, off_policy
from rljax.agents.acting import check_discrete
from rljax.agents.sac import EntropyConfig, soft_actor_critic
from rljax.config import config, option
from rljax.networks import policies
from rljax.networks.action_values import q_network
from rljax.networks.continuous import check_network
from rljax.networks.encoder import example_obs
from rljax.ops import td
from rljax.ops.observations import legal_logits, split_mask
from rljax.types import Agent, EnvSpec, PyTree, Replay, identity


@config
class DiscreteSACConfig(EntropyConfig):
    """Options of SAC for discrete actions; the defaults are those of the paper (appendix)."""

    batch_size: int = option(64, "transitions per gradient step", low=1)
    target_entropy_scale: float = option(
        0.98, "target entropy, as a fraction of that of a uniform policy", low=0
    )


def discrete_sac(
    config: Any, spec: EnvSpec, *, policy: Any = None, critic: Any = None,
    actor_optimizer: optax.GradientTransformation | None = None,
    critic_optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a SAC agent for discrete actions.

    Args:
      config: a `DiscreteSACConfig`; floats may be tracers.
      spec: description of the environment, with discrete actions.
      policy: flax module, `obs[..., *obs_shape] -> logits[..., A]`.
      critic: flax module, `obs[..., *obs_shape] -> Q[..., A]`; both critics are copies.
      actor_optimizer, critic_optimizer: default Adam.
      replay: for example `n_step(prioritized(...), ...)` of `rljax.replay`.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are continuous, a network does not fit the environment, an argument
        has the wrong type, or the replay buffer needs more memory than there is.

    Example:
      >>> import rljax
      >>> env = rljax.build("CartPole-v1", num_envs=1)
      >>> agent = discrete_sac(DiscreteSACConfig(buffer_size=1_000), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
    """
    check_discrete(spec)
    network = q_network(spec, config.hidden_sizes, config.activation)
    policy, critic = policy or network, critic or network
    inputs, outputs = (example_obs(spec, (2,)),), (2, spec.num_actions)
    check_network("policy", policy, inputs, outputs)
    check_network("critic", critic, inputs, outputs)
    critics = continuous.make_critics(critic, num_critics=2)

    def target_entropy(batch):
        """A fraction of the entropy of the uniform policy over the legal actions."""
        mask = split_mask(spec, batch.transitions.obs)[1]
        if mask is None:
            return config.target_entropy_scale * math.log(spec.num_actions)
        return config.target_entropy_scale * jnp.log(mask.sum(axis=-1).astype(jnp.float32)).mean()

    learn = soft_actor_critic(config, target_entropy, actor_optimizer, critic_optimizer, average)
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        obs = example_obs(spec)
        return loop.init(learn.init(policy.init(actor_key, obs), critics.init(critic_key, obs)))

    def log_policy(actor_params, obs):
        """Returns the probabilities and log-probabilities of all actions, `[N, A]` each.

        Both are 0 for illegal actions: their terms vanish from every expectation.
        """
        mask = split_mask(spec, obs)[1]
        log_prob = jax.nn.log_softmax(legal_logits(policy.apply(actor_params, obs), mask))
        return jnp.exp(log_prob), log_prob if mask is None else jnp.where(mask, log_prob, 0.0)

    def gradient_step(learned, batch):
        """Equations 10 to 12 of Christodoulou (2019), and the TD error of the critics."""
        params, target_critic, _ = learned
        transitions = batch.transitions
        alpha = jnp.exp(params.log_alpha)
        probability, log_prob = log_policy(params.actor, transitions.next_obs)
        next_q = critics.q_values(target_critic, transitions.next_obs).min(axis=0)
        next_value = (probability * (next_q - alpha * log_prob)).sum(axis=-1)
        td_target = td.td_target(
            transitions.reward, transitions.terminated, batch.discount, next_value
        )

        def critic_loss(critic_params):
            q = critics.q_values(critic_params, transitions.obs)
            q = jax.vmap(td.chosen, (0, None))(q, transitions.action)
            return continuous.critic_loss(q, td_target, batch.weight)

        def actor_loss(actor_params, critic_params):
            probability, log_prob = log_policy(actor_params, transitions.obs)
            q = critics.q_values(critic_params, transitions.obs).min(axis=0)
            entropy = -(probability * log_prob).sum(axis=-1).mean()
            return -(probability * q).sum(axis=-1).mean() - alpha * entropy, (entropy, {})

        return learn.step(learned, batch, critic_loss, actor_loss)

    def update(state, trajectory, key):
        return loop.learn(state, trajectory, key, gradient_step)

    def logits(state, obs):
        return policy.apply(state.params.actor, loop.standardize(state, obs))

    def most_probable(logits, obs):
        return legal_logits(logits, split_mask(spec, obs)[1]).argmax(axis=-1)

    def sample_noise(key, num_steps):
        return policies.policy_noise(spec, key, num_steps)

    def act(state, obs, gumbel):
        warmup = state.env_steps.value < config.learning_starts
        return most_probable(jnp.where(warmup, 0.0, logits(state, obs)) + gumbel, obs), ()

    def greedy(state, obs, key):
        del key
        return most_probable(logits(state, obs), obs)

    return Agent(init, act, greedy, update, sample_noise, config.exploration_repeat)
