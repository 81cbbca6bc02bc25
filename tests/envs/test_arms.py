"""The robot arms against their rules in float64, with complex numbers as positions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import rollout
from scipy.integrate import quad
from scipy.stats import kstest

from rljax import envs
from rljax.envs import arms, worlds
from rljax.envs.resets import Persistent
from rljax.envs.wrapped import innermost, replace_innermost

pytestmark = pytest.mark.usefixtures("quick_compiles")

KEY = jax.random.key(0)
BASE = 200 + 200j
ARMS = {
    "easy": ("Arm-easy", {}), "hard": ("Arm-hard", {}),
    **{version: ("TwoJointArm", {"version": version}) for version in arms.VERSIONS},
}  # fmt: skip


def make_raw(kind):
    """Returns an environment without resets and a function that sets the state of N copies."""
    name, params = ARMS[kind]
    env = worlds.from_id(name, max_episode_steps=1000, **params)

    def state_of(angles, goal, steps_at_goal):
        keys = jax.random.split(KEY, len(angles))
        angles = jnp.asarray(angles, jnp.float32)
        inner = arms.ArmState(
            Persistent(angles) if kind == "hard" else angles,
            jnp.asarray(goal, jnp.float32), jnp.asarray(steps_at_goal, jnp.int32),
        )  # fmt: skip
        return replace_innermost(jax.vmap(env.reset)(keys)[0], inner)

    return env, state_of


def links(kind, angles):
    """Returns the positions of joint and tip as complex numbers `[N]`."""
    first, second = np.asarray(angles, np.float64).T
    second = second if kind in ("easy", "hard") else first + second
    joint = BASE + 100 * np.exp(1j * first)
    return joint, joint + 100 * np.exp(1j * second)


def is_at_goal(kind, tip, goal):
    if kind in ("easy", "hard"):
        return np.abs(tip - goal) < 15
    return (np.abs((tip - goal).real) < 20) & (np.abs((tip - goal).imag) < 20)


def observation(kind, angles, goal, flag):
    if kind == "part4":
        return np.asarray(angles)
    joint, tip = links(kind, angles)
    if kind in ("easy", "hard"):
        parts = [flag, *((x - goal) / 200 for x in (joint, tip, BASE))]
    else:
        parts = [joint / 200, tip / 200, (goal - joint) / 400, (goal - tip) / 400, flag]
    split = [[x] if np.isrealobj(x) else [x.real, x.imag] for x in parts]
    return np.stack(list(itertools.chain(*split)), axis=1)


def reference_step(kind, angles, goal, count, action):
    """Returns `(angles, count, obs, reward, terminated)`; `goal` is complex `[N]`."""
    angles = np.mod(angles + 0.1 * np.clip(action, -1, 1), 2 * np.pi)
    tip = links(kind, angles)[1]
    inside = is_at_goal(kind, tip, goal)
    count = np.where(inside, count + 1, 0)
    if kind == "part4":
        reward, terminated = 1.0 * inside, inside
    else:
        terminated = count > 50
        scale, bonus = (200, 10) if kind in ("easy", "hard") else (400, 0)
        reward = -np.abs(tip - goal) / scale + inside + bonus * terminated
    return angles, count, observation(kind, angles, goal, 1.0 * (count > 0)), reward, terminated


@pytest.mark.parametrize("kind", ARMS)
def test_every_arm_passes_the_checks(kind):
    name, params = ARMS[kind]
    env = envs.make(f"rljax/{name}", **params)
    envs.validate(env)
    spec = env.spec
    assert (spec.env_id, spec.max_episode_steps) == (f"rljax/{name}", 200)
    assert (spec.action_shape, spec.action_low, spec.action_high) == ((2,), -1, 1)
    assert spec.obs_shape == ({"easy": 7, "hard": 7, "part4": 2}.get(kind, 9),)
    assert env.sample_noise(KEY, 7).shape == (7, 0)


@pytest.mark.parametrize("kind", ARMS)
def test_steps_follow_the_rules_from_random_states(kind):
    rng, count = np.random.default_rng(0), 2000
    angles = rng.uniform(0, 2 * np.pi, (count, 2)).astype(np.float32)
    action = rng.normal(0, 1, (count, 2)).astype(np.float32)
    steps_at_goal = rng.integers(40, 53, count)
    near = links(kind, angles)[1] + rng.uniform(-30, 30, count) + 1j * rng.uniform(-30, 30, count)
    anywhere = rng.uniform(0, 400, count) + 1j * rng.uniform(0, 400, count)
    goal = np.where(rng.random(count) < 0.7, near, anywhere).astype(np.complex64)
    env, state_of = make_raw(kind)
    state = state_of(angles, np.stack([goal.real, goal.imag], axis=1), steps_at_goal)
    next_state, step = jax.jit(jax.vmap(env.step))(state, action, jnp.zeros((count, 0)))
    inner = innermost(next_state)
    expected = reference_step(kind, angles, goal.astype(complex), steps_at_goal, action)
    turn = np.exp(1j * np.asarray(arms.angles_of(inner))) / np.exp(1j * expected[0])
    np.testing.assert_allclose(np.angle(turn), 0, atol=1e-5)
    np.testing.assert_array_equal(inner.steps_at_goal, expected[1])
    np.testing.assert_allclose(step.next_obs, expected[2], atol=1e-5)
    np.testing.assert_allclose(step.reward, expected[3], atol=1e-5)
    np.testing.assert_array_equal(step.terminated, expected[4])
    assert 50 < expected[4].sum() < 1000 and 200 < (expected[1] > 0).sum() < 1600
    assert not step.truncated.any()


def hold_at(kind, goal, actions):
    """Takes steps with the links at right angles, the tip at (300, 300). Returns `Step [T]`."""
    env, state_of = make_raw(kind)
    # absolute and relative angles are equal, since the first link is on the x-axis
    state = state_of([[0, np.pi / 2]], [goal], [0])
    state = jax.tree.map(lambda x: x[0], state)
    step_of = jax.jit(lambda state, action: env.step(state, action, jnp.zeros(0)))
    _, step = jax.lax.scan(step_of, state, jnp.array(actions))
    return jax.tree.map(np.asarray, step)


@pytest.mark.parametrize("kind", ["easy", "hard", "part5", "final"])
def test_the_task_ends_at_the_51st_consecutive_step_at_the_goal(kind):
    step = hold_at(kind, (300.0, 300.0), [(0.0, 0.0)] * 51)
    assert np.flatnonzero(step.terminated).tolist() == [50]
    bonus = 10 if kind in ("easy", "hard") else 0
    np.testing.assert_allclose(step.reward, [1.0] * 50 + [1.0 + bonus], atol=1e-5)


@pytest.mark.parametrize("kind", ["easy", "hard", "part5", "final"])
def test_leaving_the_goal_resets_the_count(kind):
    """A turn by 0.1 moves the tip by 14, to a place at the goal, and one by 0.2 off it."""
    turn = (1.0, 1.0) if kind in ("easy", "hard") else (1.0, 0.0)
    back = tuple(-x for x in turn)
    actions = [(0.0, 0.0)] * 30 + [turn, turn, back, back] + [(0.0, 0.0)] * 49
    step = hold_at(kind, (300.0, 300.0), actions)
    assert np.flatnonzero(step.reward < 0.5).tolist() == [31]
    assert np.flatnonzero(step.terminated).tolist() == [31 + 51]


@pytest.mark.parametrize("goal", [(300.0, 325.0), (325.0, 300.0)])
def test_both_coordinates_must_be_inside_the_square(goal):
    env, state_of = make_raw("final")
    state = state_of([[0, np.pi / 2]], [goal], [30])
    state, _ = jax.vmap(env.step)(state, jnp.zeros((1, 2)), jnp.zeros((1, 0)))
    assert innermost(state).steps_at_goal.tolist() == [0]


def test_part4_ends_when_the_tip_is_at_the_goal():
    turn = [(1.0, 0.0)] * 3  # from 40 to the right of the goal, 14 per step
    goal = 200 + 100 * np.sqrt(2) * np.exp(1j * (np.pi / 4 + 0.28)) * np.array([1, -1j])
    step = hold_at("part4", goal.real, turn)
    np.testing.assert_array_equal(step.reward, [0, 1, 1])
    np.testing.assert_array_equal(step.terminated, [False, True, True])


@pytest.mark.parametrize("kind", ["easy", "hard", "final"])
def test_only_arm_hard_keeps_its_angles_between_episodes(kind):
    """The first observation of an episode is that of the arm as it is, also after termination."""
    name, params = ARMS[kind]
    env = envs.build(f"rljax/{name}", 3, max_episode_steps=7, **params)
    actions = jax.random.uniform(KEY, (40, 3, 2), minval=-1, maxval=1)
    obs, states, step = rollout(env, KEY, actions)
    inner = innermost(states)
    angles, goal = np.asarray(arms.angles_of(inner)), np.asarray(inner.goal)
    for t, b in np.ndindex(40, 3):
        goal_tb = np.array([goal[t, b, 0] + 1j * goal[t, b, 1]])
        flag = np.array([1.0 * (inner.steps_at_goal[t, b] > 0)])
        expected = observation(kind, angles[t, b][None], goal_tb, flag)[0]
        np.testing.assert_allclose(step.obs[t, b], expected, atol=1e-5)
    done = np.asarray(step.truncated)
    np.testing.assert_array_equal(np.flatnonzero(done[:, 0]), range(6, 40, 7))
    change = np.angle(np.exp(1j * np.diff(angles, axis=0)))
    jumps = (np.abs(change) > 0.1001).any(axis=-1)
    np.testing.assert_array_equal(jumps, done[1:] & (kind != "hard"))
    new_goal = (np.diff(goal, axis=0) != 0).any(axis=-1)
    np.testing.assert_array_equal(new_goal, done[1:] & (kind != "easy"))
    assert (obs.shape[0], len(np.unique(angles[0], axis=0))) == (3, 3)


def test_arm_hard_keeps_its_angles_with_a_second_time_limit():
    env = envs.make(envs.make("rljax/Arm-hard"), max_episode_steps=5)
    _, states, step = rollout(env, KEY, jnp.ones((20, 2)))
    angles = np.asarray(arms.angles_of(innermost(states)))
    np.testing.assert_allclose(np.diff(angles, axis=0) % (2 * np.pi), 0.1, atol=1e-5)
    assert step.truncated.sum() == 4
    goal = np.asarray(innermost(states).goal)
    np.testing.assert_allclose(step.obs[:, 5:], (200 - goal) / 200, atol=1e-6)
    tip = links("hard", angles)[1] - (goal[:, 0] + 1j * goal[:, 1])
    np.testing.assert_allclose(step.obs[:, 3], tip.real / 200, atol=1e-5)


def random_starts(kind, count):
    """Returns the angles `[N, 2]` and goals, complex `[N]`, of initial states."""
    name, params = ARMS[kind]
    keys = jax.random.split(jax.random.key(1), count)
    state, _ = jax.jit(jax.vmap(worlds.from_id(name, **params).reset))(keys)
    angles, goal = arms.angles_of(innermost(state)), np.asarray(innermost(state).goal, np.float64)
    return np.asarray(angles), goal[:, 0] + 1j * goal[:, 1]


@pytest.mark.parametrize("kind", ARMS)
def test_initial_angles_are_uniform_and_goals_where_the_rules_say(kind):
    angles, goal = random_starts(kind, 4000)
    for column in angles.T:
        assert kstest(column, "uniform", (0, 2 * np.pi)).pvalue > 1e-3
    if kind == "final":
        for column in (goal.real, goal.imag):
            assert kstest(column, "uniform", (0, 400)).pvalue > 1e-3
    elif kind == "hard":
        for column in (goal.real, goal.imag):
            for bound in (100, 300):
                assert abs((column == bound).mean() - 1 / 4) < 5 * np.sqrt(3 / 16 / 4000)
            inner = column[(column > 100) & (column < 300)]
            assert kstest(inner, "uniform", (100, 200)).pvalue > 1e-3
    else:
        assert set(goal) == {250 + 303j if kind == "easy" else 100 + 100j}


def angles_to(goal):
    """Inverse kinematics: relative angles `[N, 2]` with the tip at `goal`, in the disc."""
    offset = goal - BASE
    elbow = 2 * np.arccos(np.minimum(np.abs(offset) / 200, 1))
    return np.stack([np.angle(offset) - elbow / 2, elbow], axis=1)


def test_the_tip_reaches_the_disc_of_radius_200_and_no_other_point():
    rng = np.random.default_rng(0)
    goal = BASE + 200 * np.sqrt(rng.random(3000)) * np.exp(2j * np.pi * rng.random(3000))
    positions = jax.vmap(lambda angles: jnp.stack(arms.positions(angles, relative=True)))
    joint, tip = np.moveaxis(np.asarray(positions(jnp.float32(angles_to(goal)))), 1, 0)
    np.testing.assert_allclose(tip, np.stack([goal.real, goal.imag], axis=1), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(joint - 200, axis=1), 100, atol=1e-3)
    tip = np.asarray(positions(jnp.float32(rng.uniform(0, 7, (3000, 2)))))[:, 1]
    assert np.linalg.norm(tip - 200, axis=1).max() < 200 + 1e-3


def test_probabilities_of_goals_out_of_reach():
    """Of the center, 1 - pi / 4; of the whole square, the integral over one corner, times 4."""
    _, goal = random_starts("final", 40_000)
    nearest = np.maximum(np.abs([goal.real - 200, goal.imag - 200]) - 20, 0)
    is_out = np.abs(goal - BASE) > 200, np.hypot(*nearest) > 200
    corner = quad(lambda x: max(0, 180 - np.sqrt(200**2 - x**2)), 0, 180, points=[np.sqrt(7600)])
    probabilities = 1 - np.pi / 4, 4 * corner[0] / 400**2
    np.testing.assert_allclose(probabilities, (0.2146, 0.0833), atol=5e-5)
    for out, p in zip(is_out, probabilities, strict=True):
        assert abs(out.mean() - p) < 5 * np.sqrt(p * (1 - p) / len(goal))


@pytest.mark.parametrize("kind", ARMS)
def test_turning_to_the_angles_of_the_goal_completes_every_reachable_task(kind):
    """In at most 32 steps of turning and 51 of holding; squares partly in the disc suffice."""
    name, params = ARMS[kind]
    env, count = worlds.from_id(name, **params), 300
    state, _ = jax.vmap(env.reset)(jax.random.split(KEY, count))
    goal = np.asarray(innermost(state).goal, np.float64)
    if kind == "final":  # the point of the square that is nearest to the base
        goal = 200 + np.sign(goal - 200) * np.maximum(np.abs(goal - 200) - 19.9, 0)
    goal = goal[:, 0] + 1j * goal[:, 1]
    target = angles_to(goal)
    if kind in ("easy", "hard"):
        target = np.cumsum(target, axis=1)
    target = jnp.float32(target)

    def control(state, _):
        error = target - arms.angles_of(innermost(state))
        error = (error + jnp.pi) % (2 * jnp.pi) - jnp.pi
        state, step = jax.vmap(env.step)(state, error / 0.1, jnp.zeros((count, 0)))
        return state, step.terminated

    terminated = np.asarray(jax.lax.scan(control, state, None, length=32 + 51)[1]).any(axis=0)
    is_reachable = np.abs(goal - BASE) < 199.9
    np.testing.assert_array_equal(terminated, is_reachable)
    assert is_reachable.all() or (kind == "final" and 0.86 < is_reachable.mean() < 0.97)


def test_time_limits_truncate():
    """Both links turn at full speed, so the tip moves on a circle and never stays at the goal."""
    step = rollout(envs.make("rljax/Arm-easy"), KEY, jnp.ones((401, 2)))[2]
    assert np.flatnonzero(step.truncated).tolist() == [199, 399] and not step.terminated.any()
    step = rollout(envs.make("rljax/Arm-easy", max_episode_steps=3), KEY, jnp.ones((7, 2)))[2]
    assert np.flatnonzero(step.truncated).tolist() == [2, 5]


def test_render():
    env, state_of = make_raw("hard")
    state = jax.tree.map(lambda x: x[0], state_of([[0, np.pi / 2]], [(300.0, 303.0)], [7]))
    assert env.render(state) == "tip (300, 300), goal (300, 303), distance 3.0, 7 steps at the goal"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"version": "part6"}, "`version` is 'part6', but it must be part4, part5 or final: did"),
        ({"version": 5}, "`version` is 5, but it must be a string."),
        ({"verson": "final"}, "TwoJointArm has no option `verson`: did you mean `version`?"),
        ({"max_steps": 5}, "TwoJointArm has no option `max_steps`: did you mean `max_episode_"),
        ({"max_episode_steps": 0}, "`max_episode_steps` is 0, but it must be at least 1."),
    ],
)
def test_error_messages(params, message):
    with pytest.raises(ValueError) as error:
        envs.make("rljax/TwoJointArm", **params)
    assert message in str(error.value)
