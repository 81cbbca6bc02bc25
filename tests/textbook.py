"""Oracles for the tests: tabular algorithms written as in Sutton and Barto (2018), in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Transition

S, A = 5, 3
ALPHA, GAMMA, EPSILON, LAMBDA = 0.3, 0.9, 0.2, 0.7


def random_trajectory(seed, T, B, ends=0.15, num_states=S, num_actions=A):
    """Returns a trajectory `[T, B]` of random steps with many terminations and truncations."""
    rng = np.random.default_rng(seed)
    end = rng.random((T, B))
    terminated, truncated = end < ends, end > 1 - ends
    next_obs = rng.integers(0, num_states, (T, B)).astype(np.int32)
    obs = rng.integers(0, num_states, (T, B)).astype(np.int32)
    obs[1:] = np.where((terminated | truncated)[:-1], obs[1:], next_obs[:-1])
    action = rng.integers(0, num_actions, (T, B)).astype(np.int32)
    reward = rng.normal(size=(T, B)).astype(np.float32)
    return Transition(*map(jnp.asarray, (obs, action, reward, terminated, truncated, next_obs)))


def trajectory_of(rows):
    """Returns rows `(s, a, r, s', terminated)` as a trajectory of one environment."""
    obs, action, reward, next_obs, terminated = map(jnp.asarray, zip(*rows, strict=True))
    truncated = jnp.zeros(len(rows), bool)
    steps = Transition(obs, action, reward.astype(jnp.float32), terminated, truncated, next_obs)
    return jax.tree.map(lambda x: x[:, None], steps)


class Episode(NamedTuple):
    """An episode `S_0 A_0 R_1 S_1 ...`; `obs` has one more entry, the state reached last."""

    obs: list
    action: list
    reward: list
    terminated: bool
    finished: bool


def episodes(trajectory, b=0):
    """Returns the episodes of one environment; the last one may be unfinished."""
    result, start = [], 0
    x = [np.asarray(leaf)[:, b].tolist() for leaf in trajectory[:6]]
    obs, action, reward, terminated, truncated, next_obs = x
    for t in range(len(obs)):
        ended = terminated[t] or truncated[t]
        if ended or t == len(obs) - 1:
            rows = slice(start, t + 1)
            states = [*obs[rows], next_obs[t]]
            result.append(Episode(states, action[rows], reward[rows], terminated[t], ended))
            start = t + 1
    return result


def epsilon_greedy(q, epsilon=EPSILON):
    """Returns the epsilon-greedy policy of action values `[A]`; ties share the probability."""
    is_best = q == q.max()
    return epsilon / len(q) + (1 - epsilon) * is_best / is_best.sum()


def expectation(q):
    """Returns the expectation of action values `[A]` over their epsilon-greedy policy."""
    return epsilon_greedy(q) @ q


def one_step(q, trajectory, value):
    """Q-learning and Expected Sarsa; `value` of the next action values `[A]` is bootstrapped."""
    q = q.copy()
    for e in episodes(trajectory):
        for t, (s, a, r) in enumerate(zip(e.obs[:-1], e.action, e.reward, strict=True)):
            is_last = t == len(e.action) - 1
            next_v = 0.0 if is_last and e.terminated else value(q[e.obs[t + 1]])
            q[s, a] += ALPHA * (r + GAMMA * next_v - q[s, a])
    return q


def n_step_sarsa(q, trajectory, n):
    """Section 7.2; after a truncation the return bootstraps from the expectation."""
    q = q.copy()
    for e in episodes(trajectory):
        T = len(e.action)
        last_value = 0.0
        for end in range(1, T + 1):  # R_end is known, and A_end where end < T
            is_last = end == T
            if is_last and not e.finished:
                break
            if is_last:
                last_value = 0.0 if e.terminated else expectation(q[e.obs[T]])
            first = end - n
            for tau in range(max(first, 0), T if is_last else first + 1):
                G = sum(GAMMA ** (i - tau) * e.reward[i] for i in range(tau, end))
                next_q = last_value if is_last else q[e.obs[end], e.action[end]]
                G += GAMMA ** (end - tau) * next_q
                index = e.obs[tau], e.action[tau]
                q[index] += ALPHA * (G - q[index])
    return q


def tree_backup(q, trajectory, n, epsilon):
    """Section 7.5, with the recursion of eq. 7.16."""
    q = q.copy()

    def value(row):
        return epsilon_greedy(row, epsilon) @ row

    for e in episodes(trajectory):
        T = len(e.action)
        for end in range(1, T + 1):
            is_last = end == T and e.finished
            for tau in range(max(end - n, 0), T if is_last else end - n + 1):
                terminal = end == T and e.terminated
                G = e.reward[end - 1] + GAMMA * (0.0 if terminal else value(q[e.obs[end]]))
                for k in range(end - 1, tau, -1):
                    row, taken = q[e.obs[k]], e.action[k]
                    pi = epsilon_greedy(row, epsilon)
                    others = sum(pi[a] * row[a] for a in range(len(row)) if a != taken)
                    G = e.reward[k - 1] + GAMMA * (others + pi[taken] * G)
                index = e.obs[tau], e.action[tau]
                q[index] += ALPHA * (G - q[index])
    return q


def update_trace(trace, index, kind):
    """Raises the eligibility trace of an entry, in place."""
    if kind == "clearing":
        trace[index[0]] = 0.0
    old = trace[index]
    trace[index] = {"accumulating": old + 1, "dutch": (1 - ALPHA) * old + 1}.get(kind, 1.0)


def sarsa_lambda(q, trajectory, kind):
    """Section 12.7 for a table."""
    q = q.copy()
    for e in episodes(trajectory):
        trace = np.zeros_like(q)
        for t, (s, a, r) in enumerate(zip(e.obs[:-1], e.action, e.reward, strict=True)):
            if t < len(e.action) - 1:
                next_value = q[e.obs[t + 1], e.action[t + 1]]
            elif e.finished:
                next_value = 0.0 if e.terminated else expectation(q[e.obs[t + 1]])
            else:
                break
            update_trace(trace, (s, a), kind)
            q += ALPHA * (r + GAMMA * next_value - q[s, a]) * trace
            trace *= GAMMA * LAMBDA
    return q


def q_lambda(q, trajectory, kind):
    """Section 12.10, with the update before the next action is selected."""
    q = q.copy()
    for e in episodes(trajectory):
        trace = np.zeros_like(q)
        for t, (s, a, r) in enumerate(zip(e.obs[:-1], e.action, e.reward, strict=True)):
            if q[s, a] < q[s].max():
                trace[:] = 0.0
            update_trace(trace, (s, a), kind)
            next_value = 0.0 if t == len(e.action) - 1 and e.terminated else q[e.obs[t + 1]].max()
            q += ALPHA * (r + GAMMA * next_value - q[s, a]) * trace
            trace *= GAMMA * LAMBDA
    return q


def state_value(e, v, t):
    """Returns the value of the t-th state of an episode, 0 for the terminal state."""
    return 0.0 if t == len(e.action) and e.terminated else v[e.obs[t]]


def n_step_td(v, trajectory, n):
    """Section 7.1."""
    v = v.copy()
    for e in episodes(trajectory):
        T = len(e.action)
        for end in range(1, T + 1):
            last_value = state_value(e, v, end)
            for tau in range(max(end - n, 0), T if end == T and e.finished else end - n + 1):
                G = sum(GAMMA ** (i - tau) * e.reward[i] for i in range(tau, end))
                v[e.obs[tau]] += ALPHA * (G + GAMMA ** (end - tau) * last_value - v[e.obs[tau]])
    return v


def td_lambda(v, trajectory, kind):
    """Section 12.2 for a table."""
    v = v.copy()
    for e in episodes(trajectory):
        trace = np.zeros_like(v)
        for t, r in enumerate(e.reward):
            update_trace(trace, (e.obs[t],), kind)
            v += ALPHA * (r + GAMMA * state_value(e, v, t + 1) - v[e.obs[t]]) * trace
            trace *= GAMMA * LAMBDA
    return v


def truncated_lambda_return(e, values, t, horizon):
    """Returns the truncated lambda-return, eq. 12.9.

    `values[k]` is the table that the return ending at time k bootstraps from.
    """
    total, G = 0.0, 0.0
    for n in range(1, horizon - t + 1):
        G += GAMMA ** (n - 1) * e.reward[t + n - 1]
        n_step_return = G + GAMMA**n * state_value(e, values[t + n], t + n)
        weight = LAMBDA ** (n - 1) * (1 if t + n == horizon else 1 - LAMBDA)
        total += weight * n_step_return
    return total


def lambda_return(v, trajectory):
    """Section 12.1: the offline lambda-return algorithm."""
    v = v.copy()
    for e in episodes(trajectory):
        if e.finished:
            T = len(e.action)
            targets = [truncated_lambda_return(e, [v.copy()] * (T + 1), t, T) for t in range(T)]
            for s, G in zip(e.obs[:-1], targets, strict=True):
                v[s] += ALPHA * (G - v[s])
    return v


def online_lambda_return(v, trajectory):
    """Section 12.4: each step makes all updates of the episode again, with a longer horizon."""
    for e in episodes(trajectory):
        values = [v, v]  # the return that ends at time k bootstraps from the table of time k - 1
        for horizon in range(1, len(e.action) + 1):
            new_v = values[0].copy()
            for t in range(horizon):
                s = e.obs[t]
                new_v[s] += ALPHA * (truncated_lambda_return(e, values, t, horizon) - new_v[s])
            values.append(new_v)
        v = values[-1]
    return v
