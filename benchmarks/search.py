"""Tree search: steps per second of alphazero and muzero, beside mctx called alone.

    python benchmarks/search.py
    python benchmarks/search.py --simulations 16,64 --output search.md

`mctx alone` is the same search by hand: the same network and environment, without an agent, its
training loop, or random numbers for an environment that needs none.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from lib import harness
from lib.harness import Table, rate, span

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

from rljax.agents.search import QTRANSFORM
from rljax.experiment.make_plan import make_plan
from rljax.networks.actor_critic import actor_critic_network
from rljax.networks.masking import masked

NUM_ENVS, NUM_STEPS = 64, 8
CASES = (
    ("alphazero", "rljax/TicTacToe"),
    ("alphazero", "rljax/ConnectFour"),
    ("muzero", "CartPole-v1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=harness.names, default=("16", "32", "64"))
    parser.add_argument("--turns", type=int, default=5, help="timed turns of each (5)")
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the table")
    options = parser.parse_args()
    table = Table(
        "Search", f"{NUM_ENVS} environments; one search and one step of each counts as "
        f"{NUM_ENVS} steps. {options.turns} turns, alternating.",
        "agent", "environment", ">simulations", ">steps/s", ">min - max", ">mctx alone", ">of it",
        ">min - max",
    )  # fmt: skip
    for agent, env_id in CASES:
        for simulations in map(int, options.simulations):
            table.add(
                agent, env_id, str(simulations), *measure(agent, env_id, simulations, options.turns)
            )
    print(table.text())
    line = f"{jax.device_count()} x {jax.default_backend()}, jax {jax.__version__}"
    harness.write(options.output, "Tree search", line, [table])


def measure(name: str, env_id: str, simulations: int, turns: int) -> list[str]:
    """Returns the cells of one row."""
    settings: dict[str, Any] = {"num_envs": NUM_ENVS, "num_simulations": simulations}
    plan = make_plan(name, env_id, **settings)
    env = plan.build_env(NUM_ENVS)
    agent = plan.make_agent(plan.config, env)
    state = jax.jit(agent.init)(jax.random.key(0))
    ours = played(env, lambda obs, key: agent.act(state, obs, key)[0])
    seconds = [timed(ours) for _ in range(turns)] if name == "muzero" else []
    if name == "muzero":  # its search calls mctx with the learned model alone
        rates = [NUM_ENVS * NUM_STEPS / s for s in seconds]
        return [*span(rates), "", "", ""]
    alone = played(env, by_hand(plan, env, state.learned.target_params))
    pairs = [(timed(ours), timed(alone)) for _ in range(turns)]
    first, second = (NUM_ENVS * NUM_STEPS / np.array(column) for column in zip(*pairs, strict=True))
    return [*span(first), rate(float(np.median(second))), *span(first / second, "{:.2f}".format)]


def by_hand(plan: Any, env: Any, params: Any) -> Callable[..., Any]:
    """Returns the search of the agent, written for this game alone: `(obs, key) -> action`."""
    config, game = plan.config, env.spec.simulator
    network = masked(
        actor_critic_network(env.spec, config.hidden_sizes, config.activation), env.spec
    )

    def step(params, key, action, state):
        state, step = jax.vmap(game.step)(state, action, jnp.broadcast_to(key, action.shape))
        policy, value = network.apply(params, step.next_obs)
        output = mctx.RecurrentFnOutput(
            reward=step.reward, discount=jnp.where(step.terminated, 0.0, -1.0),
            prior_logits=policy.logits, value=jnp.where(step.terminated, 0.0, value),
        )  # fmt: skip
        return output, state

    def search(obs, key):
        policy, value = network.apply(params, obs.obs)
        root = mctx.RootFnOutput(prior_logits=policy.logits, value=value, embedding=obs.state)
        return mctx.gumbel_muzero_policy(
            params, key, root, step, config.num_simulations, ~obs.obs["legal"],
            qtransform=QTRANSFORM, max_num_considered_actions=config.num_considered_actions,
        ).action  # fmt: skip

    return search


def played(env: Any, act: Callable[..., Any]) -> Callable[[], Any]:
    """Returns a compiled function that plays `NUM_STEPS` steps."""

    @jax.jit
    def play(key):
        reset_key, key = jax.random.split(key)

        def step(carry, noise):
            env_state, obs = carry
            key, env_noise = noise
            env_state, step = env.step(env_state, act(obs, key), env_noise)
            return (env_state, step.obs), step.reward

        noise = jax.random.split(key, NUM_STEPS), env.sample_noise(key, NUM_STEPS)
        return jax.lax.scan(step, env.reset(reset_key), noise)[1]

    jax.block_until_ready(play(jax.random.key(0)))
    return lambda: jax.block_until_ready(play(jax.random.key(1)))


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
