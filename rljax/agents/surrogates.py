"""Surrogate objectives of PPO, https://arxiv.org/abs/1707.06347: clipping and a KL penalty.

A `Surrogate` is a record of functions; any such record can be given to `ppo` as `surrogate=`.
"""

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from rljax.config import kind_of
from rljax.ops import policy
from rljax.types import Array, PyTree


class SurrogateInit(Protocol):
    def __call__(self) -> PyTree:
        """Returns the initial state, such as the coefficient of a penalty; `()` for none."""
        ...


class SurrogateObjective(Protocol):
    def __call__(self, state: PyTree, ratio: Array, advantage: Array, kl: Array, /) -> Array:
        """Returns the objective of each sample, to be maximized.

        Args:
          state: state of the surrogate.
          ratio: pi(a | s) / pi_old(a | s), `[N]`.
          advantage: normalized advantages, `[N]`.
          kl: KL(pi_old || pi) at each observation, `[N]`.

        Returns:
          `[N]` floats.
        """
        ...


class SurrogateAdapt(Protocol):
    def __call__(self, state: PyTree, kl: Array, /) -> PyTree:
        """Returns the next state, once per update; `kl` `[]` is the mean KL(old || new)."""
        ...


class SurrogateStop(Protocol):
    def __call__(self, kl: Array, /) -> Array:
        """Whether to discard the rest of the update, given the mean KL `[]` of a minibatch."""
        ...


class Surrogate(NamedTuple):
    """The surrogate objective of PPO.

    Attributes:
      init: `() -> state`.
      objective: `(state, ratio[N], advantage[N], kl[N]) -> [N]`, to be maximized.
      adapt: `(state, kl) -> state`, once per update.
      stop: `(kl) -> bool`, whether to discard the rest of the update; None never stops.
      clip_eps: clipping epsilon, for the metric `losses/clip_fraction`; None without clipping.
    """

    init: SurrogateInit
    objective: SurrogateObjective
    adapt: SurrogateAdapt
    stop: SurrogateStop | None = None
    clip_eps: Any = None


def check_surrogate(surrogate: Any) -> Surrogate:
    """Returns `surrogate` after checking that it is a `Surrogate`.

    Raises:
      ValueError: it is another object, such as a function.
    """
    if not isinstance(surrogate, Surrogate):
        raise ValueError(
            f"`surrogate` is {kind_of(surrogate)}, but it must be an `rljax.Surrogate`, such as "
            "`rljax.clip(0.2)` or `rljax.adaptive_kl(0.01)`."
        )
    return surrogate


def clip(clip_eps: Any) -> Surrogate:
    """The clipped surrogate, eq. 7.

        min(r A, clip(r, 1 - eps, 1 + eps) A)

    Args:
      clip_eps: clipping epsilon of the probability ratio r.

    Example:
      >>> surrogate = clip(0.25)
      >>> surrogate.objective(surrogate.init(), jnp.array([2.0]), jnp.ones(1), jnp.zeros(1))
      Array([1.25], dtype=float32)
    """

    def objective(state, ratio, advantage, kl):
        del state, kl
        return policy.clipped_surrogate(ratio, advantage, clip_eps)

    return Surrogate(lambda: (), objective, lambda state, kl: state, clip_eps=clip_eps)


def adaptive_kl(target_kl: Any, beta: float = 1.0) -> Surrogate:
    """The surrogate with an adaptive KL penalty, eq. 8.

        r A - beta KL(old || new)

    Args:
      target_kl: target of the mean KL of an update, towards which beta is adapted.
      beta: initial coefficient of the penalty.

    Example:
      >>> surrogate = adaptive_kl(target_kl=0.01)
      >>> surrogate.adapt(surrogate.init(), jnp.float32(0.1))
      Array(2., dtype=float32)
    """

    def objective(beta, ratio, advantage, kl):
        return ratio * advantage - beta * kl

    def adapt(beta, kl):
        return policy.adapted_beta(beta, kl, target_kl)

    return Surrogate(lambda: jnp.float32(beta), objective, adapt)
