"""A trained policy as a function of NumPy observations, without its training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import at_least, convert
from rljax.experiment.evaluator import acting_part
from rljax.experiment.make_plan import plan_from_record
from rljax.experiment.plan import Plan
from rljax.experiment.plan_checks import worker_part
from rljax.experiment.policy_inputs import ObservationForm, converter_of
from rljax.ops.precision import in_32_bits
from rljax.ops.random import checked_seed, seed_key
from rljax.training import acting
from rljax.types import Array, Key, PyTree, RecurrentObs, sample_one


class ActingProgram(NamedTuple):
    """What one policy computes, as a pure function.

    Attributes:
      act: `(params, obs[B], memory[B], key) -> (action[B], next memory[B])`; without a memory it
        is None.
      params: the arrays of the agent's state that actions depend on, by name.
      obs: shapes and dtypes of one observation.
      memory: memory at the start of an episode, None if actions do not depend on one.
      is_random: whether actions depend on the key.
    """

    act: Callable[..., tuple[Array, PyTree]]
    params: dict[str, Array]
    obs: PyTree
    memory: PyTree
    is_random: bool


@in_32_bits
def acting_program(plan: Plan, index: int, state: PyTree, greedy: bool = True) -> ActingProgram:
    """Returns the policy of one run.

    Args:
      plan: the experiment.
      index: index of the run among settings and seeds.
      state: state of its agent, or the part that `training.acting.keep` keeps.
      greedy: act with `Agent.greedy`; False samples with `Agent.act`.

    Raises:
      ValueError: the agent plans with the state of the environment, or `state` lacks an array.
    """
    if plan.row.plans_ahead:
        raise ValueError(
            f"{plan.agent} plans with the state of {plan.env_id}, so its policy is no function of "
            "observations: use rljax.evaluate, rljax.watch or `rljax play`."
        )
    part = acting_part(plan, greedy)
    params = _named_params(state, part.leaves, part.like)
    config = worker_part(plan.config_of(index), plan.workers)
    obs = jax.eval_shape(plan.env.reset, jax.eval_shape(lambda: jax.random.key(0)))[1]
    carried = isinstance(obs, RecurrentObs)
    initial = plan.row.initial_memory(config, plan.env.spec) if carried else None

    def act(params, obs, memory, key):
        batch = jax.tree.leaves(obs)[0].shape[:1]
        values = iter(params)
        kept = jax.tree.map(lambda used: next(values) if used else False, part.leaves)
        state = acting.restore(kept, *part)
        if carried:
            start = jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, *x.shape)), initial)
            obs = RecurrentObs(obs, start if memory is None else memory)
        # greedy actions of agents with replay do not depend on the number of environments, which
        # must fit the capacity of the buffer
        num_envs = config.num_envs if greedy and hasattr(config, "buffer_size") else batch[0]
        spec = plan.env.spec._replace(num_envs=num_envs)
        agent = plan.make_agent(config, plan.env._replace(spec=spec))
        if greedy:
            action = agent.greedy(state, obs, key)
        else:
            action, _ = agent.act(state, obs, sample_one(agent.sample_noise, key))
        return action if carried else (action, None)

    one_obs = obs.obs if carried else obs
    batched = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), (one_obs, initial)
    )
    *_, memory_used, key_used = acting.used_leaves(
        lambda *arguments: act(*arguments)[0], tuple(params.values()), *batched, seed_key(0)
    )
    memory = initial if any(jax.tree.leaves(memory_used)) else None
    return ActingProgram(in_32_bits(act), params, one_obs, memory, key_used)


def _named_params(state: PyTree, leaves: PyTree, like: PyTree) -> dict[str, Array]:
    """Returns the used leaves of a state by name, such as "params/params/logits/bias"."""
    params = {}
    triples = zip(*map(jax.tree_util.tree_leaves_with_path, (state, leaves, like)), strict=True)
    for (path, x), (_, is_used), (_, expected) in triples:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if is_used and (x.shape, x.dtype) != (expected.shape, expected.dtype):
            raise ValueError(
                f"the state holds no `{name}`, because it was kept for greedy actions alone: leave "
                "`greedy=False` out."
            )
        if is_used:
            params[name] = jnp.asarray(x)
    return params


class Policy:
    """A trained policy: `policy(obs)` returns the action for one observation, or for a batch.

    It holds the normalization of observations, and the memory of a recurrent policy: call `reset`
    at the start of an episode.

    Attributes:
      plan: the experiment.
      name: settings and seed of the run, such as "seed 1".
      greedy: it takes the greedy action; False samples.
      program: the policy as a pure function.
    """

    def __init__(
        self, plan: Plan, index: int, state: PyTree, *, greedy: bool = True, random_seed: int = 0
    ):  # fmt: skip
        """Makes the policy of one run; arguments and errors are those of `acting_program`.

        `random_seed` is the seed of sampling, and of agents whose greedy actions are random.
        """
        self.plan, self.name, self.greedy = plan, plan.run_name(index), greedy
        self.program = program = acting_program(plan, index, state, greedy)
        self._form = ObservationForm(plan.env.spec, program.obs, converter_of(plan))
        self._params = tuple(program.params.values())
        self._is_int = isinstance(plan.env.spec.num_actions, int) and plan.env.spec.num_actions > 0
        self._memory: Any = None
        self._batch_size: Any = None
        self._count = 0
        self._random_seed = random_seed

        @jax.jit
        def act(params, obs, memory, count):
            key = self.key(0 if count is None else count)
            is_one = jax.tree.leaves(obs)[0].ndim == jax.tree.leaves(program.obs)[0].ndim
            if is_one:
                obs, memory = jax.tree.map(lambda x: x[None], (obs, memory))
            result = program.act(params, obs, memory, key)
            return jax.tree.map(lambda x: x[0], result) if is_one else result

        self._act = act

    def __call__(self, obs: Any) -> Any:
        """Returns the action for an observation `[*obs_shape]`, or those for a batch `[B, ...]`.

        Args:
          obs: one observation as the environment returns it, an array or a tree of arrays with
            the action mask, if any; or a batch.

        Returns:
          An int for one discrete action, otherwise an array `[*action_shape]` in the bounds of the
          environment; for a batch an array `[B, ...]`.

        Raises:
          ValueError: the shape or the dtype of the observation is wrong, or a recurrent policy is
            called with another batch size than before, without `reset`.
        """
        obs, batch_size = self._form(obs)
        memory = count = None
        if self.program.memory is not None:
            memory = self._carried(batch_size)
        if self.program.is_random:
            count = np.uint32(self._count)
            self._count += 1
        action, self._memory = self._act(self._params, obs, memory, count)
        if self._is_int and batch_size is None:
            return action.item()  # 2 us faster than `int(action)`
        return np.array(action)

    def reset(self, where: Any = None) -> None:
        """Forgets the memory, at the start of episodes; without a memory it does nothing.

        Args:
          where: the episodes of the batch that start, bool `[B]`; None means all.

        Raises:
          ValueError: `where` has not the size of the batch.
        """
        if where is None or self._memory is None or self.program.memory is None:
            self._memory = None
            return
        where = np.asarray(where, bool)
        if where.shape != (self._batch_size,):
            raise ValueError(
                f"`where` has shape {where.shape}, but the batch has {self._batch_size} episodes: "
                "give one bool for each, or none to reset all."
            )

        def reset_one(memory, initial):
            return jnp.where(where.reshape(-1, *[1] * initial.ndim), initial, memory)

        self._memory = jax.tree.map(reset_one, self._memory, self.program.memory)

    def key(self, count: Any) -> Key:
        """Returns the random key of a call, by the number of earlier calls."""
        return jax.random.fold_in(seed_key(self._random_seed), count)

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The arrays that actions depend on, by name: parameters, and moments of observations."""
        return {name: np.asarray(x) for name, x in self.program.params.items()}

    def _carried(self, batch_size: int | None) -> PyTree:
        """Returns the memory before this step."""
        if self._memory is None:
            self._batch_size = batch_size
            shape = () if batch_size is None else (batch_size,)
            return jax.tree.map(
                lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), self.program.memory
            )
        if batch_size != self._batch_size:
            before, now = (
                "one observation" if size is None else f"a batch of {size}"
                for size in (self._batch_size, batch_size)
            )
            raise ValueError(
                f"the policy has a memory of the episodes of {before}, but got {now}: call "
                "`policy.reset()` at the start of new episodes."
            )
        return self._memory

    def __repr__(self) -> str:
        kind = "greedy" if self.greedy else "sampling"
        label = self.plan.name or self.plan.agent
        return f"<Policy {label} · {self.plan.env_id} · {self.name} · {kind}>"


