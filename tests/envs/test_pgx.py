"""The adapter of pgx, compared with pgx's own `init` and `step`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import PPO, learned_value

pgx = pytest.importorskip("pgx")

import rljax  # noqa: E402
from rljax import envs  # noqa: E402
from rljax.envs import pgx as adapter  # noqa: E402

GAMES = [f"pgx/{name}" for name in pgx.available_envs() if name.startswith(adapter.ONE_PLAYER)]
SLOW = ("chess", "shogi", "gardner_chess", "animal_shogi", "go_19x19", "go_9x9", "hex")
TWO_PLAYERS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in adapter.TWO_PLAYERS
]


@pytest.fixture(autouse=True)
def _rank_promotion(quick_compiles):
    with jax.numpy_rank_promotion("allow"):  # in pgx
        yield


def test_every_game_is_listed_or_refused():
    listed = {f"pgx/{name}" for name in adapter.TWO_PLAYERS} | set(GAMES)
    assert set(envs.environment_ids("pgx")) == listed
    assert (len(GAMES), len(listed)) == (6, 16)
    refused = set(adapter.registered()) - {env_id.removeprefix("pgx/") for env_id in listed}
    assert refused == set(adapter.REFUSED)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("backgammon", "has dice"), ("kuhn_poker", "has hidden cards"),
        ("leduc_holdem", "has hidden cards"),
        ("sparrow_mahjong", "has three players and hidden tiles"),
    ],
)  # fmt: skip
def test_chance_and_hidden_information_are_refused(name, reason):
    message = f"information for two, but pgx/{name} {reason}: use a game such as pgx/connect_four"
    with pytest.raises(ValueError, match=f"^rljax has the games of pgx .*{message}"):
        envs.make(f"pgx/{name}")
    with pytest.raises(ValueError, match=message):
        envs.make(pgx.make(name))


def test_games_without_a_known_property_are_refused():
    """A game of two players of the user may be stochastic, or its players may not alternate."""

    class Other(type(pgx.make("tic_tac_toe"))):
        id = "other"

    with pytest.raises(ValueError, match="but pgx/other is not known to be either: use"):
        envs.make(Other())


@pytest.mark.slow
@pytest.mark.parametrize("name", pgx.available_envs())
def test_the_number_of_players_follows_from_the_name(name):
    number = pgx.make(name).num_players
    assert (number == 1) == name.startswith(adapter.ONE_PLAYER)
    assert number == 2 or name not in adapter.TWO_PLAYERS


@pytest.mark.parametrize("name", TWO_PLAYERS)
def test_games_of_two_players(name):
    """Random games, beside pgx: players alternate, and the game is zero-sum.

    The reward is that of the player who moved; the observation that of the player who moves next.
    """
    env, game, length, copies = envs.make(f"pgx/{name}").before_reset, pgx.make(name), 600, 2
    assert (env.spec.num_players, env.spec.action_mask) == (2, "action_mask")

    @jax.jit
    @jax.vmap
    def play(key):
        def one_step(carry, key):
            state, wanted = carry
            action = random_legal(wanted.legal_action_mask, key)
            state, step = env.step(state, action, key)
            after = game.step(wanted, action)
            return (state, after), (step, after, wanted.current_player, wanted.terminated)

        first = game.init(key)
        state, obs = env.reset(key)
        return obs, first, jax.lax.scan(one_step, (state, first), jax.random.split(key, length))[1]

    keys = jax.random.split(jax.random.key(0), copies)
    obs, first, (step, after, mover, was_over) = jax.device_get(play(keys))
    np.testing.assert_array_equal(obs["observation"], first.observation)
    np.testing.assert_array_equal(obs["action_mask"], first.legal_action_mask)
    assert after.terminated.any(axis=1).sum() >= 1
    running = ~was_over
    for ours, theirs in (
        (step.next_obs["observation"], after.observation),
        (step.next_obs["action_mask"], after.legal_action_mask),
        (step.terminated, after.terminated),
        (step.reward, np.take_along_axis(after.rewards, mover[..., None], axis=-1)[..., 0]),
    ):
        np.testing.assert_array_equal(ours[running], theirs[running])
    assert not step.truncated.any() and step.next_obs["action_mask"][running].any(axis=-1).all()
    np.testing.assert_array_equal(after.rewards.sum(axis=-1), 0)
    assert (after.current_player != mover)[running & ~after.terminated].all()


@pytest.mark.parametrize(
    ("env_id", "name"), [("rljax/TicTacToe", "tic_tac_toe"), ("rljax/ConnectFour", "connect_four")]
)
def test_text_is_that_of_the_same_game_of_rljax(env_id, name):
    ours, theirs = envs.make(env_id).before_reset, envs.make(f"pgx/{name}").before_reset
    states, seen = [game.reset(jax.random.key(0))[0] for game in (ours, theirs)], set()
    for action in (2, 0, 1, 3, 4):
        key = jax.random.key(0)
        states = [
            game.step(state, jnp.int32(action), key)[0]
            for game, state in zip((ours, theirs), states, strict=True)
        ]
        texts = [game.render(state) for game, state in zip((ours, theirs), states, strict=True)]
        assert texts[0] == texts[1] and texts[0].count("x") >= texts[0].count("o")
        seen.add(texts[0])
    assert len(seen) == 5


def test_text_of_othello_and_hex():
    game = envs.make("pgx/othello").before_reset
    rows = game.render(game.reset(jax.random.key(0))[0]).split("\n")
    assert rows[3:5] == [". . . o x . . .", ". . . x o . . ."]
    assert rows[:3] == rows[5:] == [". . . . . . . ."] * 3
    game = envs.make("pgx/hex").before_reset
    state, _ = game.reset(jax.random.key(0))
    for action in (4, 2, 11 + 3):
        state, _ = game.step(state, jnp.int32(action), jax.random.key(0))
    rows = game.render(state).split("\n")
    assert rows[:2] == [". . o . x . . . . . .", " . . . x . . . . . . ."]
    assert rows[10] == " " * 10 + ". . . . . . . . . . ."
    assert envs.make("pgx/chess").render is None


def test_parameters_of_games_of_two_players():
    assert envs.make("pgx/go_9x9", komi="5.5").spec.obs_shape["observation"] == (9, 9, 17)
    env = envs.make("pgx/tic_tac_toe", opponent="random", max_episode_steps=3)
    assert (env.spec.num_players, env.spec.max_episode_steps) == (1, 3)
    envs.validate(env)
    with pytest.raises(ValueError, match="pgx/go_9x9 has no option `size`"):
        envs.make("pgx/go_9x9", size=5)
    with pytest.raises(ValueError, match="pgx/hex has no option `size`"):
        envs.make("pgx/hex", size=5)
    with pytest.raises(ValueError, match="pgx/2048 has 1 player, but an opponent needs a game of"):
        envs.make("pgx/2048", opponent="random")


def test_objects_of_two_players():
    made = envs.make(pgx.make("tic_tac_toe"), opponent="minimax")
    assert (made.spec.num_players, made.spec.env_id) == (1, "tic_tac_toe")


@pytest.mark.parametrize("env_id", GAMES)
def test_games_pass_the_check(env_id):
    envs.validate(envs.make(env_id))


def random_legal(mask, key):
    return jnp.where(mask, jax.random.uniform(key, mask.shape), -1).argmax()


@pytest.mark.parametrize("env_id", GAMES)
def test_steps_are_those_of_pgx(env_id):
    env, game = envs.make(env_id), pgx.make(env_id.removeprefix("pgx/"))

    @jax.jit
    def play(key):
        state, obs = env.reset(key)
        wanted = game.init(jax.random.split(jax.random.split(key)[0])[0])  # as `auto_reset` splits

        def one_step(carry, key):
            state, wanted = carry
            action_key, key = jax.random.split(key)
            action = random_legal(wanted.legal_action_mask, action_key)
            state, step = env.step(state, action, key)
            wanted = game.step(wanted, action, key)
            return (state, wanted), (step, wanted)

        keys = jax.random.split(jax.random.key(1), 300)
        return obs, wanted, jax.lax.scan(one_step, (state, wanted), keys)[1]

    obs, first, (step, wanted) = jax.device_get(play(jax.random.key(0)))
    image = (lambda obs: obs["observation"]) if env_id == "pgx/2048" else (lambda obs: obs)
    np.testing.assert_array_equal(image(obs), first.observation)
    end = int(wanted.terminated.argmax()) + 1 if wanted.terminated.any() else 300
    assert end > 10
    for name in ("terminated", "truncated"):
        np.testing.assert_array_equal(getattr(step, name)[:end], getattr(wanted, name)[:end])
    np.testing.assert_array_equal(step.reward[:end], wanted.rewards[:end, 0])
    np.testing.assert_array_equal(image(step.next_obs)[:end], wanted.observation[:end])
    if env_id == "pgx/2048":
        assert wanted.terminated.any() and wanted.rewards.max() >= 16
        np.testing.assert_array_equal(
            step.next_obs["action_mask"][:end], wanted.legal_action_mask[:end]
        )


def play_zeros(env, num_steps):
    """Returns the steps of an episode of actions 0."""

    @jax.jit
    def run(key):
        def one_step(state, key):
            return env.step(state, jnp.int32(0), key)

        keys = jax.random.split(jax.random.key(1), num_steps)
        return jax.lax.scan(one_step, env.reset(key)[0], keys)[1]

    return jax.device_get(run(jax.random.key(0)))


def test_freeway_is_truncated_where_pgx_terminates_it():
    env = envs.make("pgx/minatar-freeway")
    assert env.spec.max_episode_steps == 2500
    step = play_zeros(env, 5100)
    assert not step.terminated.any()
    assert np.flatnonzero(step.truncated).tolist() == [2499, 4999]
    assert np.flatnonzero(play_zeros(envs.make("pgx/minatar-freeway", max_episode_steps=3000), 3001)
                          .truncated).tolist() == [2999]  # fmt: skip


def test_a_time_limit_truncates():
    env = envs.make("pgx/minatar-asterix", max_episode_steps=7)
    step = play_zeros(env, 15)
    assert env.spec.max_episode_steps == 7
    assert np.flatnonzero(step.truncated).tolist() == [6, 13] and not step.terminated.any()


def test_a_lost_ball_terminates():
    step = play_zeros(envs.make("pgx/minatar-breakout"), 40)
    assert step.terminated.any() and not step.truncated.any()


def test_parameters_of_the_class():
    env = envs.make("pgx/minatar-breakout", use_minimal_action_set=False, sticky_action_prob="0")
    assert env.spec.num_actions == 6 and env.spec.env_id == "pgx/minatar-breakout"
    assert envs.make("pgx/minatar-breakout").spec.num_actions == 3
    envs.validate(env)
    with pytest.raises(ValueError, match="has no option `sticky`: did you mean `sticky_action_p"):
        envs.make("pgx/minatar-breakout", sticky=0.1)
    with pytest.raises(ValueError, match="2048 has no option `sticky_action_prob`: use one of max"):
        envs.make("pgx/2048", sticky_action_prob=0.1)
    with pytest.raises(ValueError, match="minatar-asterix has no option `size`"):
        envs.make(pgx.make("minatar-asterix"), size=3)


def test_objects_are_made_as_their_ids():
    made = envs.make(pgx.make("minatar-asterix"), max_episode_steps=30)
    wanted = envs.make("pgx/minatar-asterix", max_episode_steps=30).spec
    assert made.spec == wanted._replace(env_id="minatar-asterix")


@pytest.mark.slow
def test_truncation_is_bootstrapped():
    assert learned_value("pgx/minatar-freeway") == pytest.approx(10, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "before", "after"), [("pgx/minatar-breakout", 2, 4), ("pgx/2048", 1_500, 2_000)]
)
def test_ppo_learns(env_id, before, after):
    options = PPO | {"total_timesteps": 100_000, "eval_episodes": 0}
    result = rljax.train("ppo", env_id, progress=False, **options)
    returns = result.returns.ravel()
    assert returns[0] < before and returns[-1] > after
