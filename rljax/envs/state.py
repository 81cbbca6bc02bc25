"""The state of the environment beside the observation, for agents that plan with the environment.

Observations become `StateObs(obs, state)`. A planner steps `spec.simulator` from that state.
"""

from rljax.envs.wrapped import check_not_on_host, check_single
from rljax.types import Env, StateObs


def show_state(env: Env) -> Env:
    """Adds the state of an environment to its observations.

    Args:
      env: a single environment that resets itself.

    Returns:
      An environment with observations `StateObs(obs, state)`. Its `spec.simulator` is the
      environment before `auto_reset`, whose `step` takes these states and does not reset; if `env`
      resets itself by other means, it is `env`.

    Raises:
      ValueError: `env` is a batch, or runs on the host, where its state cannot be copied.

    Example:
      >>> import jax
      >>> from rljax.envs import make
      >>> env = show_state(make("rljax/Maze"))
      >>> _, obs = env.reset(jax.random.key(0))
      >>> noise = env.spec.simulator.sample_noise(jax.random.key(1), 1)[0]
      >>> _, step = env.spec.simulator.step(obs.state, 0, noise)
      >>> bool(step.terminated)
      False
    """
    check_single(env)
    check_not_on_host(env)
    simulator = env if env.before_reset is None else env.before_reset

    def visible(state):
        return state if env.before_reset is None else state.env

    def reset(key):
        state, obs = env.reset(key)
        return state, StateObs(obs, visible(state))

    def step(state, action, noise):
        state, step = env.step(state, action, noise)
        obs = StateObs(step.obs, visible(state))
        # the state that an episode ended in is gone; planning starts from `obs` alone
        return state, step._replace(obs=obs, next_obs=StateObs(step.next_obs, visible(state)))

    spec = env.spec._replace(simulator=simulator)
    before_reset = None if env.before_reset is None else show_state(env.before_reset)
    return env._replace(spec=spec, reset=reset, step=step, observe=None, before_reset=before_reset)
