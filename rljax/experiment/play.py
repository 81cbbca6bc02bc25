"""`rljax play`: a person plays a game of two players against a trained policy, in a terminal."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import envs
from rljax.config import convert
from rljax.envs.mcts import legal_actions
from rljax.experiment.evaluation import load_run, with_simulations
from rljax.experiment.evaluator import acting_part
from rljax.experiment.plan import Plan
from rljax.ops.precision import in_32_bits
from rljax.ops.random import checked_seed, seed_key
from rljax.training import acting
from rljax.types import Env, EnvSpec, Key, PyTree, RecurrentObs, StateObs, sample_one

NUM_SHOWN = 9  # moves in the table of a search
LAST_MOVES = {
    "pgx/go_9x9": "pass",
    "pgx/go_19x19": "pass",
    "pgx/othello": "pass",
    "pgx/hex": "swap",
}


class Turn(NamedTuple):
    """A position of a game.

    Attributes:
      state: state of the game.
      obs: observation of the player to act.
    """

    state: PyTree
    obs: PyTree


@in_32_bits
def play(
    run_dir: str | Path, *, run: Any = 0, best: Any = False, first: Any = True, seed: Any = 0,
    num_simulations: Any = None, env: Any = None, read: Callable[[str], str] = input,
    write: Callable[[str], Any] = print, **pieces: Any,
) -> int | None:  # fmt: skip
    """Plays one game against the greedy policy of a run.

    After each move of a policy that searches, shows what the search found: the improved policy, the
    share of the visits, and the action values. The run is one of a game of two players, or of such
    a game against an opponent.

    Args:
      run_dir: run directory of `rljax.train`.
      run: index of the run among settings and seeds; seeds vary fastest.
      best: play against the best policy by the evaluation during training (`eval_interval`).
      first: the person moves first.
      seed: random seed of the policy.
      num_simulations: simulations of each search of the policy; None takes as many as in training.
      env: the game, if it is your own object.
      read: returns the answer to a question.
      write: shows a text.
      pieces: the pieces that the run was made with, such as `network=`, and `agent=` if it is
        your own.

    Returns:
      1 if the person wins, 0 for a draw, -1 if the policy wins; None for a game that was quit.

    Raises:
      ValueError: there is no such run or no checkpoint yet, the run is not of a game of two
        players with a text form, or `num_simulations` is given and the agent does not search.

    Example:
      >>> import rljax, tempfile
      >>> run_dir = tempfile.mkdtemp() + "/run"
      >>> result = rljax.train(
      ...     "alphazero", "rljax/TicTacToe", run_dir=run_dir, total_timesteps=256, num_envs=8,
      ...     num_steps=8, learning_starts=128, num_simulations=4, eval_episodes=0,
      ...     progress=False,
      ... )
      >>> play(run_dir, read=lambda question: "q", write=lambda text: None)
    """
    seed, first = checked_seed(seed), convert("first", first, bool)
    best = convert("best", best, bool)
    plan, index, state = load_run(run_dir, run, env, best, **pieces)
    plan = with_simulations(plan, num_simulations)
    key = seed_key(seed)
    return _play(game_of(plan, env), policy(plan, index, state), key, first, read, write)


def game_of(plan: Plan, env: Any = None) -> Env:
    """Returns the game of two players of a plan; its `step` does not reset.

    Raises:
      ValueError: it has one player, no text form, or resets itself by other means.
    """
    params = {name: value for name, value in plan.env_params.items() if name != "opponent"}
    made = envs.make(plan.env_id if env is None else env, **params)
    if made.spec.num_players != 2 or made.before_reset is None:
        raise ValueError(
            f"`rljax play` needs a game of two players, but {plan.env_id} is none: `rljax watch` "
            "shows an episode."
        )
    if made.render is None:
        raise ValueError(
            f"{plan.env_id} has no text form, so it cannot be played in a terminal: `rljax "
            f"evaluate` plays it against an opponent."
        )
    return made.before_reset


def policy(plan: Plan, index: int, state: PyTree) -> Callable[[Turn, Any, Key], Any]:
    """Returns the greedy policy of one run, `(turn, memory, key) -> action, memory, search`.

    The memory is None before the first move, and for agents without one. The search is None for
    agents that do not plan.
    """
    initial = plan.row.initial_memory(plan.config, plan.env.spec)
    agent = plan.make_agent(plan.config_of(index), plan.env)
    part = acting_part(plan)
    kept = acting.keep(state, part.leaves)

    @jax.jit
    def choose(turn, memory, key):
        state = acting.restore(kept, *part)
        obs = StateObs(turn.obs, turn.state) if plan.row.plans_ahead else turn.obs
        if initial is not None:
            obs = RecurrentObs(obs, initial if memory is None else memory)
        obs = jax.tree.map(lambda x: x[None], obs)
        if agent.search is not None:
            search = jax.tree.map(lambda x: x[0], agent.search(state, obs, key))
            return search.action, None, search
        action = jax.tree.map(lambda x: x[0], agent.greedy(state, obs, key))
        return (action, None, None) if initial is None else (*action, None)

    return choose


def _play(
    game: Env, choose: Callable[..., Any], key: Key, first: bool, read: Callable[[str], str],
    write: Callable[[str], Any],
) -> int | None:  # fmt: skip
    """Plays a game until it ends or the person quits; returns as `play`."""
    step, memory = jax.jit(game.step), None
    turn = Turn(*jax.jit(game.reset)(jax.random.fold_in(key, 0)))
    write(f"you are {'x' if first else 'o'}\n" + board(game, turn.state))
    for time in itertools.count(1):
        act_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        is_person = (time % 2 == 1) == first
        if is_person:
            action = _ask(game.spec, turn, read, write)
            if action is None:
                return None
        else:
            action, memory, search = choose(turn, memory, act_key)
            action = int(action)
            write(f"the policy plays {named(game.spec, action)}" + values(game.spec, search))
        noise = sample_one(game.sample_noise, env_key)
        state, result = step(turn.state, jnp.int32(action), noise)
        turn = Turn(state, result.next_obs)
        write("\n" + board(game, state))
        if result.terminated | result.truncated:
            outcome = int(jnp.sign(result.reward)) * (1 if is_person else -1)
            write({1: "you win", 0: "draw", -1: "the policy wins"}[outcome])
            return outcome


def _ask(
    spec: EnvSpec, turn: Turn, read: Callable[[str], str], write: Callable[[str], Any]
) -> int | None:
    """Asks for a legal move until there is one; None quits."""
    is_legal = np.asarray(legal_actions(spec, turn.obs))
    legal = ranges(np.flatnonzero(is_legal).tolist())
    last = spec.num_actions - 1
    if spec.env_id in LAST_MOVES and is_legal[last]:
        legal += f" ({last} is {LAST_MOVES[spec.env_id]})"
    while True:
        try:
            answer = read(f"your move, {legal}, or q to quit: ").strip()
        except EOFError:
            return None
        if answer.lower() in ("q", "quit"):
            return None
        if answer.isdecimal() and int(answer) <= last and is_legal[int(answer)]:
            return int(answer)
        write(f"`{answer}` is not a legal move: the legal moves are {legal}.")


def board(game: Env, state: PyTree) -> str:
    """Returns a game as text, with the numbers of the moves at its edges.

    A move is the number of a column, or the sum of the numbers of a row and a column.

    Example:
      >>> game = envs.make("rljax/TicTacToe").before_reset
      >>> state, _ = game.step(game.reset(None)[0], 4, None)
      >>> print(board(game, state))  # doctest: +NORMALIZE_WHITESPACE
            0 1 2
         0  . . .
         3  . x .
         6  . . .
    """
    assert game.render is not None
    rows = game.render(state).split("\n")
    width = len(rows[0].split())
    columns = " ".join(str(column)[-1] for column in range(width))
    if game.spec.num_actions == width:
        return "\n".join(["  " + columns, *("  " + row for row in rows)])
    labels = [f"{row * width:>4}  " for row in range(len(rows))]
    return "\n".join([" " * 6 + columns, *map(str.__add__, labels, rows)])


def ranges(numbers: list[int]) -> str:
    """Returns increasing numbers with their ranges shortened.

    Example:
      >>> ranges([0, 1, 2, 5, 7, 8])
      '0-2, 5, 7, 8'
    """
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    texts = [
        f"{group[0]}-{group[-1]}" if len(group) > 2 else ", ".join(map(str, group))
        for group in groups
    ]
    return ", ".join(texts)


def named(spec: EnvSpec, action: int) -> str:
    """Returns the number of a move, or "pass" or "swap"."""
    is_last = spec.env_id in LAST_MOVES and action == spec.num_actions - 1
    return LAST_MOVES[spec.env_id] if is_last else str(action)


def values(spec: EnvSpec, search: Any) -> str:
    """Returns the value of a search and a table of its moves: policy, visits, action values."""
    if search is None:
        return ""
    policy, visits = np.asarray(search.policy), np.asarray(search.visits)
    share, q = visits / visits.sum(), np.asarray(search.q_values)
    order = np.argsort(-policy, kind="stable")[:NUM_SHOWN]
    rows = [
        f"  {named(spec, a):>4}  {policy[a]:>6.0%}  {share[a]:>6.0%}  {q[a]:+.2f}"
        for a in order.tolist()
        if visits[a]
    ]
    head = f", value {float(search.value):+.2f}\n  move  policy  visits  value\n"
    return head + "\n".join(rows)
