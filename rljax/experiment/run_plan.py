"""Training of a plan from start to end, with its files, signals and evaluation."""

import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax.envs import host
from rljax.experiment import saved as saved_files
from rljax.experiment.directory import RunDirectory, check_config, restore, storing
from rljax.experiment.evaluator import Evaluator
from rljax.experiment.initial_params import checked_agent_states, start_from
from rljax.experiment.lengthen import warn_of_schedules
from rljax.experiment.loop import TrainingLoop
from rljax.experiment.plan import Plan
from rljax.experiment.progress import Progress
from rljax.experiment.report import OnReport
from rljax.experiment.saved import Saved
from rljax.experiment.selection import Selected, Selection
from rljax.experiment.signals import complete_hint, interruptible, resume_hint
from rljax.experiment.writers import check_size, check_writers, open_writers, writer_record
from rljax.ops.platform import SMALL_UPDATE
from rljax.ops.precision import in_32_bits
from rljax.results.files import load_result
from rljax.results.result import Result
from rljax.results.storage import RECORD
from rljax.training import distributed, parallel
from rljax.training.batching import over_runs
from rljax.training.runs import Runs
from rljax.types import params_of

MAX_EVAL_EPISODES = 10**6  # of each policy
MAX_WIDTH = 5  # runs with networks that a core trains side by side; more do not fit its cache
WIDE = 256  # units from which on matrix products of small updates are faster on all cores


@in_32_bits
def run_plan(
    plan: Plan, run_dir: str | Path | None = None, *, eval_episodes: int = 100,
    progress: bool | None = None, writers: Any = ("jsonl",), save_seconds: float = 30.0,
    resume: bool = False, on_report: OnReport | None = None, initial_params: Any = None,
) -> Result:  # fmt: skip
    """Trains, evaluates and saves a plan; arguments and errors are those of `train`."""
    eval_episodes, progress, writers, save_seconds = check_options(
        plan, run_dir, eval_episodes, progress, writers, save_seconds
    )
    run_dir = None if run_dir is None else Path(run_dir)
    if resume and run_dir is None:
        raise ValueError("`resume` is True, but `run_dir` is None: pass the directory of the run.")
    if resume and run_dir and (result := _complete_result(plan, run_dir, progress)):
        return result
    if resume and run_dir and (run_dir / "config.toml").is_file():
        old_steps = int(configs.load(run_dir / "config.toml").get("total_timesteps", 0))
        if 0 < old_steps < plan.config.total_timesteps:
            warn_of_schedules(plan, old_steps)
    start = None
    if initial_params is not None and not resume:
        start = checked_agent_states(plan, initial_params)
    how: dict[str, Any] = {"eval_episodes": eval_episodes, "save_seconds": save_seconds}
    how["writers"] = [writer_record(writer) for writer in writers]
    with distributed.monitored(resume_hint(run_dir)), ExitStack() as on_exit:
        is_first = distributed.is_first()
        directory = None
        if run_dir and is_first:
            directory = on_exit.enter_context(RunDirectory(run_dir, plan, how, resume))
        bar = on_exit.enter_context(_progress_bar(plan, progress if is_first else False))
        together = jax.process_count() > 1  # the processes agree on signals between chunks
        interrupt = on_exit.enter_context(interruptible(resume_hint(run_dir), waits=together))
        before = directory.num_shards if directory else None  # the shards affect the last bits
        has_network = hasattr(plan.config, "hidden_sizes")
        max_width = MAX_WIDTH if has_network and plan.env.batch is None else None
        placement = parallel.place(plan.num_runs, before, plan.workers, max_width)
        runs = _compile(plan, placement)
        best, saved = restore(directory, plan, runs)
        if start is not None:
            start_from(plan, runs, *start)
        if plan.env.batch is not None:
            if 0 < saved.num_updates < plan.config.num_updates:
                _reset_environments(plan, runs)
            on_exit.callback(host.close, runs.snapshot().state.env)
        first_step = saved.num_updates * plan.steps_per_update
        bar.compiled(runs.compile_seconds, first_step, runs.num_bytes)
        with storing(run_dir):
            if directory:
                directory.start(placement, saved.num_updates, _one_thread(plan, placement))
            path = directory.path if directory else None
            opened = on_exit.enter_context(
                open_writers(writers if is_first else (), path, saved.rows, plan)
            )
        num_shards = None if plan.workers > 1 else placement.num_shards
        selection = _selection(plan, runs, eval_episodes, num_shards, saved, best)
        rows = [(step, dict(row)) for step, row in saved.rows]
        loop = TrainingLoop(
            plan, runs, run_dir, directory, opened, bar, interrupt, save_seconds, rows,
            saved.num_updates, _stopped(plan, runs, saved), selection, on_report,
        )  # fmt: skip
        with interrupt.waiting():
            loop.run()
        result = _result(loop, eval_episodes, num_shards)
        if directory:
            with interrupt.waiting(), storing(run_dir):
                result.save(directory.path)
                result.plot(directory.path / "curve.png")
                directory.write_readme(plan.title)
                interrupt.saved = complete_hint(run_dir)
        return result


