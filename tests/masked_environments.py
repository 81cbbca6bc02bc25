"""Environments with action masks, several discrete actions and trees of observations, for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs import auto_reset, time_limit
from rljax.types import Env, EnvSpec, Step

NUM_STATES, NUM_ACTIONS = 12, 6
GAMMA = 0.9


def random_process(seed=0, legal_fraction=0.4):
    """A deterministic decision process with rewards in [-2, -1], of which some actions are illegal.

    Values start at 0, above every reward, so that an agent that takes the maximum over illegal
    actions learns wrong values.

    Returns:
      Legal actions `[S, A]` bool, rewards `[S, A]` and next states `[S, A]`.
    """
    rng = np.random.default_rng(seed)
    shape = NUM_STATES, NUM_ACTIONS
    legal = rng.random(shape) < legal_fraction
    legal[np.arange(NUM_STATES), rng.integers(NUM_ACTIONS, size=NUM_STATES)] = True
    return legal, -1 - rng.random(shape), rng.integers(NUM_STATES, size=shape)


LEGAL, REWARD, NEXT_STATE = random_process()


def masked_process() -> Env:
    """`random_process` as an environment; the reward of an illegal action is NaN.

    Training stops at a NaN reward, so a run that ends has never taken an illegal action.
    """
    legal, reward, next_state = map(jnp.asarray, (LEGAL, REWARD.astype(np.float32), NEXT_STATE))
    spec = EnvSpec(
        {"state": (), "legal": (NUM_ACTIONS,)}, NUM_ACTIONS, num_states=NUM_STATES,
        action_mask="legal", env_id="masked",
    )  # fmt: skip

    def observe(state):
        return {"state": state, "legal": legal[state]}

    def reset(key):
        state = jax.random.randint(key, (), 0, NUM_STATES, jnp.int32)
        return state, observe(state)

    def step(state, action, key):
        received = jnp.where(legal[state, action], reward[state, action], jnp.nan)
        state = next_state[state, action].astype(jnp.int32)
        obs, no = observe(state), jnp.bool_(False)
        return state, Step(obs, received, no, no, obs)

    return auto_reset(time_limit(Env(spec, reset, step), 20))


def all_states():
    """The observations of all states of `masked_process`, `[S]`."""
    return {"state": jnp.arange(NUM_STATES, dtype=jnp.int32), "legal": jnp.asarray(LEGAL)}


def value_of(policy):
    """Exact mean value over all states of a policy `[S, A]` of probabilities, in float64."""
    transition = np.zeros((NUM_STATES, NUM_STATES))
    for state in range(NUM_STATES):
        np.add.at(transition[state], NEXT_STATE[state], policy[state])
    reward = (policy * REWARD).sum(axis=1)
    return np.linalg.solve(np.eye(NUM_STATES) - GAMMA * transition, reward).mean()


def optimal_value():
    """Mean value of the best policy over legal actions, by value iteration in float64."""
    value = np.zeros(NUM_STATES)
    for _ in range(1000):
        q = np.where(LEGAL, REWARD + GAMMA * value[NEXT_STATE], -np.inf)
        value = q.max(axis=1)
    return value.mean()


def score(actions):
    """0 for the uniform policy over legal actions, 1 for the best; `actions[S]` are greedy."""
    uniform = value_of(LEGAL / LEGAL.sum(axis=1, keepdims=True))
    greedy = value_of(np.eye(NUM_ACTIONS)[np.asarray(actions)])
    return (greedy - uniform) / (optimal_value() - uniform)


def matching(sizes, mask=False) -> Env:
    """Several discrete actions at once; the reward is the fraction that equal an observed code.

    Observations are a dict of the one-hot codes, one for each action. With `mask`, one action of
    each factor is illegal, never that of the code; taking it gives the reward NaN.
    """
    shapes = {"codes": [(size,) for size in sizes]}
    fields = {"action_mask": "legal"} if mask else {}
    if mask:
        shapes["legal"] = (sum(sizes),)
    spec = EnvSpec(shapes, tuple(sizes), env_id="matching", **fields)

    def observe(state):
        codes, _ = state
        pairs = list(zip(codes, sizes, strict=True))
        obs: dict = {"codes": [jax.nn.one_hot(code, size) for code, size in pairs]}
        if mask:
            illegal = [jax.nn.one_hot((code + 1) % size, size) for code, size in pairs]
            obs["legal"] = jnp.concatenate(illegal) < 0.5
        return obs

    def draw(key):
        keys = jax.random.split(key, len(sizes))
        pairs = zip(keys, sizes, strict=True)
        return jnp.stack([jax.random.randint(key, (), 0, size) for key, size in pairs])

    def reset(key):
        state = draw(key), jnp.int32(0)
        return state, observe(state)

    def step(state, action, key):
        codes, time = state
        reward = (action == codes).mean(dtype=jnp.float32)
        if mask:
            is_illegal = (action == (codes + 1) % jnp.array(sizes)).any()
            reward = jnp.where(is_illegal, jnp.nan, reward)
        state = draw(key), time + 1
        obs = observe(state)
        return state, Step(obs, reward, state[1] >= 8, jnp.bool_(False), obs)

    return auto_reset(Env(spec, reset, step))


def camera_and_speed(dtype=jnp.uint8) -> Env:
    """Observations are an image, a vector and a number, whose sign is the best action."""
    spec = EnvSpec(
        {"camera": (6, 6, 1), "more": {"vector": (3,), "number": ()}}, 2, env_id="camera",
        obs_dtype={"camera": "uint8", "more": {"vector": "float32", "number": "float32"}},
    )  # fmt: skip

    def observe(state):
        number, time = state
        image = jnp.full((6, 6, 1), 3, dtype) + time.astype(dtype)
        return {"camera": image, "more": {"vector": jnp.full(3, 5.0), "number": 10.0 * number}}

    def reset(key):
        state = jax.random.normal(key), jnp.int32(0)
        return state, observe(state)

    def step(state, action, key):
        number, time = state
        reward = jnp.where((number > 0) == (action == 1), 1.0, 0.0)
        state = jax.random.normal(key), time + 1
        obs = observe(state)
        return state, Step(obs, reward, jnp.bool_(False), state[1] >= 10, obs)

    return auto_reset(Env(spec, reset, step))
