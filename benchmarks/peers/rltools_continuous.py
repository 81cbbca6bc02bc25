"""RLtools' SAC, TD3 or PPO on its own Pendulum, in C++: `--algorithm sac`, `td3` or `ppo`.

Seeds are trained one after the other, in `--processes` processes with a share of the seeds each.
RLtools multiplies matrices with MKL on one thread; RL_TOOLS_DISABLE_MKL=1 selects the BLAS of the
system. Pendulum is as in Gymnasium, with actions in [-1, 1]; time limits are truncations.
"""

import contextlib
import multiprocessing
import os
import sys
import time
from pathlib import Path

import common
import continuous_common
import numpy as np
import rltools

HEADER = """
#include <rl_tools/rl/environments/pendulum/operations_cpu.h>

template <typename T, typename TI>
using ENVIRONMENT_FACTORY = rl_tools::rl::environments::Pendulum<
    rl_tools::rl::environments::pendulum::Specification<
        T, TI, rl_tools::rl::environments::pendulum::DefaultParameters<T>>>;
"""


def main():
    options = common.options(
        "RLtools' SAC, TD3 and PPO",
        algorithm={"choices": ("sac", "td3", "ppo"), "default": "sac"},
        processes={"type": int, "default": 1, "help": "processes side by side (1)"},
    )
    for library in ("MKL", "OMP", "OPENBLAS"):  # before the BLAS is loaded
        os.environ[f"{library}_NUM_THREADS"] = "1"
    with common.Clock() as compiling:
        compiled(options.algorithm, options.timesteps)
    shares = [
        (options.algorithm, options.timesteps, range(options.num_seeds)[i :: options.processes])
        for i in range(options.processes)
    ]
    clocks = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for _ in range(options.runs):
            starts, ends, cpu_seconds, returns = zip(*pool.map(train, shares, 1), strict=True)
            clock = common.Clock()
            clock.wall, clock.cpu = max(ends) - min(starts), sum(cpu_seconds)
            clocks.append(clock)
    common.answer(
        options.num_seeds * options.timesteps, clocks, compiling,
        final_return=float(np.concatenate(returns).mean()),
        versions=common.versions("rltools", "mkl"), backend="C++", device="cpu",
        num_devices=options.processes,
    )  # fmt: skip


def compiled(algorithm: str, timesteps: int):
    """Returns RLtools' module for the configuration, compiled at the first call."""
    stock = continuous_common.STOCK["rltools"][algorithm]
    folder = Path(rltools.CACHE_PATH) / "pendulum"
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "environment.h"
    if not header.exists():
        header.write_text(HEADER, encoding="utf-8")
    units, activation = stock["hidden_sizes"][0], stock["activation"].upper()
    options = {
        "interface_name": "benchmark", "enable_evaluation": False, "GAMMA": stock["gamma"],
        "ACTOR_HIDDEN_DIM": units, "ACTOR_ACTIVATION_FUNCTION": activation,
        "CRITIC_HIDDEN_DIM": units, "CRITIC_ACTIVATION_FUNCTION": activation,
    }  # fmt: skip
    if algorithm == "ppo":
        rollout = stock["num_envs"] * stock["num_steps"]
        options |= {
            "STEP_LIMIT": timesteps // rollout, "N_ENVIRONMENTS": stock["num_envs"],
            "ON_POLICY_RUNNER_STEPS_PER_ENV": stock["num_steps"],
            "BATCH_SIZE": rollout // stock["num_minibatches"], "N_EPOCHS": stock["update_epochs"],
            "LAMBDA": stock["gae_lambda"], "EPSILON_CLIP": stock["clip_eps"],
            "ACTION_ENTROPY_COEFFICIENT": stock["ent_coef"], "INITIAL_ACTION_STD": 1.0,
            "NORMALIZE_OBSERVATIONS": stock["normalize_obs"],
            "OPTIMIZER_ALPHA": stock["learning_rate"],
        }  # fmt: skip
    else:
        options |= {
            "STEP_LIMIT": timesteps, "REPLAY_BUFFER_CAP": stock["buffer_size"],
            "N_WARMUP_STEPS": stock["learning_starts"], "CRITIC_POLYAK": 1.0 - stock["tau"],
            "ACTOR_BATCH_SIZE": stock["batch_size"], "CRITIC_BATCH_SIZE": stock["batch_size"],
            "OPTIMIZER_ALPHA": stock["actor_learning_rate"],
        }  # fmt: skip
    make = {"sac": rltools.SAC, "td3": rltools.TD3, "ppo": rltools.PPO}[algorithm]
    with contextlib.redirect_stdout(sys.stderr):
        return make({"path": str(folder), "action_dim": 1, "observation_dim": 3}, **options)


def train(share):
    """Trains some seeds. Returns start and end of the clock, CPU seconds and final returns."""
    algorithm, timesteps, seeds = share
    os.dup2(2, 1)  # RLtools prints its progress; standard output is for the answer
    module = compiled(algorithm, timesteps)
    clock, start = common.Clock(), time.perf_counter()
    states = []
    with clock:
        for seed in seeds:
            states.append(module.State(seed))
            while not states[-1].step():
                pass
    return start, start + clock.wall, clock.cpu, [mean_return(state) for state in states]


def mean_return(state, episodes: int = 100) -> float:
    """Returns the mean return of the greedy policy in Pendulum."""
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-np.pi, np.pi, episodes), rng.uniform(-1, 1, episodes)
    total = 0.0
    for _ in range(200):
        obs = np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype(np.float32)
        torque = 2 * np.clip([state.action(x)[0] for x in obs], -1, 1)
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        total -= np.mean(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed = np.clip(speed + 0.05 * (15 * np.sin(angle) + 3 * torque), -8, 8)
        angle = angle + 0.05 * speed
    return float(total)


if __name__ == "__main__":
    main()
