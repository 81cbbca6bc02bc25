"""Model-based policy optimization (MBPO), https://arxiv.org/abs/1906.08253 (algorithm 2).

A learned model imagines short continuations of replayed states under the present policy, and
soft actor-critic learns from them. Differs from the paper: imagined rollouts that terminate go on
from another replayed state, so that every imagined step is one of a batch of fixed size, and
the length of rollouts grows linearly over the whole run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents import continuous
from rljax.agents.acting import EXPLORATION_REPEAT_HELP
from rljax.agents.discrete_sac import DiscreteSACConfig, discrete_sac
from rljax.agents.ensemble import EnsembleState, make_ensemble
from rljax.agents.model_schedule import METRICS, EnsembleConfig, trainings_due
from rljax.agents.off_policy import OffPolicyState, as_items, example_transition
from rljax.agents.sac import SACConfig, sac
from rljax.config import config, option
from rljax.ops import random
from rljax.replay import check_memory, mixed, ring, uniform
from rljax.replay.mixed import MixedState
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, Transition, identity, sample_one


@config
class MBPOConfig(EnsembleConfig, DiscreteSACConfig, SACConfig):
    """Options of MBPO; the defaults are those of the paper for tasks of MuJoCo (appendix C)."""

    total_timesteps: int = option(100_000, "environment steps of the whole run", low=1)
    buffer_size: int = option(100_000, "capacity of the replay buffer, in transitions", low=1)
    batch_size: int = option(256, "transitions per gradient step", low=1)
    gradient_steps: int = option(20, "gradient steps per update", low=1)
    exploration_repeat: int = option(1, EXPLORATION_REPEAT_HELP, low=1)
    real_batch_size: int = option(
        13, "real transitions per gradient step; the others are imagined", low=1
    )
    num_rollouts: int = option(
        100_000, "imagined rollouts after each training of the models", low=1
    )
    rollout_length: int = option(1, "steps of an imagined rollout at the start of the run", low=1)
    final_rollout_length: int = option(
        1, "steps of an imagined rollout at the end of the run, growing linearly", low=1
    )
    imagined_buffer_size: int = option(
        400_000, "capacity of the replay buffer of imagined transitions", low=1
    )

    def __post_init__(self):
        super().__post_init__()
        if self.n_step != 1 or self.prioritized:
            raise ValueError(
                f"`n_step` is {self.n_step} and `prioritized` is {self.prioritized}, but imagined "
                "transitions are single and have no priorities: leave both out."
            )
        if self.real_batch_size >= self.batch_size:
            raise ValueError(
                f"`real_batch_size` is {self.real_batch_size}, but a batch has {self.batch_size} "
                "transitions, and some must be imagined: make it smaller than `batch_size`."
            )
        if self.final_rollout_length < self.rollout_length:
            raise ValueError(
                f"`final_rollout_length` is {self.final_rollout_length}, but rollouts start with "
                f"`rollout_length` = {self.rollout_length} steps: raise it."
            )
        if self.num_rollouts % self.num_elites:
            raise ValueError(
                f"`num_rollouts` is {self.num_rollouts}, but it must be a multiple of `num_elites` "
                f"= {self.num_elites}: each network of the model continues as many."
            )
        if self.imagined_buffer_size < self.num_rollouts:
            raise ValueError(
                f"`imagined_buffer_size` is {self.imagined_buffer_size}, but one imagined step has "
                f"`num_rollouts` = {self.num_rollouts} transitions: raise it."
            )


def noise_memory(config: MBPOConfig, spec: EnvSpec) -> Array | None:
    """Returns the memory of correlated exploration noise at the start of an episode, or None."""
    return None if spec.num_actions else continuous.noise_memory(config, spec)


class MBPOState(NamedTuple):
    """The state of MBPO.

    Attributes:
      agent: state of soft actor-critic; its replay holds the real transitions in `first` and the
        imagined ones in `second`.
      model: state of the learned model.
    """

    agent: OffPolicyState
    model: EnsembleState


def mbpo(
    config: Any, spec: EnvSpec, *, policy: Any = None, critic: Any = None, model: Any = None,
    termination: Callable[..., Array] | None = None,
    actor_optimizer: optax.GradientTransformation | None = None,
    critic_optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an MBPO agent: `sac` for continuous actions, `discrete_sac` for discrete ones.

    Args:
      config: an `MBPOConfig`; floats may be tracers.
      spec: description of the environment; observations are one array of floats.
      policy, critic: networks, as in `sac` and `discrete_sac`.
      model: flax module of one network of the model; see `ensemble.make_ensemble`.
      termination: `(obs, action, next_obs) -> bool [...]`; by default the rule of the environment,
        or learned where that is unknown.
      actor_optimizer, critic_optimizer: default Adam.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: as `sac`, `discrete_sac` and `make_ensemble`; or the imagined transitions need
        more memory than there is.

    Example:
      >>> import rljax
      >>> env = rljax.build("Pendulum-v1", num_envs=1)
      >>> config = MBPOConfig(buffer_size=5_000, num_rollouts=1_000)
      >>> learner = rljax.make_learner(mbpo(config, env.spec), env, num_steps=1)
    """
    ensemble = make_ensemble(config, spec, model=model, termination=termination, average=average)
    item = example_transition(spec)
    check_memory(config.buffer_size, item, "buffer_size")
    check_memory(config.imagined_buffer_size, item, "imagined_buffer_size")
    real = uniform(config.buffer_size, config.real_batch_size)
    imagined = uniform(config.imagined_buffer_size, config.batch_size - config.real_batch_size)
    replay = mixed(real, imagined)

    def keep(replay_state, items, skip=0):
        """The `add` of soft actor-critic; MBPO stores the rollout before it trains the model."""
        del items, skip
        return replay_state

    make = discrete_sac if spec.num_actions else sac
    pieces = {"policy": policy, "critic": critic, "actor_optimizer": actor_optimizer,
              "critic_optimizer": critic_optimizer, "average": average}  # fmt: skip
    agent = make(config, spec, replay=replay._replace(add=keep), **pieces)
    # the noise of exploration has no memory in imagination
    uncorrelated = dataclasses.replace(config, noise="gaussian")
    imaginary = spec._replace(num_envs=config.num_rollouts)
    imagination = make(uncorrelated, imaginary, replay=replay, **pieces)

    def init(key):
        agent_key, model_key = jax.random.split(key)
        return MBPOState(agent.init(agent_key), ensemble.init(model_key))

    def replayed(replay_state, key):
        """Returns the observations of `num_rollouts` real steps."""
        size = replay_state.first.size.value
        slots = random.bits(key, (config.num_rollouts,)) % size.astype(jnp.uint32)
        return ring.read(replay_state.first, slots.astype(jnp.int32)).obs

    def imagine(state, members, env_steps, key):
        """Continues replayed states by the model and the policy, and stores the imagined steps."""
        shape = config.num_elites, config.num_rollouts // config.num_elites

        def imagine_step(i, carry):
            obs, second = carry
            act_key, order_key, step_key, start_key = random.split(jax.random.fold_in(key, i), 4)
            noise = sample_one(imagination.sample_noise, act_key)
            action, _ = imagination.act(state, obs, noise)
            # at each step, another network continues each part of the rollouts
            order = jax.random.permutation(order_key, config.num_elites)
            params = jax.tree.map(lambda x: x[order], members.params)
            normal = random.normal(step_key, (*shape, ensemble.num_outputs))
            parts = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (obs, action))
            outcome = ensemble.step(members._replace(params=params), *parts, normal)
            next_obs, reward, terminated = jax.tree.map(
                lambda x: x.reshape(-1, *x.shape[2:]), outcome
            )
            never = jnp.zeros_like(terminated)  # a model has no time limit
            step = Transition(obs, action, reward, terminated, never, next_obs)
            second = imagined.add(second, jax.tree.map(lambda x: x[None], step))
            ended = terminated.reshape(-1, *(1,) * (obs.ndim - 1))
            return jnp.where(ended, replayed(state.replay, start_key), next_obs), second

        progress = env_steps / config.total_timesteps
        growth = config.final_rollout_length - config.rollout_length
        length = config.rollout_length + jnp.round(growth * progress).astype(jnp.int32)
        carry = replayed(state.replay, key), state.replay.second
        return jax.lax.fori_loop(0, length, imagine_step, carry)[1]

    def update(state, trajectory, key):
        model_key, agent_key = random.split(key)
        agent_state, env_steps = state.agent, state.agent.env_steps.value
        first = real.add(agent_state.replay.first, as_items(trajectory, item))
        num_trainings = trainings_due(config, env_steps, trajectory.reward.size)

        def train_model(_, carry):
            model, second, _ = carry
            fit_key, imagine_key = random.split(model_key)
            model, metrics = ensemble.fit(model, ring.contents(first), first.size.value, fit_key)
            now = agent_state._replace(replay=MixedState(first, second))
            return model, imagine(now, ensemble.elites(model), env_steps, imagine_key), metrics

        # a loop of at most one iteration: through a `cond`, the replay buffers would be copied
        metrics = dict.fromkeys(METRICS, jnp.float32(0))
        carry = state.model, agent_state.replay.second, metrics
        model, second, metrics = jax.lax.fori_loop(0, num_trainings, train_model, carry)
        agent_state = agent_state._replace(replay=MixedState(first, second))
        agent_state, agent_metrics = agent.update(agent_state, trajectory, agent_key)
        count = num_trainings.astype(jnp.float32)
        metrics = {name: Mean(value, count) for name, value in metrics.items()}
        return MBPOState(agent_state, model), {**agent_metrics, **metrics}

    def act(state, obs, noise):
        return agent.act(state.agent, obs, noise)

    def greedy(state, obs, key):
        return agent.greedy(state.agent, obs, key)

    return agent._replace(init=init, act=act, greedy=greedy, update=update)
