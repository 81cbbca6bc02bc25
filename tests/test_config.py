"""Configs: floats are leaves, all else is structure, and nonsense is refused by name."""

import dataclasses
import json
import tomllib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rljax.agents.ppo import PPOConfig
from rljax.config import (
    RunConfig,
    config,
    dump,
    field_types,
    from_mapping,
    load,
    option,
    to_mapping,
    unknown_key,
)

FLOATS = sorted(name for name, kind in field_types(PPOConfig).items() if kind is float)
SMALL = PPOConfig(total_timesteps=1024, num_envs=4, num_steps=16)


# Floats are leaves


def test_the_leaves_are_the_floats():
    leaves, _ = jax.tree.flatten(PPOConfig())
    defaults = [getattr(PPOConfig(), name) for name in field_types(PPOConfig) if name in FLOATS]
    assert leaves == defaults
    assert {"learning_rate", "gamma", "gae_lambda", "clip_eps"} <= set(FLOATS)


def test_one_compilation_serves_all_learning_rates():
    traces = []

    @jax.jit
    def run(config):
        traces.append(config.num_envs)
        return config.learning_rate * config.num_envs

    for learning_rate in (1e-3, 1e-4, 0.5):
        config = dataclasses.replace(SMALL, learning_rate=learning_rate)
        np.testing.assert_allclose(run(config), learning_rate * 4, rtol=1e-6)
    assert traces == [4]
    run(dataclasses.replace(SMALL, num_envs=8))
    assert traces == [4, 8]
    for change in ({"anneal_lr": False}, {"activation": "relu"}, {"hidden_sizes": (8,)}):
        run(dataclasses.replace(SMALL, **change))
    assert len(traces) == 5


def test_a_whole_number_is_as_good_a_float():
    """`gamma=1` is no other program than `gamma=1.0`."""
    traces = []

    @jax.jit
    def run(config):
        traces.append(config.gamma)
        return config.gamma

    for gamma in (0.99, from_mapping(PPOConfig, {"gamma": 1}).gamma, 1.0):
        run(dataclasses.replace(SMALL, gamma=gamma))
    assert len(traces) == 1


@pytest.mark.parametrize("name", FLOATS)
def test_any_float_can_be_swept(name):
    values = jnp.array([0.25, 0.5, 1.0])
    swept = dataclasses.replace(SMALL, **{name: values})
    leaves, structure = jax.tree.flatten(swept)
    axes = [0 if leaf is values else None for leaf in leaves]
    assert axes.count(0) == 1

    def run(*leaves):
        config = jax.tree.unflatten(structure, leaves)
        return getattr(config, name) * config.num_envs

    np.testing.assert_allclose(jax.vmap(run, axes)(*leaves), 4 * values)
    inner = jax.vmap(lambda x: getattr(dataclasses.replace(SMALL, **{name: x}), name) * 4)
    np.testing.assert_allclose(inner(values), 4 * values)


def test_a_config_says_which_axes_are_swept():
    """As `vmap` wants it: a config whose floats are 0 or None."""
    rates = jnp.array([1e-3, 1e-4])
    swept = dataclasses.replace(SMALL, learning_rate=rates)
    axes = jax.tree.map(lambda leaf: 0 if leaf is rates else None, swept)
    got = jax.vmap(lambda config: config.learning_rate * config.num_envs, (axes,))(swept)
    np.testing.assert_allclose(got, rates * 4)


def test_a_config_can_be_differentiated():
    """A slope is no learning rate: whatever has the shape of a config is not one."""
    slope = jax.grad(lambda config: -3.0 * config.learning_rate)(SMALL)
    assert slope.learning_rate == -3.0
    assert slope.gamma == 0.0


def test_configs_pass_through_transformations():
    same = jax.jit(lambda config: config)(SMALL)
    np.testing.assert_allclose(jax.tree.leaves(same), jax.tree.leaves(SMALL), rtol=1e-6)
    assert jax.tree.structure(same) == jax.tree.structure(SMALL)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[SMALL] * 3)
    assert stacked.gamma.shape == (3,)
    shapes = jax.eval_shape(lambda config: config, SMALL)
    assert shapes.learning_rate.shape == ()


