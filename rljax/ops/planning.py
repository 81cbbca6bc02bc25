"""Dynamic programming: what a known model is worth, exactly (Sutton and Barto 2018, chapter 4).

Everything is `[S]`, `[S, A]` or `[S, A, S]` and can be jitted; numbers are float64 where
`jax_enable_x64` is on. A policy is a table of probabilities `[S, A]`. An *epsilon-soft* policy
takes each action with a probability of at least `epsilon / A`; where `epsilon` is above 0, the best
of those is sought, which is not the epsilon-greedy policy of the best of all.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


class Model(NamedTuple):
    """A Markov decision process.

    Rewards may depend on the state that is reached: for planning their mean over it is all that
    matters. That a step ends the episode may depend on it as well, and no value lies beyond.
    """

    transition: Any  # [S, A, S'] the probability of s' after a in s; sums to 1 over s'
    reward: Any  # [S, A] expected
    terminated: Any  # [S, A, S'] the probability that the step ends the episode, given s'
    start: Any  # [S] the probability that an episode begins in s


class Solution(NamedTuple):
    """The best that can be done."""

    value: Array  # [S]
    q: Array  # [S, A]
    policy: Array  # [S, A]
    num_iterations: Array  # int32, sweeps or policies


def continuing(model: Model) -> Array:
    """The probability of reaching s' and going on. `-> [S, A, S]`."""
    chex.assert_rank([model.transition, model.reward, model.terminated, model.start], [3, 2, 3, 1])
    return jnp.asarray(model.transition) * (1 - jnp.asarray(model.terminated))


def q_values(model: Model, value: Array, gamma: float | Array) -> Array:
    """`q(s, a) = r(s, a) + gamma sum_s' p(s', goes on | s, a) v(s')` (eq. 4.6). `[S] -> [S, A]`."""
    chex.assert_rank(value, 1)
    chance, value = continuing(model), jnp.asarray(value)
    beyond = jnp.where(
        chance > 0, chance * value[None, None], 0
    )  # NaN where it cannot lead is none
    return jnp.asarray(model.reward) + gamma * beyond.sum(axis=-1)


def greedy(q: Array, tolerance: float | Array = 0.0) -> Array:
    """The greedy policy: actions within `tolerance` of the best share it. `[S, A] -> [S, A]`."""
    chex.assert_rank(q, 2)
    best = (q >= q.max(axis=-1, keepdims=True) - tolerance).astype(jnp.result_type(float))
    return best / best.sum(axis=-1, keepdims=True)


def soft(policy: Array, epsilon: float | Array) -> Array:
    """The policy, but a random action with probability `epsilon`. `[S, A] -> [S, A]`."""
    chex.assert_rank(policy, 2)
    return (1 - epsilon) * policy + epsilon / policy.shape[-1]


def best_soft(q: Array, epsilon: float | Array) -> Array:
    """What the best epsilon-soft choice is worth: `(1 - epsilon) max q + epsilon mean q`."""
    return (1 - epsilon) * q.max(axis=-1) + epsilon * q.mean(axis=-1)


def _slack(q: Array) -> Array:
    """What rounding may make of equal numbers of the size of these."""
    return 256 * jnp.finfo(q.dtype).eps * jnp.maximum(jnp.nanmax(jnp.abs(q)), 1)


def improve(policy: Array, q: Array) -> Array:
    """The policy, greedy where that is better than what it does (eq. 4.9). `[S, A] -> [S, A]`."""
    chex.assert_equal_shape([policy, q])
    better = q.max(axis=-1) > (policy * q).sum(axis=-1) + _slack(q)
    first = jax.nn.one_hot(q.argmax(axis=-1), q.shape[-1], dtype=policy.dtype)
    return jnp.where(better[:, None], first, policy)


def policy_evaluation(model: Model, policy: Array, gamma: float | Array) -> Array:
    """The value of a policy: solves `v = r_pi + gamma P_pi v` (eq. 4.4). `[S, A] -> [S]`.

    Without discount the value is NaN in the states from which the policy may never end.
    """
    moves, reward = _chain(model, policy)
    ends = 1 - moves.sum(axis=-1) > 1e-6
    reach = _reach(moves)
    stuck = (reach & ~(reach & ends[None]).any(axis=-1)[None]).any(axis=-1) & (gamma >= 1)
    moves = jnp.where(stuck[:, None], 0, moves)
    value = jnp.linalg.solve(jnp.eye(len(moves)) - gamma * moves, reward)
    return jnp.where(stuck, jnp.nan, value)


def sweep_policy(model: Model, policy: Array, value: Array, gamma: float | Array) -> Array:
    """One sweep of iterative policy evaluation (eq. 4.5). `[S, A], [S] -> [S]`."""
    return (jnp.asarray(policy) * q_values(model, value, gamma)).sum(axis=-1)


