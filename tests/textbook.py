"""Tabular algorithms as textbooks write them, episode by episode in float64, for the tests."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax.types import Transition

S, A = 5, 3
ALPHA, GAMMA, EPSILON, LAMBDA = 0.3, 0.9, 0.2, 0.7


def numbered_trajectory(seed, T, B, ends=0.15, num_states=S, num_actions=A):
    """Connected steps between numbered states, with many ends of both kinds."""
    rng = np.random.default_rng(seed)
    end = rng.random((T, B))
    terminated, truncated = end < ends, end > 1 - ends
    next_obs = rng.integers(0, num_states, (T, B)).astype(np.int32)
    obs = rng.integers(0, num_states, (T, B)).astype(np.int32)
    obs[1:] = np.where((terminated | truncated)[:-1], obs[1:], next_obs[:-1])
    action = rng.integers(0, num_actions, (T, B)).astype(np.int32)
    reward = rng.normal(size=(T, B)).astype(np.float32)
    return Transition(*map(jnp.asarray, (obs, action, reward, terminated, truncated, next_obs)))


class Episode(NamedTuple):
    """`S_0 A_0 R_1 S_1 ...`: `obs` has one more than the others, the state that was reached."""

    obs: list
    action: list
    reward: list
    terminated: bool
    finished: bool


def episodes(trajectory, b=0):
    """The episodes of one environment; the last one may be unfinished."""
    out, begin = [], 0
    x = [np.asarray(leaf)[:, b].tolist() for leaf in trajectory[:6]]
    obs, action, reward, terminated, truncated, next_obs = x
    for t in range(len(obs)):
        ended = terminated[t] or truncated[t]
        if ended or t == len(obs) - 1:
            rows = slice(begin, t + 1)
            states = [*obs[rows], next_obs[t]]
            out.append(Episode(states, action[rows], reward[rows], terminated[t], ended))
            begin = t + 1
    return out


def soft(q, epsilon=EPSILON):
    """The epsilon-greedy probabilities of one row of actions; ties share."""
    best = q == q.max()
    return epsilon / len(q) + (1 - epsilon) * best / best.sum()


def expectation(q):
    return soft(q) @ q


def one_step(q, trajectory, value):
    """Q-learning and Expected Sarsa, by what a next row of actions is worth."""
    q = q.copy()
    for e in episodes(trajectory):
        for t, (s, a, r) in enumerate(zip(e.obs[:-1], e.action, e.reward, strict=True)):
            last = t == len(e.action) - 1
            beyond = 0.0 if last and e.terminated else value(q[e.obs[t + 1]])
            q[s, a] += ALPHA * (r + GAMMA * beyond - q[s, a])
    return q


def n_step_sarsa(q, trajectory, n):
    """Section 7.2; the return of a cut episode ends with what its policy expects."""
    q = q.copy()
    for e in episodes(trajectory):
        T = len(e.action)
        cut = 0.0
        for end in range(1, T + 1):  # the time whose reward is known; A_end is, where end < T
            over = end == T
            if over and not e.finished:
                break
            if over:
                cut = 0.0 if e.terminated else expectation(q[e.obs[T]])
            first = end - n
            for tau in range(max(first, 0), T if over else first + 1):
                G = sum(GAMMA ** (i - tau) * e.reward[i] for i in range(tau, end))
                beyond = cut if over else q[e.obs[end], e.action[end]]
                G += GAMMA ** (end - tau) * beyond
                place = e.obs[tau], e.action[tau]
                q[place] += ALPHA * (G - q[place])
    return q


def tree_backup(q, trajectory, n, epsilon):
    """Section 7.5, by its recursion."""
    q = q.copy()

    def value(row):
        return soft(row, epsilon) @ row

    for e in episodes(trajectory):
        T = len(e.action)
        for end in range(1, T + 1):
            over = end == T and e.finished
            for tau in range(max(end - n, 0), T if over else end - n + 1):
                terminal = end == T and e.terminated
                G = e.reward[end - 1] + GAMMA * (0.0 if terminal else value(q[e.obs[end]]))
                for k in range(end - 1, tau, -1):
                    row, taken = q[e.obs[k]], e.action[k]
                    pi = soft(row, epsilon)
                    others = sum(pi[a] * row[a] for a in range(len(row)) if a != taken)
                    G = e.reward[k - 1] + GAMMA * (others + pi[taken] * G)
                place = e.obs[tau], e.action[tau]
                q[place] += ALPHA * (G - q[place])
    return q


def mark(trace, place, kind):
    if kind == "clearing":
        trace[place[0]] = 0.0
    old = trace[place]
    trace[place] = {"accumulating": old + 1, "dutch": (1 - ALPHA) * old + 1}.get(kind, 1.0)


def sarsa_lambda(q, trajectory, kind):
    """Section 12.7 for a table: mark, correct everything, decay."""
    q = q.copy()
    for e in episodes(trajectory):
        trace = np.zeros_like(q)
        for t, (s, a, r) in enumerate(zip(e.obs[:-1], e.action, e.reward, strict=True)):
            if t < len(e.action) - 1:
                beyond = q[e.obs[t + 1], e.action[t + 1]]
            elif e.finished:
                beyond = 0.0 if e.terminated else expectation(q[e.obs[t + 1]])
            else:
                break
            mark(trace, (s, a), kind)
            q += ALPHA * (r + GAMMA * beyond - q[s, a]) * trace
            trace *= GAMMA * LAMBDA
    return q


def q_lambda(q, trajectory, kind):
    """Watkins's, with the correction before the next action is judged."""
    q = q.copy()
    for e in episodes(trajectory):
        trace = np.zeros_like(q)
        for t, (s, a, r) in enumerate(zip(e.obs[:-1], e.action, e.reward, strict=True)):
            if q[s, a] < q[s].max():
                trace[:] = 0.0
            mark(trace, (s, a), kind)
            beyond = 0.0 if t == len(e.action) - 1 and e.terminated else q[e.obs[t + 1]].max()
            q += ALPHA * (r + GAMMA * beyond - q[s, a]) * trace
            trace *= GAMMA * LAMBDA
    return q


