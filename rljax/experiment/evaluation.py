"""Evaluation of the policies of a run, from its `Result` or from its directory."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax import envs
from rljax.experiment import saved
from rljax.experiment.evaluator import Evaluator
from rljax.experiment.make_plan import plan_from_record
from rljax.experiment.options import read_record
from rljax.experiment.plan import Plan, as_observed
from rljax.experiment.saved import Saved, SavedTree
from rljax.ops.precision import in_32_bits
from rljax.results.result import Result
from rljax.types import PyTree


@in_32_bits
def evaluate(
    run: Result | str | Path, num_episodes: int = 100, *, seed: int | None = None,
    greedy: bool = True, best: bool = False, env: Any = None, suite: str | None = None,
    opponent: Any = None, num_simulations: int | None = None, **pieces: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Evaluates the policies of a run on the first episode of each of many new environments.

    Games of two players are played against an opponent; who begins is drawn at random.

    Args:
      run: the `Result` of `rljax.train`, or a run directory.
      num_episodes: number of episodes of each policy.
      seed: random seed of the environments; None uses that of the run.
      greedy: act greedily; False samples from the policy.
      best: evaluate the best policies by the evaluation during training (`eval_interval`); False
        takes the final ones.
      env: the environment, if it is your own object.
      suite: evaluate in the environment of the same name in another suite, such as "gymnasium".
      opponent: "random", "minimax" (tic-tac-toe), "mcts", "mcts:N", or a function (see
        `envs.opponents`); None is "random", or the opponent of training.
      num_simulations: simulations of each search of `alphazero` and `muzero`; None takes as many
        as in training.
      pieces: the pieces that the run was made with, such as `network=`, and `agent=` if it is
        your own.

    Returns:
      "returns" and "lengths" of episodes, `[*sweep, seeds, num_episodes]`, and "unfinished",
      `[*sweep, seeds]`: the number of episodes that reached the limit of steps. The returns of a
      run that diverged are NaN.

    Raises:
      ValueError: there is no state to evaluate, a piece is missing, the agent does not search, or
        see `in_suite`.

    Example:
      >>> import rljax
      >>> run = rljax.train(
      ...     "q_learning", "rljax/Maze", num_seeds=2, total_timesteps=400, eval_episodes=0,
      ...     progress=False,
      ... )
      >>> rljax.evaluate(run, num_episodes=5)["returns"].shape
      (2, 5)
    """
    num_episodes = configs.at_least("num_episodes", num_episodes, 1)
    if best and not greedy:
        raise ValueError("the best policies are kept for greedy actions alone: set greedy=True.")
    plan, states = states_of(run, env, best, **pieces)
    if suite is not None:
        plan = in_suite(plan, suite)
    plan = with_simulations(plan, num_simulations)
    return evaluate_states(plan, states, num_episodes, seed, greedy, opponent)


def in_suite(plan: Plan, suite: str) -> Plan:
    """Returns the plan with the environment of the same name in another suite.

    Raises:
      ValueError: there is none, its observations or actions differ, or it does not have a
        parameter that the environment of the run was made with.

    Example:
      >>> from rljax.experiment.make_plan import make_plan
      >>> in_suite(make_plan("dqn", "partial/CartPole-v1"), "gymnax")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: policies of partial/CartPole-v1 cannot act in gymnax/CartPole-v1: ...
    """
    env_id = f"{suite}/{plan.env_id.rpartition('/')[2]}"
    env = envs.make(env_id, **plan.env_params)
    fields = ("obs_shape", "num_states", "num_actions", "action_shape", "action_low", "action_high")
    for name in fields:
        old, new = getattr(plan.env.spec, name), getattr(env.spec, name)
        is_bound = name in ("action_low", "action_high")
        if not (np.all(np.equal(old, new)) if is_bound else old == new):
            raise ValueError(
                f"policies of {plan.env_id} cannot act in {env_id}: its `{name}` is {new}, and "
                f"that of {plan.env_id} is {old}."
            )
    return plan._replace(env=as_observed(plan.row, plan.config, env), env_id=env_id)


def with_simulations(plan: Plan, num_simulations: Any) -> Plan:
    """Returns the plan with another number of simulations in each search; None changes nothing.

    Raises:
      ValueError: the agent does not search, or the number is below 1.
    """
    if num_simulations is None:
        return plan
    if not hasattr(plan.config, "num_simulations"):
        raise ValueError(
            f"`num_simulations` is {num_simulations}, but {plan.agent} does not search: leave it "
            "out."
        )
    number = configs.at_least("num_simulations", num_simulations, 1)
    return plan._replace(config=dataclasses.replace(plan.config, num_simulations=number))


