"""Option values: conversion, ranges, and errors that name the option and the nearest name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents.ppo import PPOConfig
from rljax.config import (
    ALIASES,
    at_least,
    check_range,
    check_swept,
    convert,
    field_types,
    from_mapping,
    nearest,
    suggestion,
    unknown_key,
)

SMALL = PPOConfig(total_timesteps=1024, num_envs=4, num_steps=16)


def test_unknown_keys_name_the_nearest_option():
    for key, cure in {
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
        assert cure in str(error.value)


def test_a_key_without_a_near_option_lists_all_options():
    with pytest.raises(ValueError, match=r"gamma.*learning_rate.*num_envs"):
        from_mapping(PPOConfig, {"xyzzy": 1})


def test_an_alias_of_an_option_that_does_not_exist_is_no_hint():
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
        ("num_envs", 1.5, "an integer"),
        ("num_envs", "1.5", "an integer"),
        ("num_envs", "many", "an integer"),
        ("num_envs", "", "an integer"),
        ("num_envs", True, "an integer"),
        ("num_envs", None, "an integer"),
        ("num_envs", "nan", "an integer"),
        ("num_envs", "inf", "an integer"),
        ("num_envs", float("inf"), "an integer"),
        ("num_envs", [4, 8], "an integer"),
        ("num_envs", np.array([4, 8]), "an integer"),
        ("gamma", "high", "a number"),
        ("gamma", None, "a number"),
        ("gamma", True, "a number"),
        ("gamma", [0.9, 0.99], "a number"),
        ("anneal_lr", "perhaps", "true or false"),
        ("anneal_lr", 2, "true or false"),
        ("anneal_lr", [True], "true or false"),
        ("activation", 3, "a string"),
        ("activation", None, "a string"),
        ("hidden_sizes", 64, "integers such as 64,64"),
        ("hidden_sizes", "64,big", "integers such as 64,64"),
        ("hidden_sizes", [64, 1.5], "integers such as 64,64"),
        ("hidden_sizes", None, "integers such as 64,64"),
    ],
)
def test_values_of_the_wrong_type_are_refused(name, value, wanted):
    with pytest.raises(ValueError, match=wanted) as error:
        from_mapping(PPOConfig, {name: value})
    assert str(error.value).startswith(f"`{name}` is {value!r}")


def test_errors_list_the_choices():
    with pytest.raises(ValueError, match=r"`activation` is 'tan'.*tanh, relu.*mean 'tanh'"):
        dataclasses.replace(SMALL, activation="tan")
    with pytest.raises(ValueError, match=r"`surrogate` is 'trust'.*clip, kl"):
        from_mapping(PPOConfig, {"surrogate": "trust"})


def test_check_range_checks_each_number_and_skips_tracers():
    check_range("exponent", [0.0, 1.0], low=0, high=1)
    jax.jit(lambda x: (check_range("exponent", x, low=0, high=1), x)[1])(5.0)
    for value, limits, message in [
        (1.5, {"low": 0, "high": 1}, "`exponent` is 1.5, but it must be at least 0 and at most 1."),
        (0, {"above": 0}, "`exponent` is 0, but it must be above 0."),
        ([1.0, -1.0], {"low": 0}, "`exponent` is [1.0, -1.0], but it must be at least 0."),
        (float("nan"), {}, "`exponent` is nan, but it must be a finite number."),
    ]:
        with pytest.raises(ValueError) as error:
            check_range("exponent", value, **limits)
        assert str(error.value) == message


def test_at_least_returns_an_integer():
    assert at_least("seed", "1e3", 0) == 1000
    with pytest.raises(ValueError, match="`seed` is -1, but it must be at least 0"):
        at_least("seed", -1, 0)
    with pytest.raises(ValueError, match=r"`seed` is 1.5, but it must be an integer"):
        at_least("seed", 1.5, 0)


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("pppo", ["dqn", "ppo"], "ppo"),
        ("breakout", ["Asterix-MinAtar", "Breakout-MinAtar"], "Breakout-MinAtar"),
        ("LEARNING_RATE", ["learning_rate"], "learning_rate"),
        ("num", ["gamma", "num_envs"], "num_envs"),
        ("xyzzy", ["dqn", "ppo"], None),
        ("", ["dqn", "ppo"], None),
        ("dqn", [], None),
    ],
)
def test_the_nearest_name(name, known, found):
    assert nearest(name, known) == found
    cure = suggestion(name, known)
    assert cure == f"did you mean `{found}`?" if found else cure.startswith("use one of ")


def test_aliases_are_not_accepted():
    for alias, name in ALIASES.items():
        if name in field_types(PPOConfig):
            with pytest.raises(ValueError, match=f"`{alias}` is `{name}` here"):
                from_mapping(PPOConfig, {alias: 1})


def test_large_integers_are_read_exactly():
    assert convert("seed", "9007199254740993", int) == 2**53 + 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e-50, "`learning_rate` is 1e-50, which is 0 in float32: give a larger number, or 0."),
        (1e39, "`learning_rate` is 1e\\+39, but it must be above 0."),
        (float("nan"), "`learning_rate` is nan, but it must be above 0."),
    ],
)
def test_numbers_that_float32_cannot_hold_are_refused(value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_mapping(PPOConfig, {"learning_rate": value})
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_swept(PPOConfig, "learning_rate", [1e-3, value])


def test_every_integer_option_has_an_upper_bound():
    for name, kind in field_types(PPOConfig).items():
        if kind is int:
            with pytest.raises(ValueError, match=f"`{name}` is 10{{20}}, but it must be .*at most"):
                from_mapping(PPOConfig, {name: 10**20})
    with pytest.raises(ValueError, match="num_steps = 100000 x 100000 steps, but it must .* most"):
        from_mapping(PPOConfig, {"num_envs": 10**5, "num_steps": 10**5, "total_timesteps": 10**12})


def test_names_that_start_alike_are_all_suggested():
    known = ["num_envs", "num_steps", "name", "gamma"]
    assert suggestion("n", known) == "did you mean one of name, num_envs, num_steps?"
    assert suggestion("num", known) == "did you mean one of num_envs, num_steps?"
    assert suggestion("num_e", known) == "did you mean `num_envs`?"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("total_timesteps", "1e6", 1_000_000),
        ("total_timesteps", 1e6, 1_000_000),
        ("total_timesteps", "1_000_000", 1_000_000),
        ("total_timesteps", " 2048 ", 2048),
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