def test_configs_are_frozen_and_comparable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.gamma = 0.5
    assert dataclasses.replace(SMALL) == SMALL
    assert dataclasses.replace(SMALL, gamma=0.5) != SMALL
    assert len({SMALL, dataclasses.replace(SMALL), PPOConfig()}) == 2


def test_a_config_of_ones_own():
    @config
    class Mine(RunConfig):
        bonus: float = option(0.1, "weight of the bonus", low=0)
        depth: int = option(2, "how deep", low=1, high=4)

    leaves = jax.tree.leaves(Mine())
    assert leaves == [0.99, 0.1]
    assert from_mapping(Mine, {"depth": "3"}).depth == 3
    with pytest.raises(ValueError, match=r"`depth` is 5.*at least 1 and at most 4"):
        Mine(depth=5)


# What is refused


def test_unknown_keys_name_what_was_meant():
    for key, meant in {
        "lr": "`lr` is `learning_rate` here",
        "n_envs": "`n_envs` is `num_envs` here",
        "clip_range": "`clip_range` is `clip_eps` here",
        "lam": "`lam` is `gae_lambda` here",
        "learning_rat": "did you mean `learning_rate`",
        "num-envs": "did you mean `num_envs`",
        "hiden_sizes": "did you mean `hidden_sizes`",
    }.items():
        with pytest.raises(ValueError, match=r"PPOConfig has no option") as error:
            from_mapping(PPOConfig, {key: 1})
        assert f"`{key}`" in str(error.value)
        assert meant in str(error.value)


def test_a_key_like_nothing_known_gets_the_list():
    with pytest.raises(ValueError, match=r"gamma.*learning_rate.*num_envs"):
        from_mapping(PPOConfig, {"xyzzy": 1})


def test_an_alias_is_no_hint_where_its_option_does_not_exist():
    assert "learning_rate" not in str(unknown_key("lr", ["gamma", "num_envs"], "Config"))


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("gamma", 1.5, "at most 1.0"),
        ("gamma", -0.1, "at least 0.0"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", -1e-3, "above 0"),
        ("num_envs", 0, "at least 1"),
        ("num_minibatches", -2, "at least 1"),
        ("hidden_sizes", (64, 0), "at least 1"),
        ("learning_rate", float("nan"), "above 0"),
        ("learning_rate", float("inf"), "above 0"),
        ("vf_coef", float("inf"), "at least 0"),
        ("gamma", float("nan"), "at least 0.0 and at most 1.0"),
        ("clip_eps", float("-inf"), "above 0"),
    ],
)
def test_values_out_of_range_are_refused_with_field_value_and_limit(name, value, limit):
    for make in (
        lambda: dataclasses.replace(SMALL, **{name: value}),
        lambda: from_mapping(PPOConfig, {name: value}),
    ):
        with pytest.raises(ValueError, match=f"`{name}` is ") as error:
            make()
        message = str(error.value)
        assert limit in message
        shown = str(list(value)) if isinstance(value, tuple) else str(value)
        assert shown in message


def test_limits_themselves_are_allowed():
    assert dataclasses.replace(SMALL, gamma=1.0).gamma == 1.0
    assert dataclasses.replace(SMALL, gamma=0.0, ent_coef=0.0, num_minibatches=1).gamma == 0.0


