"""Training of a plan from start to end: `train`, `resume`, and `run_plan` for the command line."""

import dataclasses
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax.envs import host
from rljax.experiment.directory import RunDirectory, restore
from rljax.experiment.evaluation import evaluate_states
from rljax.experiment.loop import TrainingLoop
from rljax.experiment.options import RESUMABLE, read_record
from rljax.experiment.plan import Plan, make_plan, plan_from_record
from rljax.experiment.progress import Progress
from rljax.experiment.signals import interruptible, resume_hint
from rljax.experiment.writers import Rows, Writer, check_writers, open_writers
from rljax.results.result import Result
from rljax.training import distributed, parallel
from rljax.training.runs import Runs, RunState, over_runs
from rljax.types import params_of

SMALL_UPDATE = 2048  # steps of an update up to which matrix products are faster on one core


def train(
    agent: Any, env: Any, *, num_seeds: int = 1, seed: int = 0, run_dir: str | Path | None = None,
    num_reports: int = 50, eval_episodes: int = 100, progress: bool | None = None,
    writers: Sequence[str | Writer] = ("jsonl",), save_seconds: float = 30.0,
    env_params: Any = None, resume: bool = False, devices: int | None = None,
    **hyperparameters: Any,
) -> Result:  # fmt: skip
    """Trains an agent with many seeds and settings at once, in one compiled program.

    Args:
      agent: a name in `rljax.AGENTS`, or your own `(config class, maker)`.
      env: an environment id (see `rljax list`), a gymnax environment, or an `rljax.Env`.
      num_seeds: number of independent runs. Run i uses `fold_in(key(seed), i)`, so more seeds do
        not change the earlier ones.
      seed: random seed.
      run_dir: directory for checkpoints, metrics and the result; None writes no files.
      num_reports: number of points of the learning curves. Memory grows with it, but not with the
        number of steps.
      eval_episodes: greedy evaluation episodes of each final policy; 0 for none.
      progress: False shows nothing. Otherwise a live bar in a terminal, lines elsewhere.
      writers: names of writers to the run directory, "jsonl", "tensorboard" or "wandb", and your
        own `rljax.experiment.writers.Writer` objects.
      save_seconds: minimum seconds between two checkpoints; the final state is always saved.
      env_params: parameters of the environment and `max_episode_steps`, by name; or the parameter
        object of a gymnax environment.
      resume: continue from the last checkpoint in `run_dir` (see `rljax.resume`).
      devices: number of devices that train each run together, each with a part of `num_envs`;
        gradients are averaged. None places whole runs on the available devices.
      hyperparameters: fields of the agent's config, and pieces of the agent, such as `network=` or
        `optimizer=`. A list for a float field is a sweep, one leading axis of the result.

    Returns:
      The `Result`: learning curves, evaluation and final states, `[*sweep, seeds, ...]`.

    Raises:
      ValueError: an argument is wrong; raised before anything is compiled.
      FloatingPointError: a metric or parameter is NaN or infinite; names it, the step and the run.

    Example:
      >>> import rljax
      >>> run = rljax.train(
      ...     "q_learning", "rljax/Maze", num_seeds=3, learning_rate=[0.1, 0.5],
      ...     total_timesteps=400, num_reports=4, eval_episodes=0, progress=False,
      ... )
      >>> run.returns.shape  # [learning_rate, seed, report]
      (2, 3, 4)
    """
    plan = make_plan(
        agent, env, num_seeds=num_seeds, seed=seed, num_reports=num_reports, env_params=env_params,
        devices=devices, **hyperparameters,
    )  # fmt: skip
    return run_plan(
        plan, run_dir, eval_episodes=eval_episodes, progress=progress, writers=writers,
        save_seconds=save_seconds, resume=resume,
    )  # fmt: skip


def resume(run_dir: str | Path, env: Any = None, agent: Any = None, **options: Any) -> Result:
    """Continues an interrupted run to its end, with the same bits as an uninterrupted run.

    Environments on the host, such as those of gymnasium, cannot be restored: such a run continues
    from a reset, and says so in a warning.

    Args:
      run_dir: the run directory.
      env: the environment, if it is your own object.
      agent: `(config class, maker)`, if it is your own agent.
      options: the pieces that the run was made with, such as `network=`, and `eval_episodes`,
        `progress`, `writers` and `save_seconds` as in `rljax.train`.

    Returns:
      The `Result` of the whole run.

    Raises:
      ValueError: there is no run, or an option differs from the saved one; each is named.

    Example:
      >>> import rljax, tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     _ = rljax.train(
      ...         "q_learning", "rljax/Maze", run_dir=f"{directory}/maze", total_timesteps=400,
      ...         num_reports=4, eval_episodes=0, progress=False,
      ...     )
      ...     run = rljax.resume(f"{directory}/maze", progress=False)  # complete: trains no further
      >>> run.returns.shape
      (1, 4)
    """
    how = {name: options.pop(name) for name in RESUMABLE if name in options}
    record = read_record(run_dir)
    plan = plan_from_record(record, env, agent, **options)
    return run_plan(plan, run_dir, resume=True, **how)


