"""Probabilistic ensembles with trajectory sampling (PETS), https://arxiv.org/abs/1805.12114.

There is no policy: at every step the cross-entropy method searches for the sequence of actions
with the largest return in a learned model, and the first action is taken (algorithm 1). Each
sequence is imagined several times, each time by one network of the ensemble (TS-infinity). The
search starts from the rest of the previous plan, which the environment's state carries.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.ensemble import EnsembleState, make_ensemble
from rljax.agents.model_schedule import METRICS, EnsembleConfig, trainings_due
from rljax.agents.off_policy import as_items, example_transition
from rljax.config import RunConfig, config, option
from rljax.networks.policies import from_box, to_box
from rljax.ops import cross_entropy, random
from rljax.ops.cross_entropy import Gaussian, cross_entropy_method
from rljax.ops.diagnostics import action_saturation
from rljax.replay import check_memory, ring
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, RecurrentObs, Shared, identity

INITIAL_STD = 0.5  # of a plan of continuous actions: a quarter of their range (Chua et al.)


@config
class PETSConfig(EnsembleConfig, RunConfig):
    """Options of PETS; the defaults are those of the paper (appendix A)."""

    total_timesteps: int = option(10_000, "environment steps of the whole run", low=1)
    num_envs: int = option(1, "number of parallel environments", low=1)
    num_steps: int = option(1, "rollout length per environment", low=1)
    gamma: float = option(1.0, "discount factor gamma", low=0, high=1)
    buffer_size: int = option(10_000, "capacity of the replay buffer, in transitions", low=1)
    learning_starts: int = option(
        200, "environment steps collected before the first gradient step", low=1
    )
    num_models: int = option(5, "networks of the ensemble", low=1)
    model_train_frequency: int = option(
        200, "environment steps between two trainings of the models", low=1
    )
    horizon: int = option(25, "actions of a plan", low=1)
    num_candidates: int = option(400, "plans that one iteration of the search compares", low=2)
    num_elite_plans: int = option(40, "the best plans, to which the search moves", low=2)
    num_iterations: int = option(5, "iterations of the search", low=1)
    num_particles: int = option(20, "imagined continuations of each plan", low=1)
    smoothing: float = option(0.1, "weight of the last distribution in the search", low=0, high=1)

    def __post_init__(self):
        super().__post_init__()
        if self.num_particles % self.num_elites:
            raise ValueError(
                f"`num_particles` is {self.num_particles}, but it must be a multiple of "
                f"`num_elites` = {self.num_elites}: each network imagines as many."
            )
        if self.num_elite_plans > self.num_candidates:
            raise ValueError(
                f"`num_elite_plans` is {self.num_elite_plans}, but there are only "
                f"`num_candidates` = {self.num_candidates} plans: lower it."
            )
        smallest = max(self.learning_starts, self.num_envs * self.num_steps)
        if self.buffer_size < smallest:
            raise ValueError(
                f"`buffer_size` is {self.buffer_size}, but the first training and a rollout need "
                f"{smallest} transitions: raise it."
            )

    def counts(self) -> dict[str, int]:
        return super().counts() | {"environment steps": self.total_timesteps}


class PETSState(NamedTuple):
    """The state of PETS.

    Attributes:
      model: state of the learned model.
      replay: the transitions that it is trained on.
      env_steps: environment steps so far, int32.
    """

    model: EnsembleState
    replay: ring.Ring
    env_steps: Shared

    @property
    def params(self) -> PyTree:
        """Parameters of the networks of the model."""
        return self.model.params


def plan_memory(config: PETSConfig, spec: EnvSpec) -> Array:
    """Returns the plan at the start of an episode, `[H * A]`: all actions alike."""
    return jnp.zeros(config.horizon * _plan_width(spec))


def _plan_width(spec: EnvSpec) -> int:
    """Returns the numbers of one action in a plan: its dimensions, or its choices."""
    return spec.num_actions or int(jnp.zeros(spec.action_shape).size)


def pets(
    config: Any, spec: EnvSpec, *, model: Any = None,
    termination: Callable[..., Array] | None = None,
    reward: Callable[..., Array] | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a PETS agent.

    Actions are continuous, in [-1, 1] with normal distributions, or discrete, with categorical
    ones. Imagined rewards after a termination are 0.

    Args:
      config: a `PETSConfig`; floats may be tracers.
      spec: description of the environment; observations are one array of floats.
      model: flax module of one network of the model; see `ensemble.make_ensemble`.
      termination: `(obs, action, next_obs) -> bool [...]`; by default the rule of the environment,
        or learned where that is unknown.
      reward: `(obs, action, next_obs) -> reward [...]`, as in the paper; by default learned.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: as `make_ensemble`; several discrete actions at once; or the transitions need
        more memory than there is. In `act` and `greedy`, if the environment does not carry the
        plan (`envs.memory.carry_memory`).

    Example:
      >>> import rljax
      >>> env = rljax.build("Pendulum-v1", num_envs=1)
      >>> agent = pets(PETSConfig(horizon=15), env.spec)
    """
    if isinstance(spec.num_actions, tuple):
        raise ValueError(
            f"a plan of pets has one action a step, but {spec.env_id} has several discrete "
            f"actions at once, {spec.num_actions}: use mbpo or ppo."
        )
    ensemble = make_ensemble(config, spec, model=model, termination=termination, average=average)
    item = example_transition(spec)
    check_memory(config.buffer_size, item, "buffer_size")
    width, horizon = _plan_width(spec), config.horizon
    particles = config.num_elites, config.num_particles // config.num_elites
    proposal = cross_entropy.categorical(width) if spec.num_actions else cross_entropy.gaussian()

    def init(key):
        steps = Shared(jnp.int32(0))
        return PETSState(ensemble.init(key), ring.init(config.buffer_size, item), steps)

    def imagined_returns(members, obs, plans, key):
        """Returns the mean return of each plan, `[C, H, ...] -> [C]`, from one observation."""
        num_plans = plans.shape[0]
        rows = particles[0], particles[1] * num_plans
        # all plans are compared under the same noise
        normal = random.normal(key, (horizon, particles[0], particles[1], 1, ensemble.num_outputs))
        start = jnp.broadcast_to(obs, (*rows, *obs.shape))

        def imagine_step(carry, inputs):
            obs, discount = carry
            action, normal = inputs
            action = jnp.broadcast_to(action, (*particles, *action.shape))
            action = to_box(spec, action.reshape(*rows, *action.shape[3:]))
            normal = jnp.broadcast_to(normal, (*particles, num_plans, normal.shape[-1]))
            next_obs, value, terminated = ensemble.step(
                members, obs, action, normal.reshape(*rows, -1)
            )
            if reward is not None:
                value = reward(obs, action, next_obs)
            gained = discount * value
            discount = discount * config.gamma * (1.0 - terminated)
            return (next_obs, discount), gained

        inputs = jnp.moveaxis(plans, 1, 0), normal
        _, rewards = jax.lax.scan(imagine_step, (start, jnp.ones(rows)), inputs)
        returns = rewards.sum(axis=0).reshape(*particles, num_plans).mean(axis=(0, 1))
        # far from the data a prediction may overflow
        return jnp.where(jnp.isfinite(returns), returns, -jnp.inf)

    def plan(members, obs, memory, key):
        """Returns the first action of the best plan for one observation, and the rest of it."""
        memory = memory.reshape(horizon, width)
        if spec.num_actions:
            start = jax.nn.softmax(memory)
        else:
            start = Gaussian(memory, jnp.full(memory.shape, INITIAL_STD))
        params = cross_entropy_method(
            lambda plans, key: imagined_returns(members, obs, plans, key), proposal, start, key,
            num_iterations=config.num_iterations, num_candidates=config.num_candidates,
            num_elites=config.num_elite_plans, smoothing=config.smoothing,
        )  # fmt: skip
        action = proposal.mode(params)[0]
        rest = jnp.log(params) if spec.num_actions else params.mean
        rest = jnp.concatenate([rest[1:], jnp.zeros_like(rest[:1])])
        return to_box(spec, action), rest.reshape(-1)

    def plans(state, obs, keys):
        if not isinstance(obs, RecurrentObs):
            raise ValueError(
                f"the search of pets starts from the previous plan, but {spec.env_id} does not "
                "carry it: wrap the environment with `rljax.envs.memory.carry_memory`."
            )
        members = ensemble.elites(state.model)
        return jax.vmap(lambda *row: plan(members, *row))(obs.obs, obs.memory, keys)

    def sample_noise(key, num_steps):
        return random.split(key, num_steps)

    def act(state, obs, key):
        plan_key, uniform_key = random.split(key)

        def search():
            return plans(state, obs, random.split(plan_key, spec.num_envs))

        def explore():
            shape = spec.num_envs, width
            if spec.num_actions:
                return random.gumbel(uniform_key, shape).argmax(axis=-1), obs.memory
            raw = random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0)
            return to_box(spec, raw), obs.memory

        is_warmup = state.env_steps.value < config.learning_starts
        return jax.lax.cond(is_warmup, explore, search), ()

    def greedy(state, obs, key):
        num = jax.tree.leaves(obs)[0].shape[0]
        return plans(state, obs, random.split(key, num))

    def update(state, trajectory, key):
        items = as_items(trajectory, item)
        buffer = ring.add(state.replay, items)[0]
        num_trainings = trainings_due(config, state.env_steps.value, trajectory.reward.size)

        def train_model(_, carry):
            return ensemble.fit(carry[0], ring.contents(buffer), buffer.size.value, key)

        # a loop of at most one iteration
        metrics = dict.fromkeys(METRICS, jnp.float32(0))
        model, metrics = jax.lax.fori_loop(0, num_trainings, train_model, (state.model, metrics))
        count = num_trainings.astype(jnp.float32)
        steps = Shared(state.env_steps.value + trajectory.reward.size)
        metrics = {name: Mean(value, count) for name, value in metrics.items()}
        metrics["charts/replay_fill"] = buffer.size.value / config.buffer_size
        if not spec.num_actions:
            saturation = action_saturation(from_box(spec, items.action))
            metrics["charts/action_saturation"] = average(saturation)
        return PETSState(model, buffer, steps), metrics

    return Agent(init, act, greedy, update, sample_noise)
