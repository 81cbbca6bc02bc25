"""What the agents that plan by tree search share: AlphaZero and MuZero."""

from typing import Any

from rljax.types import EnvSpec


def search_discount(spec: EnvSpec, gamma: Any) -> Any:
    """Returns the factor of the value of the next state in the value of a state.

    In a game of two players it is negative: the next state is valued by the opponent, and what
    the opponent gains, the player loses.

    Example:
      >>> search_discount(EnvSpec(num_actions=9, num_players=2), 1.0)
      -1.0
    """
    return -gamma if spec.num_players == 2 else gamma