def run_plan(
    plan: Plan, run_dir: str | Path | None = None, *, eval_episodes: int = 100,
    progress: bool | None = None, writers: Any = ("jsonl",), save_seconds: float = 30.0,
    resume: bool = False,
) -> Result:  # fmt: skip
    """Trains, evaluates and saves a plan; arguments and errors are those of `train`."""
    eval_episodes = configs.at_least("eval_episodes", eval_episodes, 0)
    save_seconds = configs.convert("save_seconds", save_seconds, float)
    writers = check_writers(writers)
    run_dir = None if run_dir is None else Path(run_dir)
    if resume and run_dir is None:
        raise ValueError("`resume` is True, but `run_dir` is None: pass the directory of the run.")
    with distributed.monitored(resume_hint(run_dir)), ExitStack() as on_exit:
        is_first = distributed.is_first()
        directory = RunDirectory(run_dir, plan.record(), resume) if run_dir and is_first else None
        bar = on_exit.enter_context(_progress_bar(plan, progress if is_first else False))
        interrupt = on_exit.enter_context(interruptible())
        runs = _compile(plan)
        rows, num_updates = restore(directory, runs)
        if plan.env.batch is not None:
            if 0 < num_updates < plan.config.num_updates:
                _reset_environments(plan, runs)
            on_exit.callback(host.close, runs.snapshot().state.env)
        start = num_updates * plan.steps_per_update
        bar.compiled(runs.compile_seconds, start, runs.num_bytes)
        path = directory.path if directory else None
        opened = open_writers(writers if is_first else (), path, rows, plan.record())
        for writer in opened:
            on_exit.callback(writer.close)
        loop = TrainingLoop(
            plan, runs, run_dir, directory, opened, bar, interrupt, save_seconds, list(rows),
            num_updates,
        )  # fmt: skip
        start = time.perf_counter()
        loop.run()
        seconds = time.perf_counter() - start
        snapshot = loop.finite_snapshot()
        result = _result(plan, loop.rows, snapshot, runs.compile_seconds, seconds)
        if eval_episodes:
            states = plan.first_workers(snapshot.state.agent)
            evaluation = evaluate_states(plan, states, eval_episodes)
            result = dataclasses.replace(result, evaluation=evaluation)
        if directory:
            result.save(directory.path)
            result.plot(directory.path / "curve.png")
            directory.write_readme(plan.title)
        return result


def _progress_bar(plan: Plan, enabled: bool | None) -> Progress:
    total_steps = plan.config.num_updates * plan.steps_per_update
    return Progress(plan.title, total_steps, enabled, num_runs=plan.num_runs)


def _compile(plan: Plan) -> Runs:
    """Compiles and initializes the runs; plans of one program are compiled once."""
    placement = parallel.place(plan.num_runs, workers=plan.workers)
    cache_key = plan.cache_key() and (plan.cache_key(), placement.num_shards)
    return Runs(
        plan.make_learner(), plan.config, plan.worker_inits(), placement, cache_key,
        one_thread=plan.steps_per_update <= SMALL_UPDATE,
    )  # fmt: skip


def _reset_environments(plan: Plan, runs: Runs) -> None:
    """Resets the environments of restored runs, whose state on the host is lost."""
    warnings.warn(
        f"{plan.env_id} runs on the host and cannot be restored: the run continues from a reset of "
        "its environments, and its results differ from those of an uninterrupted run.",
        stacklevel=3,
    )  # fmt: skip
    snapshot = runs.snapshot()
    keys = jax.vmap(jax.random.split)(snapshot.state.key)
    env = plan.build_env(plan.config.num_envs // plan.workers)
    env_state, obs = jax.jit(over_runs(env.reset, len(keys)))(keys[:, 0])
    episodes = jax.tree.map(np.zeros_like, snapshot.state.episodes)
    state = snapshot.state._replace(env=env_state, obs=obs, key=keys[:, 1], episodes=episodes)
    runs.restore(snapshot._replace(state=state))


def _result(
    plan: Plan, rows: Rows, snapshot: RunState, compile_seconds: float, seconds: float
) -> Result:
    """Returns the result, its runs in the axes `[*sweep, seeds]`."""

    def unflatten(x):
        return x.reshape(*plan.leading_shape, *x.shape[1:])

    names = rows[0][1] if rows else ()
    metrics = {name: np.stack([metrics[name] for _, metrics in rows], axis=-1) for name in names}
    state = jax.tree.map(unflatten, plan.first_workers(snapshot.state))
    return Result(
        agent=plan.agent, env_id=plan.env_id, config=plan.record(), sweep=plan.sweep,
        num_seeds=plan.num_seeds, seed=plan.seed,
        steps=np.array([step for step, _ in rows], np.int64),
        metrics={name: unflatten(values) for name, values in metrics.items()},
        state=state, params=params_of(state.agent), compile_seconds=compile_seconds,
        seconds=seconds,
    )  # fmt: skip