def test_each_number_of_a_sweep_is_checked():
    with pytest.raises(ValueError, match=r"`gamma` is \[0.5, 1.5\].*at most 1.0"):
        dataclasses.replace(SMALL, gamma=np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"`learning_rate`.*above 0"):
        dataclasses.replace(SMALL, learning_rate=jnp.array([1e-3, 0.0]))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_envs", 1.5, "a whole number"),
        ("num_envs", "1.5", "a whole number"),
        ("num_envs", "many", "a whole number"),
        ("num_envs", "", "a whole number"),
        ("num_envs", True, "a whole number"),
        ("num_envs", None, "a whole number"),
        ("num_envs", "nan", "a whole number"),
        ("num_envs", "inf", "a whole number"),
        ("num_envs", float("inf"), "a whole number"),
        ("num_envs", [4, 8], "a whole number"),
        ("num_envs", np.array([4, 8]), "a whole number"),
        ("gamma", "high", "a number"),
        ("gamma", None, "a number"),
        ("gamma", True, "a number"),
        ("gamma", [0.9, 0.99], "a number"),
        ("anneal_lr", "perhaps", "true or false"),
        ("anneal_lr", 2, "true or false"),
        ("anneal_lr", [True], "true or false"),
        ("activation", 3, "a text"),
        ("activation", None, "a text"),
        ("hidden_sizes", 64, "whole numbers such as 64,64"),
        ("hidden_sizes", "64,big", "whole numbers such as 64,64"),
        ("hidden_sizes", [64, 1.5], "whole numbers such as 64,64"),
        ("hidden_sizes", None, "whole numbers such as 64,64"),
    ],
)
def test_values_of_the_wrong_type_are_refused(name, value, wanted):
    with pytest.raises(ValueError, match=wanted) as error:
        from_mapping(PPOConfig, {name: value})
    assert str(error.value).startswith(f"`{name}` is {value!r}")


@pytest.mark.parametrize(
    "values",
    [
        {"num_envs": 4.5},
        {"total_timesteps": 1e6},
        {"num_envs": "8"},
        {"num_envs": [4, 8]},
        {"num_envs": True},
        {"anneal_lr": "false"},
        {"gamma": "0.9"},
        {"gamma": 1},
        {"hidden_sizes": 64},
        {"activation": 3},
    ],
    ids=str,
)
def test_a_config_made_directly_holds_what_its_fields_say(values):
    """Either read as the type of its field, or refused by name: `"false"` would be true."""
    (name,) = values
    try:
        got, refusal = getattr(PPOConfig(**values), name), ""
    except ValueError as error:
        got, refusal = None, str(error)
    kind = field_types(PPOConfig)[name]
    assert f"`{name}`" in refusal or type(got) is (kind if isinstance(kind, type) else tuple)


def test_choices_are_named():
    with pytest.raises(ValueError, match=r"`activation` is 'tan'.*tanh, relu.*mean 'tanh'"):
        dataclasses.replace(SMALL, activation="tan")
    with pytest.raises(ValueError, match=r"`surrogate` is 'trust'.*clip, kl"):
        from_mapping(PPOConfig, {"surrogate": "trust"})


def test_minibatches_must_divide_the_rollout():
    with pytest.raises(ValueError, match=r"`num_minibatches` is 5, .* 4 x 16 = 64"):
        PPOConfig(num_envs=4, num_steps=16, num_minibatches=5)


def test_a_run_has_at_least_one_update():
    with pytest.raises(ValueError, match=r"`total_timesteps` is 63, .* 64"):
        PPOConfig(total_timesteps=63, num_envs=4, num_steps=16)
    assert PPOConfig(total_timesteps=64, num_envs=4, num_steps=16).num_updates == 1


def test_a_run_never_takes_more_steps_than_asked_for():
    for total in (64, 127, 128, 1000):
        made = PPOConfig(total_timesteps=total, num_envs=4, num_steps=16)
        assert made.num_updates == total // 64


# What is read


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("total_timesteps", "1e6", 1_000_000),
        ("total_timesteps", 1e6, 1_000_000),
        ("total_timesteps", "1_000_000", 1_000_000),
        ("total_timesteps", " 2048 ", 2048),
        ("total_timesteps", "9007199254740993", 9007199254740993),
        ("num_envs", np.int64(16), 16),
        ("num_envs", np.float32(16), 16),
        ("learning_rate", "3e-4", 3e-4),
        ("learning_rate", 1, 1.0),
        ("learning_rate", np.float32(0.5), 0.5),
        ("anneal_lr", "true", True),
        ("anneal_lr", "False", False),
        ("anneal_lr", "no", False),
        ("anneal_lr", "1", True),
        ("anneal_lr", 0, False),
        ("anneal_lr", np.bool_(True), True),
        ("hidden_sizes", "64,32", (64, 32)),
        ("hidden_sizes", "[64, 32]", (64, 32)),
        ("hidden_sizes", "(64,)", (64,)),
        ("hidden_sizes", "64", (64,)),
        ("hidden_sizes", [64, 32], (64, 32)),
        ("hidden_sizes", (), ()),
        ("activation", "relu", "relu"),
    ],
)
def test_values_are_read_as_the_type_of_their_field(name, value, expected):
    got = getattr(from_mapping(PPOConfig, {name: value}), name)
    assert got == expected
    assert type(got) is type(expected)
    assert hash(got) == hash(expected)


