"""Training of a plan from start to end: `train`, `resume`, and `run_plan` for the command line."""

import dataclasses
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax.envs import host
from rljax.experiment import checkpoint
from rljax.experiment.directory import RunDirectory, check_config, parse_meta, restore, storing
from rljax.experiment.evaluation import evaluate_states
from rljax.experiment.loop import TrainingLoop
from rljax.experiment.options import RESUMABLE, read_record
from rljax.experiment.plan import Plan, make_plan, plan_from_record
from rljax.experiment.progress import Progress
from rljax.experiment.provenance import recorded_options
from rljax.experiment.signals import complete_hint, interruptible, resume_hint
from rljax.experiment.writers import Writer, check_writers, open_writers
from rljax.ops.precision import in_32_bits
from rljax.results.files import load_result
from rljax.results.result import Result
from rljax.results.storage import RECORD
from rljax.training import distributed, parallel
from rljax.training.runs import Runs, over_runs, template
from rljax.types import params_of

MAX_EVAL_EPISODES = 10**6  # of each policy
SMALL_UPDATE = 2048  # steps of an update up to which matrix products are faster on one core


def train(
    agent: Any, env: Any, *, num_seeds: int = 1, seed: int = 0, name: str | None = None,
    run_dir: str | Path | None = None, num_reports: int = 50, eval_episodes: int = 100,
    progress: bool | None = None, writers: Sequence[str | Writer] = ("jsonl",),
    save_seconds: float = 30.0, env_params: Any = None, resume: bool = False,
    devices: int | None = None, **hyperparameters: Any,
) -> Result:  # fmt: skip
    """Trains an agent with many seeds and settings at once, in one compiled program.

    Args:
      agent: a name in `rljax.AGENTS`, or your own `(config class, maker)`.
      env: an environment id (see `rljax list`), a gymnax environment, or an `rljax.Env`.
      num_seeds: number of independent runs. Run i uses `fold_in(key(seed), i)`, so more seeds do
        not change the earlier ones.
      seed: random seed.
      name: label of the run in figures and tables, by default the name of the agent. Runs that
        differ only in an argument such as `optimizer=` need names to be drawn together.
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
        agent, env, num_seeds=num_seeds, seed=seed, name=name, num_reports=num_reports,
        env_params=env_params, devices=devices, **hyperparameters,
    )  # fmt: skip
    return run_plan(
        plan, run_dir, eval_episodes=eval_episodes, progress=progress, writers=writers,
        save_seconds=save_seconds, resume=resume,
    )  # fmt: skip


def resume(run_dir: str | Path, env: Any = None, agent: Any = None, **options: Any) -> Result:
    """Continues an interrupted run to its end, with the same bits as an uninterrupted run.

    A run that is complete is loaded: nothing is trained, evaluated or compiled.
    Environments on the host, such as those of gymnasium, cannot be restored: such a run continues
    from a reset, and says so in a warning.

    Args:
      run_dir: the run directory.
      env: the environment, if it is your own object.
      agent: `(config class, maker)`, if it is your own agent.
      options: the pieces that the run was made with, such as `network=`, and `eval_episodes`,
        `progress`, `writers` and `save_seconds` as in `rljax.train`. Those that are not given keep
        the values of the run, and `progress` its default.

    Returns:
      The `Result` of the whole run.

    Raises:
      ValueError: there is no run, or an option differs from the saved one; each is named; or
        another process trains the run.

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
    how = recorded_options(Path(run_dir), how) | how
    return run_plan(plan, run_dir, resume=True, **how)


@in_32_bits
def run_plan(
    plan: Plan, run_dir: str | Path | None = None, *, eval_episodes: int = 100,
    progress: bool | None = None, writers: Any = ("jsonl",), save_seconds: float = 30.0,
    resume: bool = False,
) -> Result:  # fmt: skip
    """Trains, evaluates and saves a plan; arguments and errors are those of `train`."""
    eval_episodes, progress, writers, save_seconds = check_options(
        run_dir, eval_episodes, progress, writers, save_seconds
    )
    run_dir = None if run_dir is None else Path(run_dir)
    if resume and run_dir is None:
        raise ValueError("`resume` is True, but `run_dir` is None: pass the directory of the run.")
    if resume and run_dir and (result := _complete_result(plan, run_dir, progress)):
        return result
    how: dict[str, Any] = {"eval_episodes": eval_episodes, "save_seconds": save_seconds}
    how["writers"] = [x if isinstance(x, str) else type(x).__name__ for x in writers]
    with distributed.monitored(resume_hint(run_dir)), ExitStack() as on_exit:
        is_first = distributed.is_first()
        directory = None
        if run_dir and is_first:
            directory = on_exit.enter_context(RunDirectory(run_dir, plan, how, resume))
        bar = on_exit.enter_context(_progress_bar(plan, progress if is_first else False))
        together = jax.process_count() > 1  # the processes agree on signals between chunks
        interrupt = on_exit.enter_context(interruptible(resume_hint(run_dir), waits=together))
        groups = directory.num_shards if directory else None  # as before: they affect last bits
        placement = parallel.place(plan.num_runs, groups, plan.workers)
        runs = _compile(plan, placement)
        rows, num_updates = restore(directory, runs)
        if plan.env.batch is not None:
            if 0 < num_updates < plan.config.num_updates:
                _reset_environments(plan, runs)
            on_exit.callback(host.close, runs.snapshot().state.env)
        bar.compiled(runs.compile_seconds, num_updates * plan.steps_per_update, runs.num_bytes)
        with storing(run_dir):
            if directory:
                directory.start(placement, num_updates, _one_thread(plan))
            path = directory.path if directory else None
            opened = open_writers(writers if is_first else (), path, rows, plan.record())
        for writer in opened:
            on_exit.callback(writer.close)
        loop = TrainingLoop(
            plan, runs, run_dir, directory, opened, bar, interrupt, save_seconds, list(rows),
            num_updates,
        )  # fmt: skip
        with interrupt.waiting():
            loop.run()
        result = _result(loop, eval_episodes, None if plan.workers > 1 else placement.num_shards)
        if directory:
            with interrupt.waiting(), storing(run_dir):
                result.save(directory.path)
                result.plot(directory.path / "curve.png")
                directory.write_readme(plan.title)
                interrupt.saved = complete_hint(run_dir)
        return result


