"""`rljax play`: moves, errors and outcomes of games with scripted answers."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax import envs
from rljax.__main__ import main
from rljax.agents.search import Search
from rljax.experiment import evaluation, play
from rljax.experiment.make_plan import make_plan
from rljax.types import EnvSpec

QUIT = "q"
SMALL = {
    "num_envs": 8,
    "num_steps": 8,
    "total_timesteps": 256,
    "eval_episodes": 0,
    "progress": False,
}
ALPHAZERO = SMALL | {"learning_starts": 128, "num_simulations": 4, "hidden_sizes": (8,)}


@pytest.fixture(autouse=True)
def _quick(quick_compiles):
    yield


class Person:
    """Answers questions in order and stores every text that is written."""

    def __init__(self, *answers):
        self.answers, self.questions, self.texts = list(answers), [], []

    def read(self, question):
        self.questions.append(question)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    @property
    def io(self):
        return {"read": self.read, "write": self.texts.append}


def against_moves(env_id, person, moves, first):
    """Plays against a policy that makes the given moves."""
    game, moves = envs.make(env_id).before_reset, iter(moves)

    def choose(turn, memory, key):
        return next(moves), None, None

    return play._play(game, choose, jax.random.key(0), first, person.read, person.texts.append)


@pytest.mark.parametrize(
    ("env_id", "first", "answers", "moves", "outcome"),
    [
        ("rljax/TicTacToe", True, "012", (3, 4), 1),
        ("rljax/TicTacToe", True, "018", (3, 4, 5), -1),
        ("rljax/TicTacToe", False, "345", (0, 1, 8), 1),
        ("rljax/TicTacToe", False, "34", (0, 1, 2), -1),
        ("rljax/TicTacToe", True, "04375", (8, 2, 6, 1), 1),
        ("rljax/TicTacToe", True, "02357", (1, 4, 6, 8), 0),
        ("rljax/TicTacToe", False, "1468", (0, 2, 3, 5, 7), 0),
        ("rljax/ConnectFour", True, "3333", (0, 1, 0), 1),
        ("rljax/ConnectFour", False, "010", (3, 3, 3, 3), -1),
    ],
)
def test_outcomes_are_those_of_the_person(env_id, first, answers, moves, outcome):
    person = Person(*answers)
    assert against_moves(env_id, person, moves, first) == outcome
    assert person.texts[-1] == {1: "you win", 0: "draw", -1: "the policy wins"}[outcome]
    assert not person.answers


def test_wrong_answers_get_one_sentence_and_another_question():
    person = Person("9", "-1", "four", "", "4", "4", "0", "Q")
    assert against_moves("rljax/TicTacToe", person, (8, 7), first=True) is None
    wrong = [text for text in person.texts if "is not a legal move" in text]
    assert wrong == [
        *(f"`{x}` is not a legal move: the legal moves are 0-8." for x in ("9", "-1", "four", "")),
        "`4` is not a legal move: the legal moves are 0-3, 5-7.",
    ]
    assert person.questions[-1] == "your move, 1-3, 5, 6, or q to quit: "
    assert against_moves("rljax/TicTacToe", Person(), (), first=True) is None  # end of the input


def test_the_board_is_drawn_after_each_move():
    person = Person("3", "3", QUIT)
    against_moves("rljax/ConnectFour", person, (3, 0), first=True)
    empty = ["  . . . . . . ."]
    assert person.texts[0].split("\n") == ["you are x", "  0 1 2 3 4 5 6", *empty * 6]
    assert person.texts[1].split("\n")[2:] == [*empty * 5, "  . . . x . . ."]
    last = ["  . . . x . . .", "  . . . o . . .", "  o . . x . . ."]
    assert person.texts[-1].split("\n")[2:] == [*empty * 3, *last]
    person = Person("4", QUIT)
    against_moves("rljax/TicTacToe", person, (2,), first=True)
    assert person.texts[-1] == "\n      0 1 2\n   0  . . o\n   3  . x .\n   6  . . ."


def test_the_search_is_shown_with_policy_visits_and_values():
    search = Search(
        action=jnp.int32(2), policy=jnp.array([0.125, 0.0, 0.75, 0.125]), value=jnp.float32(0.5),
        q_values=jnp.array([-0.25, 0.0, 1.0, 0.125]), visits=jnp.array([1, 0, 6, 1]),
    )  # fmt: skip
    lines = play.values(EnvSpec(num_actions=4), search).split("\n")
    assert lines == [
        ", value +0.50", "  move  policy  visits  value", "     2     75%     75%  +1.00",
        "     0     12%     12%  -0.25", "     3     12%     12%  +0.12",
    ]  # fmt: skip
    assert play.values(EnvSpec(num_actions=4), None) == ""


def test_passes_and_swaps_have_names():
    assert play.named(EnvSpec(num_actions=122, env_id="pgx/hex"), 121) == "swap"
    assert play.named(EnvSpec(num_actions=82, env_id="pgx/go_9x9"), 81) == "pass"
    assert play.named(EnvSpec(num_actions=82, env_id="pgx/go_9x9"), 80) == "80"
    person = Person(QUIT)
    legal = np.arange(65) % 32 == 0
    turn = play.Turn((), {"legal": legal})
    spec = EnvSpec({"legal": (65,)}, 65, env_id="pgx/othello", action_mask="legal")
    assert play._ask(spec, turn, person.read, person.texts.append) is None
    assert person.questions == ["your move, 0, 32, 64 (64 is pass), or q to quit: "]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "alphazero"
    rljax.train("alphazero", "rljax/TicTacToe", run_dir=path, num_seeds=2, **ALPHAZERO)
    return path


@pytest.mark.parametrize("first", [True, False])
def test_a_game_against_a_search(run_dir, first):
    """The person tries each cell in turn. The moves of both, replayed in the game, end it."""
    person = Person(*"0123456780")
    outcome = play.play(run_dir, run=1, first=first, **person.io)
    tables = [text for text in person.texts if text.startswith("the policy plays")]
    for table in tables:
        rows = [line.split() for line in table.split("\n")[2:]]
        policy, visits = (sum(int(row[i][:-1]) for row in rows) for i in (1, 2))
        assert 95 <= visits <= 105 and policy <= 105
        assert all(-1.5 < float(row[3]) < 1.5 for row in rows)
    wrong = [text for text in person.texts if "is not a legal move" in text]
    asked = "0123456780"[: len(person.questions)]
    own = [int(x) for x in asked if not any(text.startswith(f"`{x}`") for text in wrong)]
    its = [int(table.split()[3].rstrip(",")) for table in tables]
    assert len(own) - len(its) in ((0, 1) if first else (-1, 0))
    lines = [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {0, 3, 6}, {1, 4, 7}, {2, 5, 8}, {0, 4, 8}, {2, 4, 6}]
    won = [any(line <= set(cells) for line in lines) for cells in (own, its)]
    assert outcome == won[0] - won[1]
    assert not set(own) & set(its)


def test_the_command(run_dir, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n"))
    assert main(["play", str(run_dir), "--no-first", "--run", "1"]) == 0
    assert capsys.readouterr().out.startswith("you are o\n")
    assert main(["play", str(run_dir), "--run", "2"]) == 2
    assert "has 2 runs. Choose one from 0 to 1." in capsys.readouterr().err


def test_the_number_of_simulations_of_a_search_can_be_changed(run_dir):
    plan, index, state = evaluation.load_run(run_dir, 0)
    game = play.game_of(plan)
    turn = play.Turn(*game.reset(jax.random.key(0)))
    for given, number in ((None, 4), ("9", 9)):
        choose = play.policy(evaluation.with_simulations(plan, given), index, state)
        assert choose(turn, None, jax.random.key(1))[2].visits.sum() == number
    for call in (play.play, rljax.evaluate):
        with pytest.raises(ValueError, match="`num_simulations` is 0, but it must be at least 1"):
            call(run_dir, num_simulations=0)
    with pytest.raises(ValueError, match="`num_simulations` is 8, but ppo does not search: leave"):
        evaluation.with_simulations(make_plan("ppo", "rljax/Maze"), 8)


@pytest.mark.parametrize("options", [{}, {"memory": "gru", "memory_size": 4}], ids=str)
def test_a_policy_without_search_that_was_trained_against_an_opponent(options):
    params = {"opponent": "random", "max_episode_steps": 20}
    plan = make_plan("ppo", "rljax/TicTacToe", env_params=params, **options)
    state = plan.make_agent(plan.config, plan.env).init(jax.random.key(0))
    choose, person = play.policy(plan, 0, state), Person(*"0123456780")
    key, game = jax.random.key(0), play.game_of(plan)
    assert play._play(game, choose, key, False, person.read, person.texts.append) in (-1, 0, 1)
    its = [text for text in person.texts if text.startswith("the policy plays")]
    assert len(its) >= 3 and not any("\n" in text for text in its)


def test_environments_of_one_player_and_games_without_text_are_refused():
    with pytest.raises(ValueError, match="^`rljax play` needs a game of two players, but rljax/Ma"):
        play.game_of(make_plan("ppo", "rljax/Maze"))
    game = envs.make("rljax/TicTacToe")
    silent = game._replace(before_reset=game.before_reset._replace(render=None), render=None)
    with pytest.raises(ValueError, match="^rljax/TicTacToe has no text form, so it cannot be play"):
        play.game_of(make_plan("alphazero", silent), silent)