def evaluate_states(
    plan: Plan, states: PyTree, num_episodes: int = 100, seed: int | None = None,
    greedy: bool = True, opponent: Any = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Evaluates agent states `[R, ...]` of a plan; arguments and results are as in `evaluate`."""
    evaluation = Evaluator(plan, num_episodes, greedy, opponent)(states, seed)
    return {name: plan.by_setting(values) for name, values in evaluation.items()}


@in_32_bits
def load_states(run_dir: str | Path, env: Any = None, **pieces: Any) -> tuple[Plan, PyTree]:
    """Loads the last undamaged checkpoint of a run.

    Args:
      run_dir: the run directory.
      env: the environment, if it is your own object.
      pieces: the pieces that the run was made with, such as `network=`, and `agent=` if it is
        your own.

    Returns:
      The plan and the `TrainState` of all runs, `[R, ...]`; its `agent` is the agent's state.

    Raises:
      ValueError: there is no run, no checkpoint, or only damaged ones.

    Example:
      >>> import rljax, tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     _ = rljax.train(
      ...         "q_learning", "rljax/Maze", run_dir=f"{directory}/maze", total_timesteps=400,
      ...         eval_episodes=0, progress=False,
      ...     )
      ...     plan, states = rljax.load_states(f"{directory}/maze")
      >>> plan.agent, states.num_updates.tolist()
      ('q_learning', [400])
    """
    plan = plan_from_record(read_record(run_dir), env, **pieces)
    tree, _ = load_checkpoint(run_dir, plan)
    return plan, plan.first_workers(tree.runs.state)


@in_32_bits
def load_best(run_dir: str | Path, env: Any = None, **pieces: Any) -> tuple[Plan, PyTree]:
    """Loads the best policies of a run by its evaluations during training.

    Args:
      run_dir, env, pieces: as those of `load_states`.

    Returns:
      The plan and the acting part (see `training.acting`) of the agent states, `[R, ...]`.

    Raises:
      ValueError: the run was not evaluated during training, or see `load_states`.
    """
    plan = plan_from_record(read_record(run_dir), env, **pieces)
    if not plan.eval_interval:
        raise ValueError(
            f"{run_dir} has no best policies, because it was not evaluated during training: train "
            "with `eval_interval`, or take the final policies."
        )
    tree, _ = load_checkpoint(run_dir, plan)
    return plan, tree.best


def load_checkpoint(run_dir: str | Path, plan: Plan) -> tuple[SavedTree, Saved]:
    """Returns the last undamaged checkpoint of a plan: its arrays and its metadata.

    Raises:
      ValueError: there is no checkpoint, or only damaged ones.
    """
    found = saved.load(Path(run_dir) / "checkpoint", plan)
    if found is None:
        raise ValueError(f"there is no checkpoint in {run_dir} yet: resume the run first.")
    return found


def states_of(
    run: Result | str | Path, env: Any = None, best: bool = False, **pieces: Any
) -> tuple[Plan, PyTree]:
    """Returns the plan and the agent states `[R, ...]` of a result, or of a run directory.

    Args:
      run: a result with its states, or a run directory.
      env, pieces: as those of `load_states`; a result knows its own.
      best: the acting part of the best policies; False takes the final states.

    Raises:
      ValueError: there are no states, no best policies, or see `load_states`.
    """
    if not isinstance(run, Result):
        if best:
            return load_best(run, env, **pieces)
        plan, train_states = load_states(run, env, **pieces)
        return plan, train_states.agent
    if run.state is None:
        raise ValueError("this result was loaded from files: pass its run directory instead.")
    if best and run.best is None:
        raise ValueError(
            "`best` is True, but the run has no best policies: train with `eval_interval`, or "
            "leave `best` out for the final ones."
        )
    plan = run.plan
    if plan is None or env is not None or pieces:
        plan = plan_from_record(run.config, env, **pieces)
    states = run.best.state if run.best is not None and best else run.state.agent
    num_axes = len(plan.leading_shape)
    return plan, jax.tree.map(lambda x: x.reshape(-1, *x.shape[num_axes:]), states)


def load_run(
    source: Result | str | Path, run: Any, env: Any = None, best: bool = False, **pieces: Any
) -> tuple[Plan, int, PyTree]:
    """Loads one of the runs of a result or directory: plan, checked index, agent's state.

    Args:
      source: a result with its states, or a run directory.
      run: index of the run among settings and seeds; seeds vary fastest.
      env, best, pieces: as those of `states_of`.

    Raises:
      ValueError: there is no run of this index, or see `states_of`.
    """
    index = configs.at_least("run", run, 0)
    plan, states = states_of(source, env, best, **pieces)
    if index >= plan.num_runs:
        where = "the result" if isinstance(source, Result) else source
        raise ValueError(
            f"`run` is {index}, but {where} has {plan.num_runs} runs. Choose one from 0 to "
            f"{plan.num_runs - 1}."
        )
    return plan, index, jax.tree.map(lambda x: x[index], states)