def final_value(e, v, t):
    """The value of the t-th state of an episode, 0 beyond its end."""
    return 0.0 if t == len(e.action) and e.terminated else v[e.obs[t]]


def n_step_td(v, trajectory, n):
    """Section 7.1."""
    v = v.copy()
    for e in episodes(trajectory):
        T = len(e.action)
        for end in range(1, T + 1):
            cut = final_value(e, v, end)
            for tau in range(max(end - n, 0), T if end == T and e.finished else end - n + 1):
                G = sum(GAMMA ** (i - tau) * e.reward[i] for i in range(tau, end))
                v[e.obs[tau]] += ALPHA * (G + GAMMA ** (end - tau) * cut - v[e.obs[tau]])
    return v


def td_lambda(v, trajectory, kind):
    """Section 12.2 for a table."""
    v = v.copy()
    for e in episodes(trajectory):
        trace = np.zeros_like(v)
        for t, r in enumerate(e.reward):
            mark(trace, (e.obs[t],), kind)
            v += ALPHA * (r + GAMMA * final_value(e, v, t + 1) - v[e.obs[t]]) * trace
            trace *= GAMMA * LAMBDA
    return v


def truncated_lambda_return(e, values, t, horizon):
    """Eq. 12.9: n-step returns weighted by lambda^(n-1), the longest one with all the rest.

    `values[k]` is the table with which the return that ends at time k looks ahead.
    """
    total, G = 0.0, 0.0
    for n in range(1, horizon - t + 1):
        G += GAMMA ** (n - 1) * e.reward[t + n - 1]
        whole = G + GAMMA**n * final_value(e, values[t + n], t + n)
        weight = LAMBDA ** (n - 1) * (1 if t + n == horizon else 1 - LAMBDA)
        total += weight * whole
    return total


def lambda_return(v, trajectory):
    """Section 12.1: off-line, by the forward view."""
    v = v.copy()
    for e in episodes(trajectory):
        if e.finished:
            T = len(e.action)
            targets = [truncated_lambda_return(e, [v.copy()] * (T + 1), t, T) for t in range(T)]
            for s, G in zip(e.obs[:-1], targets, strict=True):
                v[s] += ALPHA * (G - v[s])
    return v


def online_lambda_return(v, trajectory):
    """Section 12.4: at every step everything so far is done again, with the new horizon."""
    for e in episodes(trajectory):
        values = [v, v]  # the return that ends at time k looks ahead with the table of time k - 1
        for horizon in range(1, len(e.action) + 1):
            redone = values[0].copy()
            for t in range(horizon):
                s = e.obs[t]
                redone[s] += ALPHA * (truncated_lambda_return(e, values, t, horizon) - redone[s])
            values.append(redone)
        v = values[-1]
    return v
