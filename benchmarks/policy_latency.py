"""Time of `policy(obs)` for one observation on a CPU, beside the jitted network alone.

    python benchmarks/policy_latency.py

The network alone is the same greedy policy as a jitted function that takes its parameters and a
NumPy observation, and is waited for. Each number is the smallest mean of short repetitions, which
alternate between the two functions.
"""

import argparse
import os
import time
from functools import partial

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

import rljax

CALLS, REPETITIONS = 20, 2000  # a repetition is shorter than the slice of another process
CASES = {
    "ppo, discrete": ("ppo", "CartPole-v1", {}),
    "ppo, recurrent": ("ppo", "CartPole-v1", {"memory": "gru"}),
    "ppo, continuous, normalized": ("ppo", "Pendulum-v1", {"normalize_obs": True}),
    "dqn": ("dqn", "CartPole-v1", {}),
    "sac": ("sac", "Pendulum-v1", {}),
    "q_learning": ("q_learning", "rljax/Maze", {}),
}


def mean_seconds(call):
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS


def latencies(agent, env, options):
    """Returns the microseconds of the network alone, and of the policy."""
    run = rljax.train(agent, env, total_timesteps=4096, eval_episodes=0, progress=False, **options)
    policy = run.policy()
    program, key = policy.program, jax.random.key(0)
    params, memory = tuple(program.params.values()), program.memory

    @jax.jit
    def network(params, obs):
        first = None if memory is None else memory[None]
        return program.act(params, obs[None], first, key)

    obs = np.zeros(program.obs.shape, program.obs.dtype)
    calls = [
        lambda: jax.block_until_ready(network(params, obs)),
        partial(policy, obs),
    ]
    seconds = [[mean_seconds(call) for call in calls] for _ in range(REPETITIONS)]
    return 1e6 * np.min(seconds, axis=0)


def main():
    """Prints one line for each case."""
    argparse.ArgumentParser(description="Time of `policy(obs)` on a CPU.").parse_args()
    print(f"{'policy':<30}{'network':>10}{'policy(obs)':>14}{'difference':>13}   microseconds")
    for name, case in CASES.items():
        network, policy = latencies(*case)
        print(f"{name:<30}{network:>10.1f}{policy:>14.1f}{policy - network:>13.1f}")


if __name__ == "__main__":
    main()
