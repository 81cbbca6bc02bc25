"""The reports of `check_env`, on environments with one fault each, and on those of rljax."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax import envs
from rljax.__main__ import main
from rljax.envs import lengths, trials
from rljax.types import Env, EnvSpec, Step

SPEC = EnvSpec(obs_shape=(2,), num_actions=2, max_episode_steps=20, env_id="Mine")
CONTINUOUS = SPEC._replace(num_actions=0, action_shape=(2,), action_low=-2.0, action_high=2.0)


class State(NamedTuple):
    """The state of `walk`."""

    x: jax.Array
    time: jax.Array  # in the episode
    age: jax.Array  # since `reset`


def walk(spec=SPEC, limit=20, limit_terminates=False, obs=None, change=None, next_state=None):
    """A random walk with drift that terminates at 10 and resets itself.

    Args:
      spec: its spec.
      limit: time limit; 0 without.
      limit_terminates: the limit is reported as a termination.
      obs: `(x, state) -> observation`.
      change: `(step, state, action) -> step`.
      next_state: `(state, done) -> state`.
    """

    def observe(state):
        return state.x if obs is None else obs(state.x, state)

    def reset(key):
        x = jax.random.uniform(key, (2,))
        state = State(x, jnp.int32(0), jnp.int32(0))
        return state, observe(state)

    def step(state, action, key):
        step_key, key = jax.random.split(key)
        x = state.x + 0.5 * jax.random.normal(step_key, (2,)) + 0.2
        state = State(x, state.time + 1, state.age + 1)
        at_limit = (state.time >= limit) & (limit > 0)
        is_end = x[0] > 10
        terminated = is_end | at_limit if limit_terminates else is_end
        truncated = jnp.bool(False) if limit_terminates else at_limit & ~is_end
        done = terminated | truncated
        initial = State(jax.random.uniform(key, (2,)), jnp.int32(0), state.age)
        new = jax.tree.map(lambda a, b: jnp.where(done, a, b), initial, state)
        new = new if next_state is None else next_state(new, state, done)
        output = Step(observe(new), x[0], terminated, truncated, observe(state))
        return new, output if change is None else change(output, state, action)

    return Env(spec, reset, step)


def replaced(**fields):
    """Returns a `change` that replaces fields of a `Step`, each by `(step, state, action)`."""
    return lambda step, state, action: step._replace(
        **{name: function(step, state, action) for name, function in fields.items()}
    )


def late(value, steps=300):
    """Returns a field of `Step` that is `value` once so many steps were taken."""
    return lambda step, state, action: jnp.where(state.age > steps, value, step.next_obs)


def at_bound(step, state, action):
    return jnp.where((jnp.abs(action) >= 2).any(), jnp.nan, step.reward)


class Masked(NamedTuple):
    """An observation with a mask."""

    x: jax.Array
    legal: jax.Array


def masked(x, state):
    return Masked(x, jnp.array([True, False]) & (state.age < 300))


def impure_reset(key):
    return walk().reset(jax.random.key(np.random.randint(1000)))


def weakly_typed_reset(key):
    state, obs = walk().reset(key)
    return state._replace(time=0), obs


CALLS = []


def counting(step, state, action):
    """Returns a reward that grows with each call of the host."""

    def count(x):
        CALLS.append(0)
        return np.float32(len(CALLS))

    return jax.pure_callback(
        count, jax.ShapeDtypeStruct((), jnp.float32), state.x, vmap_method="sequential"
    )


def keep_time(new, state, done):
    return new._replace(time=state.time)


FAULTS = {
    "shape": (
        walk(SPEC._replace(obs_shape=(3,))),
        "`obs` of `reset` has shape (2,), but `obs_shape` is (3,); make them equal.",
    ),
    "dtype": (
        walk(change=replaced(reward=lambda step, *_: jnp.int32(1))),
        "`reward` is int32[]; return a scalar, `x.astype(jnp.float32)`.",
    ),
    "structure": (
        walk(next_state=lambda new, state, done: new._replace(time=jnp.float32(new.time))),
        "`state.time` is int32[] after `reset` and float32[] after `step`",
    ),
    "early NaN": (
        walk(change=replaced(reward=lambda step, *_: jnp.nan * step.reward)),
        "`reward` contains nan after 1 random steps",
    ),
    "late NaN": (
        walk(change=replaced(next_obs=late(jnp.nan))),
        "`next_obs` is NaN or infinite after 301 random steps; look for a division",
    ),
    "NaN at the bounds": (
        walk(CONTINUOUS, change=replaced(reward=at_bound)),
        "`reward` is NaN or infinite after 1 steps with actions at their bounds",
    ),
    "no reset": (
        walk(change=replaced(obs=lambda step, *_: step.next_obs)),
        "`obs` equals `next_obs` where an episode ends",
    ),
    "next_obs after the reset": (
        walk(change=replaced(next_obs=lambda step, *_: step.obs)),
        "`obs` equals `next_obs` where an episode ends",
    ),
    "obs of another step": (
        walk(change=replaced(obs=lambda step, *_: step.obs + 1)),
        "`obs` differs from `next_obs` after 1 random steps, where no episode ends",
    ),
    "both flags": (
        walk(change=replaced(terminated=lambda step, *_: step.terminated | step.truncated)),
        "A step is both `terminated` and `truncated`, after 20 random steps",
    ),
    "limit as termination": (
        walk(limit_terminates=True),
        "episodes are terminated after exactly 20 steps, the time limit; return `truncated`",
    ),
    "no end at the limit": (
        walk(limit=0),
        "steps or more, but `max_episode_steps` is 20; truncate it there, or correct the spec.",
    ),
    "step counter": (
        walk(next_state=keep_time),
        "After the time limit every step is truncated; set the step counter to 0",
    ),
    "no legal action": (
        walk(SPEC._replace(obs_shape=Masked((2,), (2,)), action_mask="legal"), obs=masked),
        "The observation after 300 random steps has no legal action; end the episode",
    ),
    "stored dtype": (
        walk(SPEC._replace(obs_dtype="uint8")),
        "after 1 random steps cannot be stored as the `obs_dtype` of its spec; set",
    ),
    "NumPy's random numbers": (
        walk()._replace(reset=impure_reset),
        "`reset` or `step` is another function each time that it is traced; take random numbers",
    ),
    "state on the host": (
        walk(change=replaced(reward=counting)),
        "The same state, actions and key gave two different results",
    ),
}

WARNINGS = {
    "unknown limit as termination": (
        walk(SPEC._replace(max_episode_steps=0), limit_terminates=True),
        "terminated episodes have exactly 20 steps, and none is longer. If that is a time limit",
    ),
    "limit without spec": (
        walk(SPEC._replace(max_episode_steps=0)),
        "Episodes are truncated after 20 steps, but `max_episode_steps` is 0",
    ),
    "no end": (
        walk(SPEC._replace(max_episode_steps=0), limit=0, obs=lambda x, state: jnp.sin(x),
             change=lambda step, state, action: step._replace(
                 terminated=jnp.bool(False), obs=step.next_obs, reward=step.obs[0]),
             next_state=lambda new, state, done: state),
        "random steps, and there is no time limit; set `max_episode_steps`.",
    ),
    "weak type": (
        walk()._replace(reset=weakly_typed_reset),
        "`state.time` is a weakly typed number after `reset`",
    ),
    "integers": (
        walk(SPEC._replace(obs_dtype="int32"), obs=lambda x, state: jnp.int32(x)),
        "Networks take integers as numbers; return categories as one-hot vectors.",
    ),
    "large observations": (
        walk(obs=lambda x, state: 1000 * x),
        "scale it, or set `normalize_obs=True`",
    ),
    "large rewards": (
        walk(change=replaced(reward=lambda step, *_: 1000 * step.reward)),
        "scale them, or set `normalize_reward=True`.",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(quick_compiles):
    yield


def test_a_valid_environment_has_no_faults_and_no_warnings():
    for spec in (SPEC, CONTINUOUS):
        report = rljax.check_env(walk(spec))
        assert report.ok and not report.warnings, str(report)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found(name):
    env, words = FAULTS[name]
    report = rljax.check_env(env)
    assert not report.ok
    (fault,) = report.faults
    assert words in fault, fault
    assert fault.endswith(".") and report.env_id == "Mine"
    assert "Mine: 1 fault, " in str(report) and f"\n- {fault}" in str(report)


@pytest.mark.parametrize("name", WARNINGS)
def test_every_warning_is_found(name):
    env, words = WARNINGS[name]
    report = rljax.check_env(env)
    assert report.ok, report.faults
    assert any(words in warning for warning in report.warnings), str(report)
    assert len(report.warnings) == 1, report.warnings


def test_facts():
    report = rljax.check_env("CartPole-v1", max_episode_steps=15)
    text = "\n".join(report.facts)
    reward_fact = next(x for x in rljax.check_env("rljax/Maze").facts if x.startswith("Rewards"))
    assert reward_fact.startswith("Rewards of random actions are from -1 to 1, ")
    assert reward_fact.endswith("% are not 0.")
    for words in (
        "`obs` is float32 [4], from -",
        "Actions are discrete, 2.",
        "episodes ended in 512 random steps of 16 copies",
        "15.0 steps on average" if "0 terminated" in text else "truncated",
        "All rewards of 6,144 random steps are 1.",
        "The state of one copy has ",
        "steps a second on cpu, after ",
    ):
        assert words in text
    assert len(set(report.facts)) == len(report.facts)
    assert all(fact[0] in "`ARTN123456789" and fact.endswith(".") for fact in report.facts), (
        report.facts
    )


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "partial/CartPole-v1"])
def test_environments_of_rljax_pass(env_id):
    report = rljax.check_env(env_id)
    assert report.ok and not report.warnings, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["gymnax", "rljax", "partial"])
def test_all_environments_of_a_suite_pass(suite):
    with jax.numpy_rank_promotion("allow"):
        for env_id in envs.environment_ids(suite):
            report = rljax.check_env(env_id)
            assert report.ok, str(report)


def test_the_time_limit_of_the_environment_is_reached():
    report = rljax.check_env("Pendulum-v1", max_episode_steps=600)
    assert any("0 terminated, 32 truncated" in fact for fact in report.facts)


def test_actions_of_the_first_copies_are_at_the_bounds():
    obs, key = jnp.zeros((16, 2)), jax.random.key(0)
    spec = CONTINUOUS._replace(action_low=np.array([-2.0, 0.0]), action_high=1.0)
    actions = np.asarray(trials.random_actions(spec, obs, key))
    assert actions[0].tolist() == [-2, 0] and actions[1].tolist() == [1, 1]
    assert np.isin(actions[2:4, 0], (-2, 1)).all() and np.isin(actions[2:4, 1], (0, 1)).all()
    inside = actions[4:]
    assert (inside > [-2, 0]).all() and (inside < 1).all()


def test_lengths_of_episodes():
    done = np.zeros((10, 2), bool)
    done[[2, 6], 0] = True
    done[9, 1] = True
    nothing = np.zeros((10, 2), bool)
    trial = trials.Trial(None, nothing, done, nothing.copy(), {}, {}, True, 0, 0, 0)
    trial.truncated[6, 0], trial.terminated[6, 0] = True, False
    terminated, truncated, unfinished = lengths.episode_lengths(trial)
    assert sorted(terminated) == [3, 10] and truncated.tolist() == [4] and unfinished == 3


def test_errors_of_the_caller_are_raised():
    with pytest.raises(ValueError, match="did you mean `CartPole-v1`"):
        rljax.check_env("CartPol-v1")
    with pytest.raises(ValueError, match="has no option `mass`"):
        rljax.check_env("CartPole-v1", mass=3)


def test_the_command(capsys, monkeypatch):
    assert main(["check-env", "rljax/Maze", "--env-params.max-episode-steps", "9"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("rljax/Maze: no faults, no warnings\n") and "truncated" in text

    def make(env, max_episode_steps=20):
        return walk(limit=max_episode_steps, limit_terminates=True)

    monkeypatch.setattr(envs, "make", make)
    assert main(["check-env", "Mine"]) == 1
    assert "the time limit; return `truncated`" in " ".join(capsys.readouterr().out.split())
    assert main(["check-env"]) == 2
    assert main(["check-env", "rljax/Maze", "--size", "3"]) == 2
    assert "`rljax check-env` has no option `size`" in capsys.readouterr().err


def test_an_end_of_the_task_after_as_many_steps_as_the_limit_is_no_fault():
    """DeepSea ends in its last row, which gymnax also makes its time limit."""
    assert rljax.check_env("DeepSea-bsuite").ok
