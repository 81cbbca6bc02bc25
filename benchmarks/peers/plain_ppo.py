"""PPO as one plain program of gymnax, flax and optax, timed by lib/measure_gpu.py beside rljax.

https://arxiv.org/abs/1707.06347, in the usual form of a single file: one scan over updates,
gymnax's own `step` with its own resets, keys split at every step, minibatches by
`jax.random.permutation`. Hyperparameters and networks are those of rljax in common.STOCK. Unlike
other programs of this form it bootstraps from the last observation where a time limit cut an
episode.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
from flax.linen.initializers import orthogonal


class ActorCritic(nn.Module):
    """Logits and value; images go through one convolution and hidden layers shared by both."""

    num_actions: int
    hidden_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, obs):
        dense = partial(nn.Dense, bias_init=nn.initializers.zeros)
        has_images = obs.ndim > 2
        x = obs.astype(jnp.float32)
        if has_images:
            conv = nn.Conv(16, (3, 3), padding="VALID", kernel_init=orthogonal(2**0.5))
            x = nn.tanh(conv(x)).reshape(len(x), -1)

        def hidden(x):
            for size in self.hidden_sizes:
                x = nn.tanh(dense(size, kernel_init=orthogonal(2**0.5))(x))
            return x

        actor = hidden(x)
        critic = actor if has_images else hidden(x)
        logits = dense(self.num_actions, kernel_init=orthogonal(0.01))(actor)
        return logits, dense(1, kernel_init=orthogonal(1.0))(critic)[..., 0]


class Step(NamedTuple):
    """One step of all environments, `[B]`; `[T, B]` in a rollout."""

    obs: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    terminated: Any
    done: Any
    final_obs: Any


class Batch(NamedTuple):
    """The data of the gradient steps, `[N]`."""

    obs: Any
    action: Any
    log_prob: Any
    value: Any
    advantage: Any
    target: Any


def make(config: dict[str, Any], num_updates: int) -> tuple[Any, Any]:
    """Makes PPO with the hyperparameters of common.STOCK.

    Args:
      config: the hyperparameters.
      num_updates: updates over which the learning rate is annealed.

    Returns:
      `init(key) -> state`, and `update(state, _) -> (state, mean reward)`, the body of a scan.
    """
    env, env_params = gymnax.make(config["env_id"])
    num_envs, epochs = config["num_envs"], config["update_epochs"]
    num_minibatches = config["num_minibatches"]
    network = ActorCritic(env.num_actions, config["hidden_sizes"])
    gradient_steps = num_updates * epochs * num_minibatches
    optimizer = optax.chain(
        optax.clip_by_global_norm(config["max_grad_norm"]),
        optax.adam(optax.linear_schedule(config["learning_rate"], 0.0, gradient_steps), eps=1e-5),
    )

    def init(key):
        key, params_key, reset_key = jax.random.split(key, 3)
        obs, env_state = jax.vmap(env.reset, (0, None))(
            jax.random.split(reset_key, num_envs), env_params
        )
        params = network.init(params_key, obs)
        return params, optimizer.init(params), env_state, obs, key

    def env_step(params, carry, _):
        env_state, obs, key = carry
        key, act_key, step_key = jax.random.split(key, 3)
        logits, value = network.apply(params, obs)
        action = jax.random.categorical(act_key, logits)
        log_prob = log_prob_of(logits, action)
        next_obs, env_state, reward, terminated, truncated, info = jax.vmap(
            env.step, (0, 0, 0, None)
        )(jax.random.split(step_key, num_envs), env_state, action, env_params)
        final_obs, done = info["final_observation"], terminated | truncated
        step = Step(obs, action, log_prob, value, reward, terminated, done, final_obs)
        return (env_state, next_obs, key), step

    def advantages(params, steps):
        """Generalized advantage estimation, `[T, B]`; only a termination has no value after it."""
        final_obs = steps.final_obs.reshape(-1, *steps.final_obs.shape[2:])
        next_value = network.apply(params, final_obs)[1].reshape(steps.reward.shape)
        delta = steps.reward - steps.value
        delta += config["gamma"] * jnp.where(steps.terminated, 0.0, next_value)

        def backward(advantage, step):
            delta, done = step
            decay = config["gamma"] * config["gae_lambda"] * (1.0 - done)
            advantage = delta + decay * advantage
            return advantage, advantage

        zeros = jnp.zeros(num_envs)
        return jax.lax.scan(backward, zeros, (delta, steps.done), reverse=True)[1]

    def loss(params, batch):
        logits, value = network.apply(params, batch.obs)
        ratio = jnp.exp(log_prob_of(logits, batch.action) - batch.log_prob)
        advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
        clip_eps = config["clip_eps"]
        clipped_ratio = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped_ratio * advantage).mean()
        clipped_value = batch.value + jnp.clip(value - batch.value, -clip_eps, clip_eps)
        errors = jnp.square(value - batch.target), jnp.square(clipped_value - batch.target)
        value_loss = 0.5 * jnp.maximum(*errors).mean()
        log_probs = jax.nn.log_softmax(logits)
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return policy_loss + config["vf_coef"] * value_loss - config["ent_coef"] * entropy

    def gradient_step(learned, minibatch):
        params, opt_state = learned
        grads = jax.grad(loss)(params, minibatch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(batch, learned, key):
        order = jax.random.permutation(key, len(batch.action))
        minibatches = jax.tree.map(
            lambda x: x[order].reshape(num_minibatches, -1, *x.shape[1:]), batch
        )
        return jax.lax.scan(gradient_step, learned, minibatches)

    def update(state, _):
        params, opt_state, env_state, obs, key = state
        (env_state, obs, key), steps = jax.lax.scan(
            partial(env_step, params), (env_state, obs, key), None, config["num_steps"]
        )
        advantage = advantages(params, steps)
        batch = Batch(
            steps.obs, steps.action, steps.log_prob, steps.value, advantage,
            advantage + steps.value,
        )  # fmt: skip
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        key, shuffle_key = jax.random.split(key)
        (params, opt_state), _ = jax.lax.scan(
            partial(epoch, batch), (params, opt_state), jax.random.split(shuffle_key, epochs)
        )
        return (params, opt_state, env_state, obs, key), steps.reward.mean()

    return init, update


def log_prob_of(logits, action):
    """Returns the log-probability of actions, `[B, A], [B] -> [B]`."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=-1)[:, 0]