def iterative_policy_evaluation(
    model: Model, policy: Array, gamma: float | Array, tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> tuple[Array, Array]:  # fmt: skip
    """Sweeps from zero until no value moves by more than `tolerance`. `-> value [S], sweeps`."""
    return _until_still(
        lambda value: sweep_policy(model, policy, value, gamma), model, tolerance, max_sweeps
    )


def value_iteration(
    model: Model, gamma: float | Array, epsilon: float | Array = 0.0, tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> Solution:  # fmt: skip
    """Sweeps `v = max_a q(s, a)` (eq. 4.10) until no value moves by more than `tolerance`.

    Args:
      epsilon: above 0, the best epsilon-soft policy.
      tolerance: in float32 the values stand still well above the default, and that ends it.
      max_sweeps: at most so many.
    """
    value, num_sweeps = _until_still(
        lambda value: best_soft(q_values(model, value, gamma), epsilon),
        model, tolerance, max_sweeps,
    )  # fmt: skip
    q = q_values(model, value, gamma)
    return Solution(value, q, soft(greedy(q, _slack(q)), epsilon), num_sweeps)


def policy_iteration(
    model: Model, gamma: float | Array, epsilon: float | Array = 0.0, max_policies: int = 1000
) -> Solution:
    """Evaluates a policy exactly and makes it greedy, until it is (section 4.3).

    Begins at random, and changes an action only for a better one: so ties cannot turn it in a
    circle, and without discount a policy that ends is never left for one that does not.
    """

    def evaluate(policy):
        value = policy_evaluation(model, soft(policy, epsilon), gamma)
        return value, q_values(model, value, gamma)

    def improved(carry):
        policy, (_, q), _, count = carry
        new = improve(policy, q)
        return new, evaluate(new), (new == policy).all(), count + 1

    def unstable(carry):
        *_, stable, count = carry
        return ~stable & (count < max_policies)

    random = jnp.full(model.reward.shape, 1 / model.reward.shape[1])
    begin = random, evaluate(random), jnp.bool_(False), jnp.int32(0)
    policy, (value, q), _, count = jax.lax.while_loop(unstable, improved, begin)
    return Solution(value, q, soft(policy, epsilon), count)


def finite_horizon(
    model: Model, horizon: int, gamma: float | Array = 1.0, policy: Array | None = None
) -> Array:
    """What is won within a limit of steps. `-> [horizon + 1, S]`, by how many steps are left.

    The best that can be won, by a policy that knows the time; or what `policy` `[S, A]` wins.
    """

    def once(value, _):
        q = q_values(model, value, gamma)
        value = q.max(axis=-1) if policy is None else (policy * q).sum(axis=-1)
        return value, value

    zero = jnp.zeros(model.start.shape)
    return jnp.concatenate([zero[None], jax.lax.scan(once, zero, length=horizon)[1]])


def expected_steps(model: Model, policy: Array) -> Array:
    """Mean length of an episode from each state; inf where it may never end. `[S, A] -> [S]`."""
    steps = policy_evaluation(model._replace(reward=jnp.ones(model.reward.shape)), policy, 1.0)
    return jnp.where(jnp.isnan(steps), jnp.inf, steps)


def reach_probability(model: Model, policy: Array, target: Array) -> Array:
    """The chance that an episode from each state ever steps into one of `target`.

    `[S, A], bool [S] -> [S]`
    """
    chex.assert_shape(target, model.start.shape)
    arriving = jnp.einsum("sa,sat,t->s", policy, model.transition, jnp.asarray(target, float))
    moves, _ = _chain(model, policy)
    moves = jnp.where(target[None], 0, moves)
    able = (_reach(moves) & (arriving > 0)[None]).any(axis=-1)
    moves = jnp.where(able[:, None] & able[None], moves, 0)
    return jnp.linalg.solve(jnp.eye(len(moves)) - moves, arriving)


def _chain(model: Model, policy: Array) -> tuple[Array, Array]:
    """The Markov chain of a policy that goes on, `[S, S]`, and its rewards `[S]`."""
    chex.assert_equal_shape([policy, model.reward])
    moves = jnp.einsum("sa,sat->st", policy, continuing(model))
    return moves, (jnp.asarray(policy) * jnp.asarray(model.reward)).sum(axis=-1)


def _reach(moves: Array) -> Array:
    """Which states can be reached from which, in any number of steps, none among them."""
    reach = jnp.eye(len(moves), dtype=bool) | (moves > 0)
    doublings = max(len(moves) - 1, 1).bit_length()

    def twice_as_far(_, reach):
        return reach.astype(jnp.float32) @ reach.astype(jnp.float32) > 0

    return jax.lax.fori_loop(0, doublings, twice_as_far, reach)


def _until_still(sweep: Any, model: Model, tolerance: float, max_sweeps: int):
    def moving(carry):
        _, change, count = carry
        return (change > tolerance) & (count < max_sweeps)

    def once(carry):
        value, _, count = carry
        new = sweep(value)
        return new, jnp.abs(new - value).max(), count + 1

    zero = jnp.zeros(model.start.shape)
    begin = zero, jnp.asarray(jnp.inf, zero.dtype), jnp.int32(0)
    value, _, count = jax.lax.while_loop(moving, once, begin)
    return value, count
