"""TOML files of options: `load` reads what `dump` writes."""

import dataclasses
import json
import tomllib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rljax.agents.ppo import PPOConfig
from rljax.config import dump, from_mapping, load, to_mapping

SMALL = PPOConfig(total_timesteps=1024, num_envs=4, num_steps=16)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
plain = st.booleans() | numbers | texts | st.lists(st.integers(0, 999), max_size=3)


@given(st.dictionaries(st.sampled_from(["agent", "env_id", "gamma", "note"]), plain))
def test_load_inverts_dump(values):
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
def test_any_string_can_be_dumped(value):
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


def test_a_config_can_be_written_to_a_file_and_read_back(tmp_path):
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
