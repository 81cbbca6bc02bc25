"""Dynamic programming: exact values and policies of a known model (Sutton and Barto 2018, ch. 4).

Arrays have the shapes `[S]`, `[S, A]` and `[S, A, S]`, and float64 precision if `jax_enable_x64`
is on. A policy is a table of probabilities `[S, A]`. An epsilon-soft policy selects each action
with probability at least `epsilon / A`. With `epsilon` above 0 the solvers find the optimal
epsilon-soft policy, which may differ from the epsilon-greedy policy of the optimal values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from rljax.ops.epsilon_greedy import epsilon_greedy_value, epsilon_soft, greedy
from rljax.types import Array


class Model(NamedTuple):
    """A finite Markov decision process."""

    transition: Any  # [S, A, S'] p(s' | s, a)
    reward: Any  # [S, A] expected reward r(s, a)
    terminated: Any  # [S, A, S'] probability that the step from s by a to s' ends the episode
    start: Any  # [S] probability that an episode starts in s


class Solution(NamedTuple):
    """Optimal values and an optimal policy."""

    value: Array  # [S]
    q: Array  # [S, A]
    policy: Array  # [S, A] actions of equal value share their probability
    num_iterations: Array  # int32, sweeps, or policies evaluated


def continuing_transition(model: Model) -> Array:
    """Returns the probability of reaching s' without termination, `[S, A, S']`."""
    chex.assert_rank([model.transition, model.reward, model.terminated, model.start], [3, 2, 3, 1])
    return jnp.asarray(model.transition) * (1 - jnp.asarray(model.terminated))


def q_values(model: Model, value: Array, gamma: float | Array) -> Array:
    """Returns the action values of one-step lookahead (eq. 4.6). `[S] -> [S, A]`.

    q(s, a) = r(s, a) + gamma sum_s' p(s', not terminated | s, a) v(s')
    """
    chex.assert_rank(value, 1)
    transition, value = continuing_transition(model), jnp.asarray(value)
    # a value of NaN does not count where its state cannot be reached
    next_value = jnp.where(transition > 0, transition * value[None, None], 0)
    return jnp.asarray(model.reward) + gamma * next_value.sum(axis=-1)


def policy_improvement(policy: Array, q: Array) -> Array:
    """Returns the policy, made greedy in states where that increases its value (eq. 4.9).

    `[S, A], [S, A] -> [S, A]`
    """
    chex.assert_equal_shape([policy, q])
    is_better = q.max(axis=-1) > (policy * q).sum(axis=-1) + _rounding_error(q)
    greedy_policy = jax.nn.one_hot(q.argmax(axis=-1), q.shape[-1], dtype=policy.dtype)
    return jnp.where(is_better[:, None], greedy_policy, policy)


def policy_evaluation(model: Model, policy: Array, gamma: float | Array) -> Array:
    """Returns the value of a policy, the solution of `v = r_pi + gamma P_pi v` (eq. 4.4).

    With gamma = 1 the value is NaN in states from which the policy may never terminate.
    `[S, A] -> [S]`

    Example:
      >>> from rljax.envs import worlds
      >>> model = worlds.model("rljax/RandomWalk", length=3)
      >>> value = policy_evaluation(model, jnp.ones((5, 1)), gamma=1.0)
      >>> [round(float(v), 4) for v in value]
      [0.0, -0.5, 0.0, 0.5, 0.0]
    """
    transition, reward = _markov_chain(model, policy)
    may_terminate = 1 - transition.sum(axis=-1) > 1e-6
    reachable = _reachable(transition)
    is_trap = ~(reachable & may_terminate[None]).any(axis=-1)
    is_undefined = (reachable & is_trap[None]).any(axis=-1) & (gamma >= 1)
    transition = jnp.where(is_undefined[:, None], 0, transition)
    value = jnp.linalg.solve(jnp.eye(len(transition)) - gamma * transition, reward)
    return jnp.where(is_undefined, jnp.nan, value)


def evaluation_sweep(model: Model, policy: Array, value: Array, gamma: float | Array) -> Array:
    """One sweep of iterative policy evaluation (eq. 4.5). `[S, A], [S] -> [S]`."""
    return (jnp.asarray(policy) * q_values(model, value, gamma)).sum(axis=-1)


def iterative_policy_evaluation(
    model: Model, policy: Array, gamma: float | Array, tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> tuple[Array, Array]:  # fmt: skip
    """Sweeps from v = 0 until no value changes by more than `tolerance` (section 4.1).

    Returns:
      The values `[S]` and the number of sweeps.
    """
    return _sweep_until_converged(
        lambda value: evaluation_sweep(model, policy, value, gamma), model, tolerance, max_sweeps
    )


def value_iteration(
    model: Model, gamma: float | Array, epsilon: float | Array = 0.0, tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> Solution:  # fmt: skip
    """Sweeps `v(s) = max_a q(s, a)` until no value changes by more than `tolerance` (eq. 4.10).

    Args:
      model: the Markov decision process.
      gamma: discount factor.
      epsilon: above 0, the solution is the optimal epsilon-soft policy.
      tolerance: in float32 sweeps usually end when rounding leaves the values unchanged.
      max_sweeps: maximum number of sweeps.

    Example:
      >>> from rljax.envs import worlds
      >>> model = worlds.model("rljax/Maze")
      >>> solution = value_iteration(model, gamma=0.9)
      >>> round(float(model.start @ solution.value), 5)
      0.59049
    """
    value, num_sweeps = _sweep_until_converged(
        lambda value: epsilon_greedy_value(q_values(model, value, gamma), epsilon),
        model, tolerance, max_sweeps,
    )  # fmt: skip
    q = q_values(model, value, gamma)
    policy = epsilon_soft(greedy(q, _rounding_error(q)), epsilon)
    return Solution(value, q, policy, num_sweeps)


def policy_iteration(
    model: Model, gamma: float | Array, epsilon: float | Array = 0.0, max_policies: int = 1000
) -> Solution:
    """Evaluates a policy exactly and improves it, until it is stable (section 4.3).

    The initial policy is uniform. An action is changed only for a better one, so ties cause no
    cycles, and with gamma = 1 a policy that terminates is not replaced by one that may not.

    Args:
      model: the Markov decision process.
      gamma: discount factor.
      epsilon: above 0, the solution is the optimal epsilon-soft policy.
      max_policies: maximum number of policies.

    Example:
      >>> from rljax.envs import worlds
      >>> model = worlds.model("rljax/CliffWalking")
      >>> solution = policy_iteration(model, gamma=1.0)
      >>> round(float(model.start @ solution.value), 3)
      -13.0
    """

    def evaluate(policy):
        value = policy_evaluation(model, epsilon_soft(policy, epsilon), gamma)
        return value, q_values(model, value, gamma)

    def improve(carry):
        policy, (_, q), _, count = carry
        new_policy = policy_improvement(policy, q)
        is_stable = (new_policy == policy).all()
        return new_policy, evaluate(new_policy), is_stable, count + 1

    def is_unstable(carry):
        *_, is_stable, count = carry
        return ~is_stable & (count < max_policies)

    uniform = jnp.full(model.reward.shape, 1 / model.reward.shape[1])
    carry = uniform, evaluate(uniform), jnp.bool_(False), jnp.int32(0)
    policy, (value, q), _, count = jax.lax.while_loop(is_unstable, improve, carry)
    return Solution(value, q, epsilon_soft(policy, epsilon), count)


def finite_horizon(
    model: Model, horizon: int, gamma: float | Array = 1.0, policy: Array | None = None
) -> Array:
    """Returns values for a limited number of steps, `[horizon + 1, S]`, by the steps that remain.

    Args:
      model: the Markov decision process.
      horizon: maximum number of steps.
      gamma: discount factor.
      policy: `[S, A]`, the policy to evaluate; by default the optimal policy, which depends on
        the steps that remain.
    """

    def sweep(value, _):
        q = q_values(model, value, gamma)
        value = q.max(axis=-1) if policy is None else (policy * q).sum(axis=-1)
        return value, value

    zero = jnp.zeros(model.start.shape)
    return jnp.concatenate([zero[None], jax.lax.scan(sweep, zero, length=horizon)[1]])


def expected_steps(model: Model, policy: Array) -> Array:
    """Returns the mean episode length from each state; inf where an episode may never end.

    `[S, A] -> [S]`
    """
    steps = policy_evaluation(model._replace(reward=jnp.ones(model.reward.shape)), policy, 1.0)
    return jnp.where(jnp.isnan(steps), jnp.inf, steps)


def reach_probability(model: Model, policy: Array, target: Array) -> Array:
    """Returns the probability that an episode from each state ever enters a target state.

    `[S, A], bool [S] -> [S]`
    """
    chex.assert_shape(target, model.start.shape)
    entering = jnp.einsum("sa,sat,t->s", policy, model.transition, jnp.asarray(target, float))
    transition, _ = _markov_chain(model, policy)
    transition = jnp.where(target[None], 0, transition)
    can_enter = (_reachable(transition) & (entering > 0)[None]).any(axis=-1)
    transition = jnp.where(can_enter[:, None] & can_enter[None], transition, 0)
    return jnp.linalg.solve(jnp.eye(len(transition)) - transition, entering)


def _rounding_error(q: Array) -> Array:
    """Returns a bound on the rounding error of action values of this size."""
    return 256 * jnp.finfo(q.dtype).eps * jnp.maximum(jnp.nanmax(jnp.abs(q)), 1)


def _markov_chain(model: Model, policy: Array) -> tuple[Array, Array]:
    """Returns the transition probabilities `[S, S]` and rewards `[S]` under a policy."""
    chex.assert_equal_shape([policy, model.reward])
    transition = jnp.einsum("sa,sat->st", policy, continuing_transition(model))
    return transition, (jnp.asarray(policy) * jnp.asarray(model.reward)).sum(axis=-1)


def _reachable(transition: Array) -> Array:
    """Returns whether s' can be reached from s in any number of steps, also 0. `[S, S]` bool."""
    reachable = jnp.eye(len(transition), dtype=bool) | (transition > 0)
    num_doublings = max(len(transition) - 1, 1).bit_length()

    def double_steps(_, reachable):
        return reachable.astype(jnp.float32) @ reachable.astype(jnp.float32) > 0

    return jax.lax.fori_loop(0, num_doublings, double_steps, reachable)


def _sweep_until_converged(
    sweep: Callable[[Array], Array], model: Model, tolerance: float, max_sweeps: int
) -> tuple[Array, Array]:
    def has_not_converged(carry):
        _, change, count = carry
        return (change > tolerance) & (count < max_sweeps)

    def one_sweep(carry):
        value, _, count = carry
        new_value = sweep(value)
        return new_value, jnp.abs(new_value - value).max(), count + 1

    zero = jnp.zeros(model.start.shape)
    carry = zero, jnp.asarray(jnp.inf, zero.dtype), jnp.int32(0)
    value, _, count = jax.lax.while_loop(has_not_converged, one_sweep, carry)
    return value, count
