"""Random network distillation, an exploration bonus: `Agent -> Agent`.

Burda et al. 2019, https://arxiv.org/abs/1810.12894 (section 2). Differs from the paper: the bonus
is added to the reward, so there is one value function and intrinsic returns are episodic; the
predictor takes one gradient step per update, on the whole rollout; an agent with replay stores the
bonus computed when the transition was collected.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rljax.agents.normalize import (
    init_obs_moments,
    normalizes,
    scale_rewards,
    standardize_obs,
    update_obs_moments,
)
from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import MLP, orthogonal
from rljax.ops import moments as running
from rljax.ops.observations import environment_obs
from rljax.types import Agent, Array, EnvSpec, PyTree, identity

CLIP = 5.0  # of standardized observations (section 2.4 of the paper)


class Features(nn.Module):
    """The predictor and its target: `[..., *obs_shape] -> [..., num_features]`.

    Attributes:
      hidden_sizes: units of each hidden layer; the activation is ReLU.
      num_features: number of outputs.
      inputs: the observations; images go through a convolution first.
    """

    hidden_sizes: Sequence[int] = (64,)
    num_features: int = 64
    inputs: Inputs = Inputs()

    @nn.compact
    def __call__(self, obs):
        x = MLP(self.hidden_sizes, "relu")(Encoder(self.inputs)(obs))
        return nn.Dense(self.num_features, kernel_init=orthogonal())(x)


class DistillationState(NamedTuple):
    """The state of an agent with the bonus of random network distillation.

    Attributes:
      agent: state of the inner agent.
      predictor: parameters of the predictor.
      target: parameters of the target network, which are random and never change.
      opt_state: state of the predictor's optimizer.
      obs: moments of each array of the observations; () for numbered states, which become one-hot
        vectors.
      error: moments of the discounted sums of prediction errors (`returns.discounted_sums`).
      running_return: discounted sums at the end of the last rollout, `[B]`.
    """

    agent: PyTree
    predictor: PyTree
    target: PyTree
    opt_state: PyTree
    obs: PyTree
    error: running.Moments
    running_return: Array


def random_network_distillation(
    agent: Agent, spec: EnvSpec, *, coefficient: Any = 0.5, learning_rate: Any = 3e-4,
    gamma: Any = 0.99, hidden_sizes: Sequence[int] = (64,), num_features: int = 64,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Adds a bonus for novel observations to the rewards of an agent.

        bonus_t = ||f(s_{t+1}) - f_target(s_{t+1})||^2 / (num_features sigma)

    f learns to predict the outputs of f_target, a random network, at the observations reached. The
    error is large where few similar observations were collected. sigma is the running standard
    deviation of the discounted sum of errors in an episode. Observations are standardized and
    clipped to +-5, state indices become one-hot vectors, and the bonus is at most 10.

    Args:
      agent: the agent; it learns from `reward + coefficient * bonus`.
      spec: description of the environment.
      coefficient: weight of the bonus.
      learning_rate: learning rate of the predictor's optimizer, Adam.
      gamma: discount of the sum of errors.
      hidden_sizes: units of each hidden layer of both networks.
      num_features: outputs of both networks.
      average: mean over workers, which share the networks and the statistics.

    Returns:
      An agent with state `DistillationState` that acts as `agent`. The reported returns are those
      of the environment; `charts/intrinsic_reward` is the mean bonus.

    Example:
      >>> from rljax.agents.dqn import DQNConfig, dqn
      >>> spec = EnvSpec(obs_shape=(4,), num_actions=2)
      >>> agent = random_network_distillation(dqn(DQNConfig(), spec), spec, coefficient=0.1)
    """
    network: Any = Features(tuple(hidden_sizes), num_features, inputs_of(spec))
    optimizer = optax.adam(learning_rate)

    def init(key):
        agent_key, predictor_key, target_key = jax.random.split(key, 3)
        predictor, target = (
            network.init(key, example_obs(spec)) for key in (predictor_key, target_key)
        )
        opt_state = optimizer.init(predictor)
        obs_moments = init_obs_moments(spec) if normalizes(spec) else ()
        return DistillationState(
            agent.init(agent_key), predictor, target, opt_state, obs_moments,
            running.init_moments(()), jnp.zeros(spec.num_envs),
        )  # fmt: skip

    def act(state, obs, noise):
        return agent.act(state.agent, obs, noise)

    def greedy(state, obs, key):
        return agent.greedy(state.agent, obs, key)

    def distill(state, obs):
        """Returns the prediction errors `[T, B]`, and the state after one gradient step."""
        target = network.apply(state.target, obs)

        def loss(params):
            error = jnp.square(network.apply(params, obs) - target).mean(axis=-1)
            return error.mean(), error

        grads, error = jax.grad(loss, has_aux=True)(state.predictor)
        updates, opt_state = optimizer.update(average(grads), state.opt_state)
        predictor = optax.apply_updates(state.predictor, updates)
        return error, state._replace(predictor=predictor, opt_state=opt_state)

    def update(state, trajectory, key):
        obs = environment_obs(trajectory.next_obs)
        if normalizes(spec):
            state = state._replace(obs=update_obs_moments(spec, state.obs, obs, average))
            obs = standardize_obs(obs, state.obs, CLIP)
        error, state = distill(state, obs)
        done = trajectory.terminated | trajectory.truncated
        bonus, moments, running_return = scale_rewards(
            error, done, gamma, state.error, state.running_return, average
        )
        inputs = trajectory._replace(reward=trajectory.reward + coefficient * bonus)
        agent_state, metrics = agent.update(state.agent, inputs, key)
        state = state._replace(agent=agent_state, error=moments, running_return=running_return)
        means = {"losses/rnd_loss": error.mean(), "charts/intrinsic_reward": bonus.mean()}
        return state, {**metrics, **average(means)}

    return agent._replace(init=init, act=act, greedy=greedy, update=update)