def check_options(
    plan: Plan, run_dir: Any, eval_episodes: Any = 100, progress: Any = None,
    writers: Any = ("jsonl",), save_seconds: Any = 30.0,
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
    if plan.eval_interval and not eval_episodes:
        raise ValueError(
            f"`eval_episodes` is 0, but `eval_interval` is {plan.eval_interval}: set the number of "
            "episodes, or leave `eval_interval` out."
        )
    writers = check_writers(writers, run_dir)
    check_size(writers, plan)
    return eval_episodes, progress, writers, save_seconds


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
    if result.config["total_timesteps"] < plan.config.total_timesteps:
        return None
    if progress is not False:
        print(f"{run_dir} is already finished.", file=sys.stderr)
    found = saved_files.load(run_dir / "checkpoint", plan)
    if not found or not found[1].is_complete(plan):
        return result
    return saved_files.with_states(result, plan, found[0])


def _selection(
    plan: Plan, runs: Runs, num_episodes: int, num_shards: int | None, saved: Saved, best: Any
) -> Selection | None:
    """Returns the evaluation during training, with the best policies up to a checkpoint."""
    if not plan.eval_interval:
        return None
    selected = None if best is None else Selected(best, saved.best_score, saved.best_step)
    return Selection(plan, runs, num_episodes, num_shards, selected)


def _stopped(plan: Plan, runs: Runs, saved: Saved) -> np.ndarray:
    """Returns the steps at which runs stopped before a checkpoint, `[R]`, and holds those runs."""
    if saved.stopped is None:
        return np.full(plan.num_runs, np.nan)
    runs.hold(np.repeat(~np.isnan(saved.stopped), plan.workers))
    return saved.stopped


def _progress_bar(plan: Plan, enabled: bool | None) -> Progress:
    return Progress(
        plan.title, plan.total_steps, enabled, num_runs=plan.num_runs,
        num_settings=plan.num_runs // plan.num_seeds,
    )  # fmt: skip


def _one_thread(plan: Plan, placement: parallel.Placement) -> bool:
    """Whether matrix products on a CPU are computed on one core.

    They are if updates are small. A single run with wide layers uses all cores instead, which are
    idle otherwise.
    """
    if jax.default_backend() != "cpu":
        return True
    sizes = [
        getattr(plan.config, name) for name in configs.field_types(plan.row.config)
        if name.endswith("hidden_sizes")
    ]  # fmt: skip
    is_wide = max((size for each in sizes for size in each), default=0) >= WIDE
    is_alone = placement.num_shards == 1
    return plan.steps_per_update <= SMALL_UPDATE and not (is_wide and is_alone)


def _compile(plan: Plan, placement: parallel.Placement) -> Runs:
    """Compiles and initializes the runs; plans of one program are compiled once."""
    cache_key = plan.cache_key() and (plan.cache_key(), placement.num_shards)
    return Runs(
        plan.make_learner(), plan.program_config, plan.worker_inits(), placement, cache_key,
        one_thread=_one_thread(plan, placement),
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
    plan, rows, earlier = loop.plan, loop.all_rows(), 0.0
    if loop.directory:
        earlier = loop.directory.earlier_seconds
    seconds = earlier + time.perf_counter() - loop.started
    snapshot = loop.snapshot()
    names = rows[0][1] if rows else ()
    metrics = {name: np.stack([metrics[name] for _, metrics in rows], axis=-1) for name in names}
    states = plan.first_workers(snapshot.state)
    evaluation, best = None, None
    if eval_episodes:
        selection = loop.selection
        evaluator = selection.evaluator if selection else None
        evaluator = evaluator or Evaluator(plan, eval_episodes, num_shards=num_shards)
        evaluation = plan.by_setting(evaluator(states.agent))
        if selection is not None:
            best = selection.result()
    state = plan.by_setting(states)
    stopped = None if np.isnan(loop.stopped).all() and plan.stop_at is None else loop.stopped
    return Result(
        agent=plan.agent, env_id=plan.env_id, config=plan.record(), sweep=plan.sweep,
        num_seeds=plan.num_seeds, seed=plan.seed,
        steps=np.array([step for step, _ in rows], np.int64),
        metrics=plan.by_setting(metrics), evaluation=evaluation,
        state=state, params=params_of(state.agent), plan=plan, best=best,
        stopped=None if stopped is None else plan.by_setting(stopped),
        diverged=tuple(run.record(plan) for _, run in sorted(loop.diverged.items())),
        compile_seconds=loop.runs.compile_seconds, seconds=seconds,
    )  # fmt: skip