def check_options(
    run_dir: Any, eval_episodes: Any = 100, progress: Any = None, writers: Any = ("jsonl",),
    save_seconds: Any = 30.0,
) -> tuple[int, bool | None, Any, float]:  # fmt: skip
    """Returns the options of `run_plan` in their types, checked before anything is written.

    Raises:
      ValueError: an option is wrong.
    """
    eval_episodes = configs.at_least("eval_episodes", eval_episodes, 0, MAX_EVAL_EPISODES)
    save_seconds = configs.convert("save_seconds", save_seconds, float)
    configs.check_range("save_seconds", save_seconds, low=0)
    progress = None if progress is None else configs.convert("progress", progress, bool)
    if run_dir is not None and not str(run_dir).strip():
        raise ValueError("`run_dir` is empty: give the path of a directory, or leave it out.")
    return eval_episodes, progress, check_writers(writers, run_dir), save_seconds


def _complete_result(plan: Plan, run_dir: Path, progress: bool | None) -> Result | None:
    """Returns the saved result of a complete run, with its final states; None if it is not."""
    files = run_dir / "config.toml", run_dir / RECORD
    if jax.process_count() > 1 or not all(file.is_file() for file in files):
        return None
    check_config(files[0], plan)
    try:
        result = load_result(run_dir)
    except ValueError as damage:
        warnings.warn(f"the result is made again from the checkpoint: {damage}", stacklevel=3)
        return None
    if progress is not False:
        print(f"{run_dir} is already finished.", file=sys.stderr)
    like = template(plan.make_learner(), plan.config, plan.worker_inits())
    found = checkpoint.restore(run_dir / "checkpoint", like, partial(parse_meta, plan))
    if not found or found[1].num_updates < plan.config.num_updates:
        return result
    state = _by_setting(plan, plan.first_workers(found[0].state))
    return dataclasses.replace(result, state=state, params=params_of(state.agent))


def _progress_bar(plan: Plan, enabled: bool | None) -> Progress:
    total_steps = plan.config.num_updates * plan.steps_per_update
    return Progress(
        plan.title, total_steps, enabled, num_runs=plan.num_runs,
        num_settings=plan.num_runs // plan.num_seeds,
    )  # fmt: skip


def _one_thread(plan: Plan) -> bool:
    """Whether matrix products on a CPU are computed on one core, because updates are small."""
    return jax.default_backend() != "cpu" or plan.steps_per_update <= SMALL_UPDATE


def _compile(plan: Plan, placement: parallel.Placement) -> Runs:
    """Compiles and initializes the runs; plans of one program are compiled once."""
    cache_key = plan.cache_key() and (plan.cache_key(), placement.num_shards)
    return Runs(
        plan.make_learner(), plan.config, plan.worker_inits(), placement, cache_key,
        one_thread=_one_thread(plan),
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


def _result(loop: TrainingLoop, eval_episodes: int, num_shards: int | None) -> Result:
    """Returns the result of complete runs, in the axes `[*sweep, seeds]`, and evaluates them."""
    plan, rows, earlier = loop.plan, loop.rows, 0.0
    if loop.directory:
        earlier = loop.directory.earlier_seconds
    seconds = earlier + time.perf_counter() - loop.started
    snapshot = loop.snapshot()
    names = rows[0][1] if rows else ()
    metrics = {name: np.stack([metrics[name] for _, metrics in rows], axis=-1) for name in names}
    states = plan.first_workers(snapshot.state)
    evaluation = None
    if eval_episodes:
        evaluation = evaluate_states(plan, states.agent, eval_episodes, num_shards=num_shards)
    state = _by_setting(plan, states)
    return Result(
        agent=plan.agent, env_id=plan.env_id, config=plan.record(), sweep=plan.sweep,
        num_seeds=plan.num_seeds, seed=plan.seed,
        steps=np.array([step for step, _ in rows], np.int64),
        metrics=_by_setting(plan, metrics), evaluation=evaluation,
        state=state, params=params_of(state.agent),
        diverged=tuple(run.record(plan) for _, run in sorted(loop.diverged.items())),
        compile_seconds=loop.runs.compile_seconds, seconds=seconds,
    )  # fmt: skip


def _by_setting(plan: Plan, tree: Any) -> Any:
    """Returns a tree with the axes `[*sweep, seeds]` for its axis of runs."""
    return jax.tree.map(lambda x: x.reshape(*plan.leading_shape, *x.shape[1:]), tree)
