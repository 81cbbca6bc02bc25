"""Help pages and lists: they fit the terminal, name everything, and each text stands alone."""

import dataclasses
import re

import pytest

import rljax
from rljax import envs
from rljax.__main__ import main
from rljax.agents import AGENTS, about
from rljax.cli import help, listing, parser
from rljax.cli.commands import COMMANDS

# words that the style of the project forbids
FORBIDDEN = {
    "chance", "told", "beyond", "goal", "least", "life", "lived", "begin", "begins", "house",
    "notes", "exam", "lest", "nouns", "whoever", "likewise", "remembers", "sees", "says",
}  # fmt: skip
# a help text that starts with one of these is a fragment
FRAGMENTS = {
    "of", "and", "or", "which", "how", "what", "whether", "that", "who", "whom", "where", "when",
    "is", "are", "was", "has", "have", "does", "do", "it", "its", "they", "them", "their", "this",
    "these", "those", "in", "at", "by", "from", "with", "as", "than", "but", "so", "also",
    "between",
}  # fmt: skip


@pytest.fixture(params=[80, 62])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def page(capsys, *words):
    assert main(words) == 0
    return capsys.readouterr().out


PAGES = [[], ["--help"], ["list"], ["list", "--about"], *([name, "--help"] for name in COMMANDS)]
PAGES += [["train", agent, "--help"] for agent in AGENTS]


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_pages_fit_the_terminal_and_cut_no_word(words, columns, capsys, monkeypatch):
    text = page(capsys, *words)
    assert max(map(len, text.splitlines())) <= columns
    if words != ["list", "--about"]:  # which has two layouts
        monkeypatch.setattr(help, "width", lambda: 10_000)
        monkeypatch.setattr(listing, "width", lambda: 10_000)
        assert sorted(text.split()) == sorted(page(capsys, *words).split())


def test_the_overview_names_all_commands(capsys):
    text = page(capsys)
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
        assert command.about in " ".join(text.split())
    assert text == page(capsys, "--help") == page(capsys, "-h")


def test_the_examples_of_the_overview_are_commands():
    for example in help.EXAMPLES.values():
        words = example.split()
        assert words[0] == "rljax" and words[1] in COMMANDS
        parser.parse(words[2:])


@pytest.mark.parametrize("agent", AGENTS)
def test_the_page_of_an_agent_shows_every_option_its_default_and_its_choices(
    agent, capsys, monkeypatch
):
    monkeypatch.setattr(help, "width", lambda: 10_000)
    text = page(capsys, "train", agent, "--help")
    for field in dataclasses.fields(AGENTS[agent].config):
        negation = r"\[no-\]" if isinstance(field.default, bool) else ""
        option = f"{negation}{field.name.replace('_', '-')}"
        (line,) = re.findall(rf"^  --{option} +(.*)$", text, re.MULTILINE)
        assert line.startswith(field.metadata["help"])
        assert line.endswith(f" ({help.with_default('', field.default).strip(' ()')})")
        for choice in field.metadata["choices"]:
            assert choice in line
    assert "--num-seeds" in text and "--config" in text


def test_the_page_of_a_pair_shows_the_parameters_of_the_environment(capsys):
    text = page(capsys, "train", "ppo", "CartPole-v1", "--help")
    assert "parameters of CartPole-v1:\n  --env-params.gravity " in text
    assert re.search(r"--env-params.max_episode_steps +time limit of an episode \(500\)", text)
    text = page(capsys, "train", "q_learning", "rljax/RandomWalk", "--help")
    assert re.search(r"--env-params.length +\(19\)$", text, re.MULTILINE)


def helps():
    """The help of every option of every agent, and of every command without the default."""
    texts = {}
    for name, row in AGENTS.items():
        texts[name] = {x.name: x.metadata["help"] for x in dataclasses.fields(row.config)}
    for name, command in COMMANDS.items():
        options = command.options.items()
        texts[f"rljax {name}"] = {x: re.sub(r" \([^()]*\)$", "", text) for x, text in options}
    return texts


HELPS = helps()


@pytest.mark.parametrize("place", HELPS)
def test_help_texts_stand_alone(place):
    texts = HELPS[place]
    for option, text in texts.items():
        words = re.findall(r"\w+", text.lower())
        said = f"{place}: {option}: {text!r}"
        assert len(words) >= 3, said
        assert len(text) <= 70, said
        assert text[0].isalnum(), said
        assert words[0] not in FRAGMENTS, said
        assert not set(words) & FORBIDDEN, said
        assert not text.endswith("."), said
    assert len(set(texts.values())) == len(texts), place


def test_an_option_has_the_same_help_in_every_agent():
    other_meaning = {
        "num_envs", "num_steps", "learning_rate", "trace_lambda", "update_epochs", "pull_period",
        "target_kl", "hidden_sizes", "batch_size",
    }  # fmt: skip
    by_name = {}
    for agent in AGENTS:
        for option, text in HELPS[agent].items():
            by_name.setdefault(option, set()).add(text)
    assert {name for name, texts in by_name.items() if len(texts) > 1} <= other_meaning


# Lists


def test_list_groups_agents_by_family_and_environments_by_suite(columns, capsys):
    text = page(capsys, "list")
    headings = [
        "Tabular (discrete actions, numbered states)",
        "Value-based (discrete actions)",
        "Policy gradient (discrete and continuous actions)",
        "Off-policy actor-critic (continuous actions)",
        "Off-policy actor-critic (discrete actions)",
        "Model-based (discrete actions, numbered states)",
        "Environments: gymnax",
        "Environments: rljax",
    ]
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    for name in AGENTS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
    words = set(text.split())
    for suite, row in envs.SUITES.items():
        if row.extra:  # named with the command that lists or installs it
            assert f"rljax list {suite}" in text or f"[{suite}]" in text
        else:
            assert set(rljax.environment_ids(suite)) <= words
    listed = re.findall(r"^  (\w+)  +\S", text[: places[6]], re.MULTILINE)
    assert sorted(listed) == sorted(AGENTS)


def test_about_fits_one_line_of_80_columns():
    size = max(map(len, AGENTS)) + 4
    for name, row in AGENTS.items():
        assert len(re.findall(r"\w+", row.about)) >= 3 and size + len(row.about) <= 80, name
        assert row.about[-1] != "." and not set(row.about.split()) & FORBIDDEN, name
    assert len({row.about for row in AGENTS.values()}) == len(AGENTS)


def test_list_about_shows_the_properties_of_all_agents(columns, capsys):
    text = page(capsys, "list", "--about")
    for name, row in AGENTS.items():
        start = re.search(rf"^{name}\b", text, re.MULTILINE)
        assert start is not None
        entry = " ".join(text[start.start() :].split("\n\n")[0].split()[:14])
        policy, model, *_ = about.properties(row)
        assert model in entry and (policy == "-" or policy in entry), name
    assert "off-policy" in text and "model-based" in text


def test_the_markdown_table_has_a_row_for_each_agent():
    lines = about.markdown_table().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("`")[1] for line in lines[2:]] == [
        name for rows in about.groups().values() for name in rows
    ]
    (dqn,) = (line for line in lines if line.startswith("| `dqn`"))
    assert "| off-policy | model-free | value | batch | discrete |" in dqn


def test_agents_of_one_family_with_other_actions_form_their_own_group(monkeypatch):
    row = AGENTS["ppo"]._replace(actions=("continuous",), about="a policy for continuous actions")
    monkeypatch.setitem(AGENTS, "only_continuous", row)
    assert list(about.groups()["Policy gradient (continuous actions)"]) == ["only_continuous"]
