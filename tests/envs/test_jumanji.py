"""The adapter of jumanji, compared with jumanji's own `reset` and `step`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import PPO, learned_value

jumanji = pytest.importorskip("jumanji")

import rljax  # noqa: E402
from rljax import envs  # noqa: E402
from rljax.envs import jumanji as adapter  # noqa: E402
from rljax.envs.value_checks import random_action  # noqa: E402

QUICK = ["Game2048-v1", "Snake-v1", "Tetris-v0", "Knapsack-v1", "Maze-v0", "MultiCVRP-v0"]
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in adapter.registered() if name != adapter.DOWNLOADS
]  # fmt: skip
pytestmark = [
    pytest.mark.usefixtures("quick_compiles"),
    # jumanji does not close the images of Sokoban
    pytest.mark.filterwarnings("ignore:Exception ignored in.*jumanji"),
    pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types"),  # of BinPack
]


@pytest.fixture(autouse=True)
def _rank_promotion():
    with jax.numpy_rank_promotion("allow"):  # in jumanji
        yield


def codes(x, low=0):
    """Returns the categories of one-hot vectors, `[..., n] -> [...]`."""
    assert (x.sum(axis=-1) == 1).all()
    return x.argmax(axis=-1) + low


def test_all_environments_without_downloads_are_listed():
    listed = envs.environment_ids("jumanji")
    wanted = {f"jumanji/{name}" for name in jumanji.registered_environments()}
    assert wanted - set(listed) == {"jumanji/Sokoban-v0"} and len(listed) >= 25


def test_nothing_is_downloaded():
    with pytest.raises(ValueError, match="Sokoban-v0 would download its levels: set its parameter"):
        envs.make("jumanji/Sokoban-v0")
    from jumanji.environments.routing.sokoban.generator import SimpleSolveGenerator

    env = envs.make("jumanji/Sokoban-v0", generator=SimpleSolveGenerator())
    assert env.spec.obs_shape.grid == (10, 10, 10) and env.spec.max_episode_steps == 120


@pytest.mark.parametrize("name", NAMES)
def test_environments_pass_the_check(name):
    envs.validate(envs.make(f"jumanji/{name}"))


def play(name, num_steps, **params):
    """Plays random legal actions in ours and in jumanji's environment, without resets.

    Returns the observations, and the steps of both with time on the first axis.
    """
    env, theirs = adapter.from_id(name, **params), jumanji.make(name)
    state, obs = env.reset(jax.random.key(3))  # outside `jit`, where jumanji caches its specs
    their_state, their_first = theirs.reset(jax.random.key(3))
    sizes = np.asarray(getattr(theirs.action_spec, "num_values", 0)).reshape(-1)
    is_joint = len(sizes) > 1 and isinstance(env.spec.num_actions, int)

    def one_step(carry, key):
        state, obs, their_state = carry
        action = random_action(env.spec, obs, key)
        their_action = jnp.array(jnp.unravel_index(action, sizes)) if is_joint else action
        state, step = env.step(state, action, key)
        their_state, timestep = theirs.step(their_state, their_action.astype(
            theirs.action_spec.dtype))  # fmt: skip
        return (state, step.obs, their_state), (step._replace(info={}), timestep)

    keys = jax.random.split(jax.random.key(4), num_steps)
    carry = state, obs, jax.tree.map(jnp.asarray, their_state)
    step, timestep = jax.jit(lambda carry: jax.lax.scan(one_step, carry, keys)[1])(carry)
    return jax.device_get((obs, their_first.observation, step, timestep))


@pytest.mark.parametrize("name", NAMES)
def test_rewards_ends_and_masks_are_those_of_jumanji(name):
    first, their_first, step, timestep = play(name, 60)
    limit = getattr(jumanji.make(name), "time_limit", 10_000)
    last = timestep.step_type == 2
    end = min(int(last.argmax()) + 1 if last.any() else 60, limit)
    rewards = timestep.reward.reshape(60, -1).sum(axis=-1)
    np.testing.assert_allclose(step.reward[:end], rewards[:end], rtol=1e-6)
    is_limit = end == limit
    assert step.truncated[:end].tolist() == [False] * (end - 1) + [is_limit]
    assert step.terminated[:end].tolist() == [False] * (end - 1) + [last[end - 1] and not is_limit]
    if hasattr(first, "action_mask"):
        wanted = timestep.observation.action_mask.reshape(60, -1)
        mask = step.next_obs.action_mask
        some_legal = wanted.any(axis=-1)
        assert (first.action_mask == their_first.action_mask.reshape(-1)).all()
        if name != "MMST-v0":  # where single agents have no legal action
            np.testing.assert_array_equal(mask[some_legal], wanted[some_legal])
        assert mask[~some_legal].all()


def test_boards_of_2048_are_one_hot_exponents():
    first, their_first, step, timestep = play("Game2048-v1", 60)
    assert first.board.shape == (4, 4, 18)
    np.testing.assert_array_equal(codes(first.board), their_first.board)
    np.testing.assert_array_equal(codes(step.next_obs.board), timestep.observation.board)


def test_grids_are_images():
    _, _, step, timestep = play("Tetris-v0", 10)
    assert step.obs.grid.shape == (10, 10, 10, 1) and step.obs.grid.dtype == bool
    np.testing.assert_array_equal(step.obs.grid[..., 0], timestep.observation.grid)
    np.testing.assert_array_equal(step.obs.tetromino[..., 0], timestep.observation.tetromino)
    _, _, step, timestep = play("Snake-v1", 20)
    np.testing.assert_array_equal(step.obs.grid, timestep.observation.grid)
    np.testing.assert_allclose(step.obs.step_count[:3], np.arange(1, 4) / 4000, rtol=1e-6)


def test_positions_of_the_maze_are_one_hot():
    _, _, step, timestep = play("Maze-v0", 30)
    for field in ("agent_position", "target_position"):
        ours, theirs = getattr(step.obs, field), getattr(timestep.observation, field)
        np.testing.assert_array_equal(codes(ours.row), theirs.row)
        np.testing.assert_array_equal(codes(ours.col), theirs.col)
    np.testing.assert_array_equal(step.obs.walls[..., 0], timestep.observation.walls)


def test_numbers_are_divided_by_their_bounds():
    _, _, step, timestep = play("MultiCVRP-v0", 20)
    ours, theirs = step.obs, timestep.observation
    np.testing.assert_allclose(ours.nodes["coordinates"], theirs.nodes.coordinates / 10, rtol=1e-6)
    np.testing.assert_allclose(ours.vehicles["capacities"], theirs.vehicles.capacities / 60)
    np.testing.assert_array_equal(ours.coeffs["early"], theirs.coeffs.early)


@pytest.mark.slow
def test_positions_of_pac_man_are_channels():
    _, _, step, timestep = play("PacMan-v1", 60)
    theirs = timestep.observation
    assert step.obs.grid.shape == (60, 31, 28, 5) and step.obs.score is None
    for t in (0, 20, 59):
        wanted = np.zeros((31, 28, 5), bool)
        wanted[..., 0] = theirs.grid[t] == 1
        wanted[theirs.player_locations.x[t], theirs.player_locations.y[t], 1] = True
        names = ("pellet_locations", "power_up_locations", "ghost_locations")
        for channel, name in enumerate(names, 2):
            for column, row in getattr(theirs, name)[t]:
                wanted[row, column, channel] = (row, column) != (0, 0)
        np.testing.assert_array_equal(step.obs.grid[t], wanted)
        assert wanted[..., 0][wanted[..., 2]].all(), "pellets lie in passages"
        assert step.obs.grid[t, ..., 1].sum() == 1


def ends(name, num_steps, action=0, **params):
    """Returns `terminated` and `truncated` of one action repeated, with resets."""
    env = envs.make(f"jumanji/{name}", **params)

    @jax.jit
    def run(key):
        actions = jnp.broadcast_to(jnp.int32(action), envs.checks.action_struct(env.spec).shape)

        def one_step(state, key):
            state, step = env.step(state, actions, key)
            return state, (step.terminated, step.truncated)

        keys = jax.random.split(jax.random.key(1), num_steps)
        return jax.lax.scan(one_step, env.reset(key)[0], keys)[1]

    return jax.device_get(run(jax.random.key(0)))


@pytest.mark.parametrize(
    ("name", "limit", "action"),
    [
        ("SlidingTilePuzzle-v0", 500, 0),
        pytest.param("RobotWarehouse-v0", 500, 0, marks=pytest.mark.slow),
        pytest.param("Connector-v3", 50, 0, marks=pytest.mark.slow),
    ],
)
def test_time_limits_truncate(name, limit, action):
    terminated, truncated = ends(name, 2 * limit + 1, action)
    assert not terminated.any()
    assert np.flatnonzero(truncated).tolist() == [limit - 1, 2 * limit - 1]
    terminated, truncated = ends(name, 15, action, max_episode_steps=7)
    assert not terminated.any() and np.flatnonzero(truncated).tolist() == [6, 13]


def test_a_limit_may_be_longer_than_that_of_jumanji():
    terminated, truncated = ends("SlidingTilePuzzle-v0", 610, max_episode_steps=600)
    assert not terminated.any() and np.flatnonzero(truncated).tolist() == [599]
    assert envs.make("jumanji/Maze-v0", time_limit=30).spec.max_episode_steps == 30


def test_a_limit_for_an_environment_without_one():
    assert envs.make("jumanji/Game2048-v1").spec.max_episode_steps == 0
    terminated, truncated = ends("Game2048-v1", 10, max_episode_steps=4)
    assert not terminated.any() and np.flatnonzero(truncated).tolist() == [3, 7]


def test_a_crash_of_the_snake_terminates():
    terminated, truncated = ends("Snake-v1", 30)
    assert terminated.sum() >= 2 and not truncated.any()


@pytest.mark.slow
def test_truncation_is_bootstrapped():
    assert learned_value("jumanji/SlidingTilePuzzle-v0") == pytest.approx(10, abs=0.3)


def test_parameters():
    assert envs.make("jumanji/Game2048-v1", board_size=5).spec.obs_shape.board == (5, 5, 18)
    spec = envs.make("jumanji/Tetris-v0", num_rows="6", num_cols=8).spec
    assert spec.num_actions == 32 and spec.obs_shape.grid == (6, 8, 1)
    with pytest.raises(ValueError, match="Tetris-v0 has no option `num_row`: did you mean `num_ro"):
        envs.make("jumanji/Tetris-v0", num_row=6)


def test_objects():
    made = envs.make(jumanji.make("Tetris-v0"), max_episode_steps=30)
    wanted = envs.make("jumanji/Tetris-v0", max_episode_steps=30).spec
    assert made.spec == wanted._replace(env_id="Tetris")
    with pytest.raises(ValueError, match="Tetris has no option `num_rows`"):
        envs.make(jumanji.make("Tetris-v0"), num_rows=6)
    with pytest.raises(ValueError, match="AutoResetWrapper is not an environment of jumanji with"):
        envs.make(jumanji.wrappers.AutoResetWrapper(jumanji.make("Tetris-v0")))
    with pytest.raises(ValueError, match="this MMST was made for 70 steps: set `time_limit` where"):
        envs.make(jumanji.make("MMST-v0"), max_episode_steps=90)
    with pytest.raises(ValueError, match="has no parameter object: leave out `env_params`"):
        envs.make((jumanji.make("Tetris-v0"), 3))


@pytest.mark.slow
def test_ppo_learns_2048():
    env = envs.make("jumanji/Game2048-v1")
    options = PPO | {"total_timesteps": 100_000, "eval_episodes": 0}
    result = rljax.train("ppo", env, progress=False, **options)
    returns = result.returns.ravel()
    assert returns[0] < 1_300 and returns[-1] > 2_000  # random actions have about 1,000