def test_a_mapping_changes_a_base_and_leaves_the_rest():
    got = from_mapping(PPOConfig, {"gamma": 0.5}, base=SMALL)
    assert got == dataclasses.replace(SMALL, gamma=0.5)
    assert from_mapping(PPOConfig, {}) == PPOConfig()


# TOML

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
plain = st.booleans() | numbers | texts | st.lists(st.integers(0, 999), max_size=3)


@given(st.dictionaries(st.sampled_from(["agent", "env_id", "gamma", "note"]), plain))
def test_what_is_dumped_reads_back(values):
    back = tomllib.loads(dump(values))
    assert back == values
    assert {key: type(x) for key, x in back.items()} == {key: type(x) for key, x in values.items()}


TEXTS = (
    *('say "hello"', "it's", "back\\slash", "C:\\new", '"""', "\\", "", " spaces ", "naïve 强化"),
    *(
        "two\nlines",
        "carriage\rreturn",
        "tab\there",
        "bell\x07",
        "nul\x00",
        "delete\x7f",
        "\x1b[31m",
    ),
)


@pytest.mark.parametrize("value", TEXTS)
def test_any_text_can_be_dumped(value):
    assert tomllib.loads(dump({"note": value, "after": 1})) == {"note": value, "after": 1}


@pytest.mark.parametrize(
    "value", [1e-5, 1e16, 0.1, 1.0, -0.0, float("inf"), 0, -7, 2**40, True, False]
)
def test_numbers_keep_their_value_and_type(value):
    back = tomllib.loads(dump({"x": value}))["x"]
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        ((64, 32), [64, 32]),
        ([], []),
        ([1e-3, 1e-4], [1e-3, 1e-4]),
        (["a", 'b"c', "d'e\n"], ["a", 'b"c', "d'e\n"]),
        ([True, False], [True, False]),
        ([np.float64(0.5)], [0.5]),
    ],
    ids=repr,
)
def test_values_of_numpy_and_lists_can_be_dumped(value, expected):
    assert tomllib.loads(dump({"x": value})) == {"x": expected}


def test_a_config_survives_its_file(tmp_path):
    path = tmp_path / "run.toml"
    made = dataclasses.replace(
        SMALL, learning_rate=2.5e-4, hidden_sizes=(32, 16), anneal_lr=False, activation="relu"
    )
    path.write_text(dump(to_mapping(made)), encoding="utf-8")
    assert from_mapping(PPOConfig, load(path)) == made
    assert from_mapping(PPOConfig, load(str(path))) == made


def test_a_config_of_arrays_has_plain_values():
    made = dataclasses.replace(
        SMALL, learning_rate=jnp.float32(0.5), gamma=np.float64(0.25), ent_coef=jnp.array([0.5, 1])
    )
    values = to_mapping(made)
    assert values["learning_rate"] == 0.5
    assert values["ent_coef"] == [0.5, 1.0]
    assert json.loads(json.dumps(values)) == values
    assert tomllib.loads(dump(values)) == values


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*missing.toml"):
        load(tmp_path / "missing.toml")
    with pytest.raises(ValueError, match=r"there is no file"):
        load(tmp_path)
    for name, content in (("bad.toml", b"gamma = = 1"), ("bytes.toml", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not TOML"):
            load(tmp_path / name)


def test_building_inside_a_trace_is_not_checked_and_does_not_fail():
    @partial(jax.jit, static_argnums=0)
    def run(name, x):
        return getattr(dataclasses.replace(SMALL, **{name: x}), name)

    for name in FLOATS:
        assert run(name, 0.5) == 0.5
