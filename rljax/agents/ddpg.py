"""Deep deterministic policy gradient (DDPG), https://arxiv.org/abs/1509.02971 (algorithm 1).

A deterministic policy ascends the gradient of a critic, which is trained as in DQN, with replay
and target networks. Differs from the paper: no batch normalization and no weight decay; actions
enter the critic at its first layer; actions are uniform until `learning_starts`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents import continuous, off_policy
from rljax.agents.acting import ActionNoise, check_action_noise, noise_repeat, noisy_policy
from rljax.agents.continuous import ActorCritic, DeterministicConfig
from rljax.agents.off_policy import Learned
from rljax.config import config, option
from rljax.networks.continuous import critic_network, deterministic_policy
from rljax.networks.policies import from_box
from rljax.ops import td
from rljax.ops.diagnostics import action_saturation, q_value_metrics
from rljax.ops.optimizers import apply_gradients, global_norm
from rljax.types import Agent, EnvSpec, PyTree, Replay, identity


@config
class DDPGConfig(DeterministicConfig):
    """Options of DDPG; the defaults are those of the paper (section 7)."""

    batch_size: int = option(64, "transitions per gradient step", low=1)
    tau: float = option(0.001, "target-network update rate; 1 copies the parameters", low=0, high=1)
    hidden_sizes: tuple[int, ...] = option((400, 300), "units of each hidden layer", low=1)
    actor_learning_rate: float = option(1e-4, "learning rate of the policy", above=0)
    critic_learning_rate: float = option(1e-3, "learning rate of the critics", above=0)
    noise: str = option("ornstein_uhlenbeck", continuous.NOISE_HELP, choices=continuous.NOISES)
    noise_std: float = option(0.2, "scale of the exploration noise, in half action ranges", low=0)


def ddpg(
    config: Any, spec: EnvSpec, *, policy: Any = None, critic: Any = None,
    actor_optimizer: optax.GradientTransformation | None = None,
    critic_optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    action_noise: ActionNoise | None = None, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a DDPG agent.

    Args:
      config: a `DDPGConfig`; floats may be tracers.
      spec: description of the environment, with continuous actions.
      policy: flax module, `obs[..., *obs_shape] -> action[..., A]` in [-1, 1].
      critic: flax module, `obs[..., *obs_shape], action[..., A] -> Q[...]`.
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
      >>> agent = ddpg(DDPGConfig(noise="gaussian", buffer_size=1_000), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
    """
    continuous.check_continuous(spec)
    policy = deterministic_policy(policy, config, spec)
    critic = critic_network(critic, config, spec)
    optimizer, rate_metrics = continuous.make_optimizers(config, actor_optimizer, critic_optimizer)
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        obs, action = continuous.example_inputs(spec)
        params = ActorCritic(policy.init(actor_key, obs), critic.init(critic_key, obs, action))
        opt_state = ActorCritic(*(o.init(p) for o, p in zip(optimizer, params, strict=True)))
        return loop.init(Learned(params, jax.tree.map(jnp.copy, params), opt_state))

    def gradient_step(learned, batch):
        """One iteration of algorithm 1 of Lillicrap et al. (2016)."""
        params, target, opt_state = learned
        transitions = batch.transitions
        action = from_box(spec, transitions.action)
        next_action = policy.apply(target.actor, transitions.next_obs)
        next_q = critic.apply(target.critic, transitions.next_obs, next_action)
        td_target = td.td_target(transitions.reward, transitions.terminated, batch.discount, next_q)

        def critic_loss(critic_params):
            q = critic.apply(critic_params, transitions.obs, action)
            td_error = td_target - q
            return (batch.weight * td.squared(td_error)).mean(), (td_error, q)

        def actor_loss(actor_params):
            action = policy.apply(actor_params, transitions.obs)
            q = critic.apply(critic_params, transitions.obs, action)
            return -q.mean(), action_saturation(action)

        value_and_grad = partial(jax.value_and_grad, has_aux=True)
        (loss, (td_error, q)), grads = value_and_grad(critic_loss)(params.critic)
        critic_grads = average(grads)
        critic_params, critic_state = apply_gradients(
            optimizer.critic, critic_grads, opt_state.critic, params.critic
        )
        (policy_loss, saturation), grads = value_and_grad(actor_loss)(params.actor)
        actor_grads = average(grads)
        actor_params, actor_state = apply_gradients(
            optimizer.actor, actor_grads, opt_state.actor, params.actor
        )
        params = ActorCritic(actor_params, critic_params)
        opt_state = ActorCritic(actor_state, critic_state)
        target = off_policy.update_target(target, params, config.tau, batch.target_is_due)
        metrics = {
            "losses/critic_loss": loss, "losses/policy_loss": policy_loss, **q_value_metrics(q),
            "losses/actor_grad_norm": global_norm(actor_grads),
            "losses/critic_grad_norm": global_norm(critic_grads),
            "charts/action_saturation": saturation, **rate_metrics(opt_state),
        }  # fmt: skip
        return Learned(params, target, opt_state), td_error, metrics

    def update(state, trajectory, key):
        return loop.learn(state, trajectory, key, gradient_step)

    def greedy_action(state, obs):
        return policy.apply(state.params.actor, loop.standardize(state, obs))

    noise = check_action_noise(action_noise or continuous.exploration_noise(config))
    acting = noisy_policy(spec, greedy_action, noise, config.learning_starts)
    return Agent(
        init, acting.act, acting.greedy, update, acting.sample_noise, noise_repeat(config, noise)
    )