def policy_of(
    result: Any, setting: Any = 0, seed: Any = 0, best: Any = False, greedy: Any = True,
    random_seed: Any = 0,
) -> Policy:  # fmt: skip
    """Returns one policy of a result; arguments and errors are those of `Result.policy`."""
    if parts := getattr(result, "parts", ()):  # settings of several compiled programs
        swept = result.settings[_checked("setting", setting, len(result.settings))]
        result = next(part for part in parts if swept in part.settings)
        setting = result.settings.index(swept)
    if result.state is None:
        raise ValueError(
            "this result was loaded without its states: load it with `rljax.load(run_dir)`."
        )
    plan = result.plan or plan_from_record(result.config)
    greedy, best = convert("greedy", greedy, bool), convert("best", best, bool)
    index = _index_of(plan, setting, seed)
    state = _states(result, best)
    position = np.unravel_index(index, plan.leading_shape)
    if diverged := [x for x in result.diverged if x["run"] == index and not best]:
        raise ValueError(
            f"{plan.run_name(index)} diverged at step {diverged[0]['step']:,}, so it has no "
            "policy: choose another run."
        )
    state = jax.tree.map(lambda x: x[position], state)
    return Policy(plan, index, state, greedy=greedy, random_seed=checked_seed(random_seed))


def _index_of(plan: Plan, setting: Any, seed: Any) -> int:
    """Returns the index of a run among settings and seeds."""
    setting = _checked("setting", setting, plan.num_runs // plan.num_seeds)
    return setting * plan.num_seeds + _checked("seed", seed, plan.num_seeds)


def _checked(name: str, index: Any, num: int) -> int:
    """Returns an index from 0 to `num - 1`."""
    checked = at_least(name, index, 0)
    if checked >= num:
        raise ValueError(
            f"`{name}` is {checked}, but the run has {num} {name}{'s' * (num > 1)}: choose "
            f"{'0' if num == 1 else f'one from 0 to {num - 1}'}."
        )
    return checked


def _states(result: Any, best: bool) -> PyTree:
    """Returns the final states of the agents, or the best ones, `[*sweep, seeds, ...]`."""
    if not best:
        return result.state.agent
    if result.best is None:
        raise ValueError(
            "`best` is True, but the run has no best policy: train with `eval_interval`, or leave "
            "`best` out for the final policy."
        )
    return result.best.state
