"""A compiled evaluation of the policies of a plan, for one call or many."""

from typing import Any, NamedTuple

import jax
import numpy as np

from rljax import envs
from rljax.config.run import with_values
from rljax.envs import host
from rljax.envs.opponents import against
from rljax.experiment import divergence
from rljax.experiment.plan import Plan, as_observed
from rljax.experiment.plan_checks import worker_part
from rljax.ops.precision import in_32_bits
from rljax.ops.random import checked_seed
from rljax.training import acting, parallel, runs
from rljax.training.evaluate import evaluate as evaluate_agent
from rljax.training.programs import Program
from rljax.types import Env, PyTree

EVALUATION_STREAM = 1_000_003  # folded into the key of a run, so evaluation has its own stream


def evaluation_env(plan: Plan, opponent: Any = None) -> Env:
    """Returns one copy of the environment that a plan is evaluated in.

    It is that of training; of a game of two players, the game against an opponent.

    Raises:
      ValueError: an opponent in an environment of one player, or an unknown opponent.
    """
    if plan.env.spec.num_players == 2:
        return against(plan.env, "random" if opponent is None else opponent)
    if opponent is None:
        return plan.env
    if "opponent" not in plan.env_params:
        raise ValueError(
            f"`opponent` is {opponent}, but {plan.env_id} has one player: leave it out."
        )
    env = envs.make(plan.env_id, **plan.env_params | {"opponent": opponent})
    return as_observed(plan.row, plan.config, env)


class ActingPart(NamedTuple):
    """The part of an agent's state that its actions depend on.

    Attributes:
      leaves: for each leaf of the state whether actions depend on it.
      like: shapes and dtypes of the state.
    """

    leaves: PyTree
    like: PyTree


@in_32_bits
def acting_part(plan: Plan, greedy: bool = True) -> ActingPart:
    """Returns the part that greedy actions, or sampled ones, of the agent of a plan depend on."""
    config = worker_part(plan.config, plan.workers)
    env = plan.build_env(config.num_envs)
    agent = plan.make_agent(config, env)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, (_, obs) = jax.eval_shape(lambda key: (agent.init(key), env.reset(key)), key)
    return ActingPart(acting.acting_leaves(agent, state, obs, greedy), state)


class Evaluator:
    """Evaluates the agent states of a plan; the program is compiled by the first call."""

    def __init__(
        self, plan: Plan, num_episodes: int, greedy: bool = True, opponent: Any = None,
        num_shards: int | None = None,
    ):  # fmt: skip
        """Makes the environments.

        Args:
          plan: the runs to evaluate.
          num_episodes: number of episodes of each policy.
          greedy: act greedily; False samples from the policy.
          opponent: as in `rljax.evaluate`.
          num_shards: number of groups that the runs are placed in; None takes one per core.
        """
        self._plan, self._greedy, self.part = plan, greedy, acting_part(plan, greedy)
        self._env = envs.batched(evaluation_env(plan, opponent), num_episodes)
        self._placement = parallel.place(plan.num_runs, num_shards)
        is_named = opponent is None or isinstance(opponent, str)
        self._key = plan.cache_key() if is_named else None
        if self._key is not None:
            groups = self._placement.num_shards
            self._key = "evaluate", self._key, num_episodes, greedy, opponent, groups
        self._program: Program | None = None

    @in_32_bits
    def __call__(
        self, states: PyTree, seed: int | None = None, number: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns "returns" and "lengths" `[R, num_episodes]`, and "unfinished" `[R]`.

        Args:
          states: agent states `[R, ...]`, or their acting part. The returns of a run whose
            parameters are not finite are NaN.
          seed: random seed of the environments; None takes that of the runs.
          number: evaluations of different numbers have different environments; None is another.
        """
        plan = self._plan
        seed = plan.seed if seed is None else checked_seed(seed)
        inits = plan._replace(seed=seed).run_inits()
        keys = jax.vmap(jax.random.fold_in, (0, None))(inits.key, EVALUATION_STREAM)
        if number is not None:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        kept = acting.keep(states, self.part.leaves, num_axes=1)
        shards = self._placement.split((kept, keys, inits.swept))
        if self._program is None:
            self._program = runs.cached_program(self._key, lambda: self._compile(shards))
        episodes = jax.device_get(self._placement.join(self._program(shards, plan.program_config)))
        returns = np.array(episodes.returns)[..., 0]
        returns[list(divergence.in_params(plan, states, 0))] = np.nan
        unfinished = (~episodes.finished).sum(axis=(-1, -2))
        return {"returns": returns, "lengths": episodes.lengths[..., 0], "unfinished": unfinished}

    def _compile(self, shards: Any) -> Program:
        plan, env = self._plan, self._env
        num_episodes = env.spec.num_envs
        spec = plan.env.spec._replace(num_envs=num_episodes)  # a planner's is that of the game

        def evaluate_one(run, config):
            kept, key, swept = run
            state = acting.restore(kept, *self.part)
            agent = plan.make_agent(with_values(config, swept), env._replace(spec=spec))
            return evaluate_agent(agent, env, state, key, greedy=self._greedy, close=host.close)

        program = runs.over_runs(evaluate_one, self._placement.width)
        return self._placement.compile(program, shards, plan.program_config)
