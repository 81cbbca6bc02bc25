"""Parts that all wrappers share: the functions and the state of the wrapped environment."""

from typing import Any

from rljax.types import Env, PyTree


def inner_functions(env: Env) -> dict[str, Any]:
    """Returns the optional fields of a wrapper whose state holds that of `env` in `env`.

    They are `render` and `observe`; `before_reset` is None, as the state of the wrapper is not
    that of `auto_reset`.
    """
    functions = {"render": env.render, "observe": env.observe}
    inner = {name: f and (lambda state, f=f: f(state.env)) for name, f in functions.items()}
    return inner | {"before_reset": None}


def innermost(state: PyTree) -> PyTree:
    """Returns the state of the innermost environment, given that of its wrappers.

    Wrappers hold it in `env`, those of gymnax in `env_state`.
    """
    while (inner := getattr(state, "env", getattr(state, "env_state", None))) is not None:
        state = inner
    return state


def replace_innermost(state: PyTree, inner: PyTree) -> PyTree:
    """Returns the state of the wrappers with the state of the innermost environment replaced."""
    if hasattr(state, "env"):
        return state._replace(env=replace_innermost(state.env, inner))
    return inner


def check_single(env: Env) -> None:
    """Checks that an environment is not a batch."""
    if env.spec.num_envs != 1:
        raise ValueError(
            f"{env.spec.env_id} is already a batch of {env.spec.num_envs} environments, but this "
            "wrapper needs a single one. Apply `batched` last."
        )


def check_not_on_host(env: Env) -> None:
    """Checks that an environment does not run on the host, where it resets itself."""
    if env.batch is not None:
        raise ValueError(
            f"{env.spec.env_id} runs on the host, where it has its own time limit and resets "
            "itself: pass `max_episode_steps` where it is made, with its id."
        )
