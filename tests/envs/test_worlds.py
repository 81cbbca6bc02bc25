"""The small environments against the tables of gymnasium, against their rules, and their models."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import envs
from rljax.envs import grids, worlds
from rljax.envs.wrapped import innermost
from rljax.types import sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

KEY = jax.random.key(0)
UP, DOWN, RIGHT, LEFT = range(4)
STOCHASTIC = {
    "RandomWalk": {}, "FrozenLake": {}, "FrozenLake8x8": {}, "Maze": {"slip": 0.3},
    "WindyGridworld": {"gusts": True, "moves": 9},
}  # fmt: skip
DETERMINISTIC = [name for name in worlds.WORLDS if name not in STOCHASTIC or STOCHASTIC[name]]


def all_steps(env, num_states, clock=(), repeats=1):
    """Takes every action in every state. Returns next cells and `Step`, `[S, A, repeats]`."""
    state = grids.GridState(jnp.arange(num_states), clock)
    noise = env.sample_noise(KEY, num_states * env.spec.num_actions * repeats)
    noise = noise.reshape(num_states, env.spec.num_actions, repeats, -1)
    actions = jnp.arange(env.spec.num_actions)
    step = jax.vmap(env.step, (None, None, 0))
    step = jax.vmap(step, (None, 0, 0))
    step = jax.vmap(step, (grids.GridState(0, None), None, 0))
    next_state, result = jax.jit(step)(state, actions, noise)
    return next_state.cell, result


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_every_environment_passes_the_checks(name):
    env = envs.make(f"rljax/{name}")
    envs.validate(env)
    assert env.spec.env_id == f"rljax/{name}"
    assert (env.spec.model is not None) == (
        name not in ("MazeDQN", "BlockingMaze", "ShortcutMaze", "ShortCorridor")
    )
    expected = {"FrozenLake": 100, "FrozenLake8x8": 200}
    assert env.spec.max_episode_steps == expected.get(name, 0)
    model = worlds.model(name)
    np.testing.assert_allclose(model.transition.sum(axis=-1), 1.0)
    assert model.transition.dtype == np.float64
    assert model.start.sum() == 1
    assert set(np.unique(model.terminated)) == {0.0, 1.0}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_environments_agree_with_their_models(name):
    params = {"observed": True} if name == "ShortCorridor" else {}
    env, model = worlds.from_id(name, **params), worlds.model(name, **params)
    changes = name in ("BlockingMaze", "ShortcutMaze")
    clock = grids.Persistent(jnp.int32(0)) if changes else ()
    cell, step = all_steps(env, len(model.start), clock)
    assert env.sample_noise(KEY, 7).shape == (7, 0)  # no random numbers
    next_state = np.asarray(cell[:, :, 0])
    assert set(np.unique(model.transition)) == {0.0, 1.0}
    np.testing.assert_array_equal(next_state, model.transition.argmax(axis=-1))
    np.testing.assert_array_equal(step.reward[:, :, 0], model.reward)
    terminated = np.take_along_axis(model.terminated, next_state[..., None], axis=-1)[..., 0]
    np.testing.assert_array_equal(step.terminated[:, :, 0], terminated)
    assert not step.truncated.any()
    if env.spec.num_states:
        np.testing.assert_array_equal(step.next_obs[:, :, 0], next_state)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_environments_agree_with_their_models(name):
    world = worlds.world_of(name, **STOCHASTIC[name])._replace(max_episode_steps=0)
    env, model = grids.env_of(world), worlds.model(name, **STOCHASTIC[name])
    count = 4000
    cell, step = all_steps(env, len(model.start), repeats=count)
    assert env.sample_noise(KEY, 7).shape == (7, 1)
    frequency = np.zeros_like(model.transition)
    state, action, _ = np.ogrid[: len(frequency), : frequency.shape[1], :1]
    np.add.at(frequency, (state, action, np.asarray(cell)), 1 / count)
    assert not frequency[model.transition == 0].any()
    error = np.sqrt(model.transition * (1 - model.transition) / count)
    assert (np.abs(frequency - model.transition) <= 5 * error + 1e-9).all()
    error = step.reward.std(axis=-1) / np.sqrt(count)
    assert (np.abs(step.reward.mean(axis=-1) - model.reward) <= 5 * error + 1e-5).all()
    terminated = model.terminated[state, action, np.asarray(cell)]
    np.testing.assert_array_equal(step.terminated, terminated)


@pytest.mark.parametrize(
    ("name", "peer", "options", "params", "order"),
    [
        ("FrozenLake", "FrozenLake-v1", {"map_name": "4x4"}, {}, range(4)),
        ("FrozenLake8x8", "FrozenLake8x8-v1", {}, {}, range(4)),
        ("FrozenLake", "FrozenLake-v1", {"is_slippery": False}, {"slip": 0}, range(4)),
        ("CliffWalking", "CliffWalking-v1", {}, {}, (UP, RIGHT, DOWN, LEFT)),
    ],
)
def test_models_equal_those_of_gymnasium(name, peer, options, params, order):
    """In all reachable states; `order` is the action of rljax for each action of gymnasium."""
    theirs = gymnasium.make(peer, **options)
    model = worlds.model(name, **params)
    table = theirs.unwrapped.P
    assert theirs.unwrapped.observation_space.n == len(model.start)
    np.testing.assert_allclose(model.start, theirs.unwrapped.initial_state_distrib)
    if theirs.spec.max_episode_steps:
        assert envs.make(f"rljax/{name}").spec.max_episode_steps == theirs.spec.max_episode_steps
    reached, queue = set(), [int(model.start.argmax())]
    while queue:
        state = queue.pop()
        if state in reached:
            continue
        reached.add(state)
        for action in range(4):
            transition, ends, reward = np.zeros_like(model.start), np.zeros_like(model.start), 0.0
            for probability, next_state, gain, done in table[state][action]:
                transition[next_state] += probability
                reward += probability * gain
                ends[next_state] = max(ends[next_state], done)
                if not done:
                    queue.append(int(next_state))
            ours = order[action]
            np.testing.assert_allclose(model.transition[state, ours], transition, atol=1e-12)
            np.testing.assert_allclose(model.reward[state, ours], reward, atol=1e-12)
            np.testing.assert_array_equal(model.terminated[state, ours] * (transition > 0), ends)
    assert len(reached) == {"FrozenLake": 11, "FrozenLake8x8": 53, "CliffWalking": 37}[name]


def test_maze():
    """By its rules: +1 at the goal (2, 2), -1 in the pits (1, 2) and (2, 1); all are terminal."""
    model = worlds.model("Maze")
    pits, goal = {(1, 2), (2, 1)}, (2, 2)
    for row in range(4):
        for column in range(4):
            if (row, column) in pits or (row, column) == goal:
                continue
            targets = {
                UP: (max(row - 1, 0), column), DOWN: (min(row + 1, 3), column),
                RIGHT: (row, min(column + 1, 3)), LEFT: (row, max(column - 1, 0)),
            }  # fmt: skip
            for action, target in targets.items():
                state, next_state = 4 * row + column, 4 * target[0] + target[1]
                assert model.transition[state, action, next_state] == 1
                assert model.reward[state, action] == (target == goal) - (target in pits)
                terminated = target == goal or target in pits
                assert model.terminated[state, action, next_state] == terminated


@pytest.mark.parametrize("moves", [4, 8, 9])
def test_windy_gridworld(moves):
    """Example 6.5: the wind of the column that the agent leaves shifts it up, within the grid."""
    wind = [0, 0, 0, 1, 1, 1, 2, 2, 1, 0]
    offsets = [(-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (0, 0)]
    for gusts in (False, True):
        model = worlds.model("WindyGridworld", moves=moves, gusts=gusts)
        for state in set(range(70)) - {37}:
            row, column = divmod(state, 10)
            for action, (down, right) in enumerate(offsets[:moves]):
                expected = np.zeros(70)
                for gust in (-1, 0, 1) if gusts and wind[column] else (0,):
                    next_row = np.clip(row + down - wind[column] - gust, 0, 6)
                    next_state = 10 * next_row + np.clip(column + right, 0, 9)
                    expected[next_state] += 1 / 3 if gusts and wind[column] else 1
                np.testing.assert_allclose(model.transition[state, action], expected, atol=1e-12)
        assert (np.delete(model.reward, 37, axis=0) == -1).all()
        assert model.start.argmax() == 30


def test_walls_of_the_dyna_maze():
    model = worlds.model("DynaMaze")
    walls = {(1, 2), (2, 2), (3, 2), (4, 5), (0, 7), (1, 7), (2, 7)}
    free = [9 * r + c for r in range(6) for c in range(9) if (r, c) not in walls]
    into = [9 * r + c for r, c in walls]
    assert len(free) == 47
    assert not model.transition[free][:, :, into].any()
    assert model.transition[9 * 2 + 1, RIGHT, 9 * 2 + 1] == 1
    assert (model.start.argmax(), model.reward.max()) == (18, 1)
    assert np.argwhere(model.reward[free] == 1).shape == (1, 2)


def take_actions(env, actions, key=KEY):
    """Takes a sequence of actions. Returns the states and the `Step`, `[len(actions)]`."""

    def step_once(state, inputs):
        state, step = env.step(state, *inputs)
        return state, (state, step)

    state, obs = env.reset(key)
    noise = env.sample_noise(key, len(actions))
    return jax.jit(lambda s: jax.lax.scan(step_once, s, (jnp.asarray(actions), noise)))(state)[1]


def test_treasure():
    env = envs.make("rljax/Treasure")
    _, step = take_actions(env, [0, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(step.next_obs, [0, 1, 2, 3, 4, 5, 1])
    np.testing.assert_array_equal(step.obs, [0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(step.reward, [0, 0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(step.terminated, [0, 0, 0, 0, 0, 1, 0])
    assert envs.make("rljax/Treasure", length="10").spec.num_states == 10


def test_the_cliff_does_not_terminate_the_episode():
    _, step = take_actions(envs.make("rljax/CliffWalking"), [UP, RIGHT, DOWN, UP])
    np.testing.assert_array_equal(step.next_obs, [24, 25, 36, 24])
    np.testing.assert_array_equal(step.reward, [-1, -1, -100, -1])
    assert not step.terminated.any()


@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize(
    ("name", "path", "is_blocked"),
    [
        ("BlockingMaze", [RIGHT] * 5 + [UP] * 5, True),
        ("ShortcutMaze", [LEFT] * 3 + [UP] * 5 + [RIGHT] * 8, False),
    ],
)
def test_mazes_change_once(name, path, is_blocked, limit):
    """The clock counts steps over episodes, also after time limits."""
    params = {} if limit is None else {"max_episode_steps": limit}
    change_at = 2 * len(path) + 1
    env = envs.make(f"rljax/{name}", change_at=change_at, **params)
    states, step = take_actions(env, path * 6)
    clock = innermost(states).clock.value
    np.testing.assert_array_equal(clock, 1 + np.arange(len(path) * 6))
    if limit is None:
        ends = np.flatnonzero(step.terminated) + 1
        np.testing.assert_array_equal(ends, len(path) * (np.arange(2 if is_blocked else 6) + 1))
    else:
        assert step.truncated.sum() >= 5 and not step.terminated.any()
    last = jax.tree.map(lambda x: x[-1], states)
    first = jax.tree.map(lambda x: x[0], states)
    walls = [env.render(state).split("\n")[3] for state in (first, last)]
    expected = {
        "BlockingMaze": ["########.", ".########"],
        "ShortcutMaze": [".########", ".#######."],
    }
    assert walls == expected[name]


def test_every_environment_of_a_batch_has_a_clock():
    env = envs.build("rljax/BlockingMaze", 2, change_at=3)
    state, _ = env.reset(KEY)
    for _ in range(4):
        state, _ = env.step(state, jnp.array([UP, RIGHT]), sample_one(env.sample_noise, KEY))
    np.testing.assert_array_equal(innermost(state).clock.value, [4, 4])


def test_change_at_0_is_the_maze_after_the_change():
    before, after = (worlds.model("BlockingMaze", change_at=n) for n in (1, 0))
    assert before.transition[4 * 9 + 8, UP, 3 * 9 + 8] == 1
    assert after.transition[4 * 9 + 8, UP, 4 * 9 + 8] == 1
    assert envs.make("rljax/BlockingMaze", change_at=0).spec.model is not None


def test_an_agent_inside_a_new_wall_can_leave_it():
    env = worlds.from_id("BlockingMaze", change_at=0)
    state = grids.GridState(jnp.int32(3 * 9 + 8))
    next_state, _ = env.step(state, jnp.int32(UP), sample_one(env.sample_noise, KEY))
    assert next_state.cell == 2 * 9 + 8


def test_short_corridor():
    """All states look alike, and the second state reverses the actions."""
    env = envs.make("rljax/ShortCorridor")
    assert (env.spec.num_states, env.spec.num_actions) == (1, 2)
    states, step = take_actions(env, [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(innermost(states).cell, [1, 0, 1, 2, 0])
    np.testing.assert_array_equal(step.obs, 0)
    np.testing.assert_array_equal(step.next_obs, 0)
    np.testing.assert_array_equal(step.terminated, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(step.reward, -1)
    step = take_actions(envs.make("rljax/ShortCorridor", observed=True), [1, 1, 1, 0, 1])[1]
    np.testing.assert_array_equal(step.next_obs, [1, 0, 1, 2, 3])


def test_features_are_the_position_relative_to_the_goal():
    env = envs.make("rljax/MazeDQN")
    assert (env.spec.obs_shape, env.spec.num_states) == ((2,), 0)
    np.testing.assert_array_equal(env.reset(KEY)[1], [-0.5, -0.5])
    _, step = take_actions(env, [RIGHT, DOWN, LEFT, DOWN, RIGHT, RIGHT])
    expected = [(-1, -2), (-1, -1), (-2, -1), (-2, 0), (-1, 0), (0, 0)]
    np.testing.assert_array_equal(step.next_obs, np.array(expected) / 4)
    np.testing.assert_array_equal(step.reward, [0, 0, 0, 0, 0, 1])
    assert envs.make("rljax/MazeDQN", features=False).spec.num_states == 16
    assert envs.make("rljax/Maze", features="true").spec.obs_shape == (2,)


def test_time_limits_truncate():
    env = envs.make("rljax/FrozenLake", slip=0)
    _, step = take_actions(env, [0] * 100)
    assert step.truncated.sum() == 1 and step.truncated[99]
    assert not step.terminated.any()
    _, step = take_actions(envs.make("rljax/Maze", max_episode_steps=3), [UP] * 6)
    np.testing.assert_array_equal(step.truncated, [0, 0, 1, 0, 0, 1])


def test_render_shows_the_agent():
    def shown(name, *actions, **params):
        env = envs.make(f"rljax/{name}", **params)
        state, _ = env.reset(KEY)
        for action in actions:
            state, _ = env.step(state, jnp.int32(action), sample_one(env.sample_noise, KEY))
        return env.render(state)

    assert shown("Treasure") == "o----T"
    assert shown("Treasure", 1) == "-o---T"
    assert shown("Treasure", 1, max_episode_steps=5) == "-o---T"
    assert shown("Maze", RIGHT, DOWN) == "....\n.oX.\n.XG.\n...."
    assert shown("FrozenLake").startswith("o...\n.X.X\n")
    assert shown("CliffWalking").split("\n")[-1] == "oXXXXXXXXXXG"
    assert shown("CliffWalking", UP).split("\n")[-1] == ".XXXXXXXXXXG"


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        ("rljax/Maze", {"slipp": 0.1}, "rljax/Maze has no option `slipp`: did you mean `slip`?"),
        ("rljax/Treasure", {"max_episode_step": 3}, "did you mean `max_episode_steps`?"),
        ("rljax/Maze", {"slip": 1.5}, "`slip` is 1.5, but it must be at least 0 and at most 1."),
        ("rljax/Maze", {"slip": "much"}, "`slip` is 'much', but it must be a number."),
        ("rljax/WindyGridworld", {"moves": 5}, "`moves` is 5, but it must be 4, 8"),
        ("rljax/BlockingMaze", {"change_at": -1}, "`change_at` is -1, but it must be at least 0."),
        ("rljax/RandomWalk", {"length": 4}, "`length` is 4, but it must be odd"),
        ("rljax/Treasure", {"length": 1}, "`length` is 1, but it must be at least 2."),
        ("rljax/Mase", {}, "there is no environment `rljax/Mase`: did you mean `rljax/Maze`?"),
    ],
)
def test_error_messages(env_id, params, message):
    with pytest.raises(ValueError) as error:
        envs.make(env_id, **params)
    assert message in str(error.value)


def test_ids():
    ids = {f"rljax/{name}" for name in ("Treasure", "Maze", "Arm-easy", "TwoJointArm", "Car2D")}
    assert ids <= set(envs.environment_ids())
    with pytest.raises(ValueError, match="there is no world `Lake`: did you mean `FrozenLake`"):
        worlds.model("Lake")
