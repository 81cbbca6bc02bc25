"""Runs that are killed at random moments and resumed, compared with an uninterrupted run.

    python benchmarks/faults/kills.py                     100 SIGKILLs over 6 agents
    python benchmarks/faults/kills.py --kills 12 --agents ppo,sac

Each agent trains once without an interruption. Other runs of it are killed by SIGKILL, resumed,
killed again, and so on. After `--per-run` kills a run is resumed to its end, and its metrics,
curves, evaluation and last checkpoint must have the same bytes as those of the first run. Half of
the kills are uniform over the time of a whole process, imports and compilation included, the
others over the time from its first new checkpoint to its result.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rljax.results.files import load_result

REPLAY = "--learning-starts=128 --buffer-size=512 --batch-size=16 --hidden-sizes=16"
MODELS = "--num-models=3 --num-elites=2 --model-hidden-sizes=8 --model-max-epochs=2"
RUNS = {
    "q_learning": "rljax/Maze --num-envs=2 --num-steps=8 --total-timesteps=16000 --num-seeds=4",
    "ppo": "CartPole-v1 --num-envs=2 --num-steps=16 --total-timesteps=16000 --num-seeds=2 "
    "--hidden-sizes=16",
    "dqn": f"CartPole-v1 {REPLAY} --total-timesteps=4000 --num-seeds=2 --prioritized",
    "sac": f"Pendulum-v1 {REPLAY} --total-timesteps=2000 --num-seeds=2",
    "alphazero": f"rljax/TicTacToe {REPLAY} --num-simulations=4 "
    "--num-envs=4 --num-steps=16 --total-timesteps=4000",
    "mbpo": f"Pendulum-v1 {REPLAY} {MODELS} --total-timesteps=1000",
}
HOW = "--save-seconds=0 --eval-episodes=5 --num-reports=20 --no-progress"
COMMAND = [sys.executable, "-W", "ignore", "-m", "rljax"]


def start(*words: str) -> subprocess.Popen:
    """Starts a command of rljax."""
    return subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def start_or_resume(agent: str, run_dir: Path) -> subprocess.Popen:
    """Resumes a run; starts it if it was killed before it had a config."""
    if (run_dir / "config.toml").exists():
        return start("resume", str(run_dir), "--no-progress")
    return start("train", agent, *RUNS[agent].split(), *HOW.split(), "--run-dir", str(run_dir))


def finish(process: subprocess.Popen) -> None:
    """Waits for the end of a process, and raises an error if it failed."""
    _, error = process.communicate(timeout=900)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {error}")


def checkpoints(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.glob("checkpoint/*.rljax")}


def wait_for_checkpoint(process: subprocess.Popen, run_dir: Path) -> None:
    """Waits until there is a new checkpoint, or the process ends."""
    before = checkpoints(run_dir)
    while process.poll() is None and not checkpoints(run_dir) - before:
        time.sleep(0.002)


def state_of(run_dir: Path) -> str:
    """Returns how far a killed run has come."""
    if not (run_dir / "config.toml").exists():
        return "before the start"
    if (run_dir / "result.json").exists():
        return "complete"
    return "in training" if checkpoints(run_dir) else "compiling"


def content(run_dir: Path) -> dict[str, object]:
    """Returns everything that an interruption must not change."""
    last = max(run_dir.glob("checkpoint/*.rljax"))
    files = {path.name: path.read_bytes() for path in (last, run_dir / "metrics.jsonl")}
    result = load_result(run_dir)
    evaluation = {name: x.tobytes() for name, x in (result.evaluation or {}).items()}
    config = (run_dir / "config.toml").read_bytes()
    curves = (run_dir / "curves.npz").read_bytes()
    return {**files, "curves.npz": curves, "config.toml": config, "evaluation": evaluation}


def kill_at_random(
    agent: str, run_dir: Path, times: tuple[float, float], rng: random.Random
) -> str:
    """Starts or resumes a run, kills it at a random time, and returns its state."""
    whole, training = times
    process = start_or_resume(agent, run_dir)
    if rng.random() < 0.5:
        delay = rng.uniform(0, whole)
    else:
        wait_for_checkpoint(process, run_dir)
        delay = rng.uniform(0, training)
    end = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    if process.poll() is not None:
        finish(process)
        return "ended before the kill"
    process.kill()
    process.communicate()
    return state_of(run_dir)


def uninterrupted(agent: str, run_dir: Path) -> tuple[float, float]:
    """Trains once; returns the seconds until the result from the start and from a checkpoint."""
    begin = time.time()
    process = start_or_resume(agent, run_dir)
    wait_for_checkpoint(process, run_dir)
    first = time.time()
    finish(process)
    end = (run_dir / "result.json").stat().st_mtime
    return end - begin, end - first


def measure(agent: str, kills: int, per_run: int, parent: Path, rng: random.Random) -> bool:
    """Kills runs of an agent `kills` times, prints a row, and returns whether all were equal."""
    times = uninterrupted(agent, parent / "whole")
    expected = content(parent / "whole")
    states, equal, runs, wrong = Counter(), 0, 0, set()
    while (left := kills - sum(states.values())) > 0:
        run_dir = parent / f"run-{runs}"
        done = Counter()
        for _ in range(100):
            if sum(done.values()) >= min(per_run, left):
                break
            state = kill_at_random(agent, run_dir, times, rng)
            done[state] += state != "ended before the kill"
            if state in ("complete", "ended before the kill"):
                break
        finish(start_or_resume(agent, run_dir))
        found = content(run_dir)
        different = {name for name in expected if found.get(name) != expected[name]}
        runs, equal, wrong = runs + 1, equal + (not different), wrong | different
        states += done
        shutil.rmtree(run_dir)
    phases = ", ".join(f"{number} {state}" for state, number in sorted(states.items()) if number)
    print(f"{agent:<12}{sum(states.values()):>6}{runs:>6}{equal:>7}   {phases}", flush=True)
    if wrong:
        print(f"  different: {', '.join(sorted(wrong))}", flush=True)
    return not wrong


def main() -> int:
    """Prints a row for each agent; returns 1 if a run was different."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="number of SIGKILLs of all agents")
    parser.add_argument("--per-run", type=int, default=3, help="SIGKILLs of one run")
    parser.add_argument("--agents", default=",".join(RUNS), help="agents, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the times")
    options = parser.parse_args()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/rljax-kills")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    agents, rng = options.agents.split(","), random.Random(options.seed)
    print(f"{'agent':<12}{'kills':>6}{'runs':>6}{'equal':>7}   state at the kill")
    all_equal = True
    for i, agent in enumerate(agents):
        kills = options.kills // len(agents) + (i < options.kills % len(agents))
        with tempfile.TemporaryDirectory() as parent:
            all_equal &= measure(agent, kills, options.per_run, Path(parent), rng)
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
