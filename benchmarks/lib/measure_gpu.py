"""The process that gpu.py measures in: it reads one case a line and answers each in JSON.

A case is `{"program": ..., "seconds": ..., "runs": ..., ...}` with the arguments of the program:

train    the training loop of an agent, advanced in chunks as in `rljax.train`
peer     the plain PPO of peers/plain_ppo.py, a scan over `chunk` updates in each call
replay   a cycle of prioritized replay: add 64, sample 256, reprioritize 256
reach    a whole call of `rljax.train` until the return of training episodes reaches `target`
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/, for `peers`
import kernels
import measure
import measure_replay
from peers import common, plain_ppo, replay_common

TRACED_UPDATES, TRACED_SECONDS = 16, 0.2


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # libraries that print do not disturb the answers
    os.dup2(2, 1)
    warm_up()
    print(json.dumps(measure.facts()), file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        program = {"train": train, "peer": peer, "replay": replay, "reach": reach}
        try:
            answer = program[case.pop("program")](**case)
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            answer = {"failed": f"{type(error).__name__}: {first[0][:200] if first else ''}"}
        print(json.dumps(answer), file=answers, flush=True)


def warm_up() -> None:
    """Imports what every program needs and starts the device: no clock should contain it."""
    import distrax  # noqa: F401

    import rljax.agents
    import rljax.experiment.make_plan  # noqa: F401

    square = jax.random.normal(jax.random.key(0), (64, 64))
    jax.block_until_ready(square @ square)


def train(
    agent: str, env_id: str, num_seeds: int, fields: dict[str, Any], seconds: float, runs: int,
    traced: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Times the training loop of an agent in steady state, and counts its kernels."""
    from rljax.training import parallel

    compiled = []
    compile_lowered = parallel.compile_lowered

    def keep(*args):
        compiled.append(compile_lowered(*args))
        return compiled[-1]

    with mock.patch.object(parallel, "compile_lowered", keep):
        plan, work, compiling = measure.compiled_runs(agent, env_id, num_seeds, **fields)
    text = compiled[-1][0].as_text()

    def advance(count):
        return jax.block_until_ready(work.advance(count))

    steps = plan.num_runs * plan.steps_per_update
    advance(2 + getattr(plan.config, "learning_starts", 0) // plan.steps_per_update)
    return steady_state(advance, steps, compiling, text, seconds, runs, traced)


def peer(
    env_id: str, fields: dict[str, Any], chunk: int, seconds: float, runs: int, traced: bool = True
) -> dict[str, Any]:
    """Times plain PPO: each call is one scan over `chunk` updates."""
    config = common.STOCK | fields | {"env_id": env_id}
    steps = config["num_envs"] * config["num_steps"]
    with common.Clock() as compiling:
        init, update = plain_ppo.make(config, 2**30 // steps)

        def updates(state):
            return jax.lax.scan(update, state, None, chunk)

        state = jax.block_until_ready(jax.jit(init)(jax.random.key(0)))
        program = jax.jit(updates, donate_argnums=0).lower(state).compile()

    def advance(count):
        nonlocal state
        for _ in range(count):
            state, _ = program(state)
        jax.block_until_ready(state)

    text = program.as_text()
    return steady_state(advance, steps, compiling, text, seconds, runs, traced, chunk)


def steady_state(
    advance: Any, steps: int, compiling: common.Clock, text: str, seconds: float, runs: int,
    traced: bool, chunk: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Times `advance(count)` of `chunk` updates each, and summarizes a trace of some updates."""
    options = SimpleNamespace(seconds=seconds, runs=runs)
    clocks, count = measure.in_chunks(advance, options)
    wall = float(np.median([clock.wall for clock in clocks])) / (count * chunk)
    answer = {
        "compile_seconds": compiling.wall, "steps_per_update": steps, "update_seconds": wall,
        "steps_per_second": [steps * chunk * count / clock.wall for clock in clocks],
        **kernels.static_counts(text),
    }  # fmt: skip
    if traced:
        try:
            answer |= profile(advance, wall, text, chunk)
        except Exception as error:  # the times are worth more than the trace
            answer["trace_failed"] = f"{type(error).__name__}: {error}"
    return answer


def profile(advance: Any, wall: float, text: str, chunk: int = 1) -> dict[str, Any]:
    """Returns the summary of a trace of at most `TRACED_UPDATES` updates or `TRACED_SECONDS`."""
    wanted = min(TRACED_UPDATES, TRACED_SECONDS / wall)
    count = max(1, int(wanted / chunk))
    events = kernels.trace(lambda: advance(count))
    return kernels.summary(events, count * chunk, text)


def replay(capacity: int, calls: int, runs: int, seconds: float) -> dict[str, Any]:
    """Times cycles of prioritized replay in one scan, and counts the kernels of one cycle."""
    del seconds
    state, add, sample, reprioritize = measure_replay.functions(capacity)
    options = SimpleNamespace(operation="cycle", capacity=capacity, calls=calls, runs=runs)
    with common.Clock() as everything:
        clocks = replay_common.time_jax(
            options, jax.tree.map(jnp.copy, state), add, sample, reprioritize
        )
    spent = sum(clock.wall for clock in clocks)

    def cycle(state, key, td_error):
        items = replay_common.item(jnp.ones)
        items = jax.tree.map(lambda x: jnp.stack([x] * replay_common.ADD), items)
        state = add(state, items)
        batch, indices = sample(state, key)
        return reprioritize(state, indices, td_error), batch

    inputs = jax.random.key(0), jnp.ones(replay_common.BATCH)
    program = jax.jit(cycle, donate_argnums=0).lower(state, *inputs).compile()

    def advance(count):
        nonlocal state
        for _ in range(count):
            state, batch = program(state, *inputs)
        jax.block_until_ready((state, batch))

    advance(1)
    text, wall = program.as_text(), spent / (calls * len(clocks))
    return {
        "compile_seconds": None, "fill_and_compile_seconds": everything.wall - spent,
        "steps_per_second": [calls / clock.wall for clock in clocks], "update_seconds": wall,
        **kernels.static_counts(text), **profile(advance, wall, text),
    }  # fmt: skip


def reach(
    env_id: str, target: float, fields: dict[str, Any], seconds: float, runs: int
) -> dict[str, Any]:
    """Times `rljax.train` with PPO until the mean return of training episodes is `target`."""
    import rljax

    del seconds, runs
    reached: list[tuple[int, float, float]] = []
    start = time.perf_counter()

    def on_report(report):
        mean = report.metrics["charts/episodic_return"].item()
        if mean >= target:
            reached.append((report.step, time.perf_counter() - start, mean))
        return bool(reached)

    result = rljax.train(
        "ppo", env_id, progress=False, eval_episodes=0, num_reports=100, on_report=on_report,
        **fields,
    )  # fmt: skip
    if not reached:
        best = float(np.nanmax(result.returns))
        return {"failed": f"{int(result.steps[-1]):,} steps reached a return of {best:.0f}"}
    step, wall, mean = reached[0]
    return {
        "steps": step, "seconds": wall, "return": mean, "compile_seconds": result.compile_seconds,
        "seconds_without_compiling": wall - result.compile_seconds,
    }  # fmt: skip


if __name__ == "__main__":
    main()
