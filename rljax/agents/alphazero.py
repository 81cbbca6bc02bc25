"""AlphaZero: tree search in the environment itself, https://arxiv.org/abs/1712.01815.

The policy of the search is the target of the policy network, and the outcome of the episode that of
the value network. In games of two players the agent plays both sides. The search is that of
Danihelka et al. 2022 (https://openreview.net/forum?id=bERaNdoegnO) or, with `search="puct"`, that
of the paper. Differs from the paper: positions of unfinished episodes are bootstrapped; AdamW; the
network that searches is a target network, a copy or a moving average.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents import off_policy
from rljax.agents.acting import check_discrete
from rljax.agents.off_policy import Learned
from rljax.agents.search import SEARCHES, SearchConfig, make_search, search_discount
from rljax.config import config, kind_of, option
from rljax.networks.actor_critic import actor_critic_network, check_actor_critic
from rljax.networks.encoder import example_obs
from rljax.networks.masking import masked
from rljax.ops import optimizers, returns, td
from rljax.ops.diagnostics import explained_variance
from rljax.types import Agent, Env, EnvSpec, PyTree, Replay, StateObs, identity


@config
class AlphaZeroConfig(SearchConfig):
    """Options of AlphaZero."""

    num_envs: int = option(64, "number of parallel environments", low=1)
    num_steps: int = option(16, "rollout length per environment", low=1)
    gamma: float = option(1.0, "discount factor gamma", low=0, high=1)
    trace_lambda: float = option(1.0, "lambda of the value targets", low=0, high=1)
    train_frequency: int = option(64, "environment steps between two updates", low=1)
    gradient_steps: int = option(2, "gradient steps per update", low=1)
    hidden_sizes: tuple[int, ...] = option((128, 128), "units of each hidden layer", low=1)
    search: str = option("gumbel", "search at the root of the tree", choices=tuple(SEARCHES))
    num_simulations: int = option(32, "simulations of a search", low=1)
    dirichlet_fraction: float = option(
        0.25, "weight of the Dirichlet noise in the prior of puct", low=0, high=1
    )
    vf_coef: float = option(1.0, "value loss coefficient", low=0)

    def __post_init__(self):
        super().__post_init__()
        if self.n_step != 1:
            raise ValueError(
                f"`n_step` is {self.n_step}, but value targets of alphazero are lambda-returns of "
                "a rollout: leave it at 1, and set `trace_lambda`."
            )


def alphazero(
    config: Any, spec: EnvSpec, *, network: Any = None, model: Env | None = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an AlphaZero agent, for environments of one player and for games of two.

    Its observations are `StateObs(obs, state)`, which `envs.state.show_state` makes.

    Args:
      config: an `AlphaZeroConfig`; floats may be tracers.
      spec: description of the environment, with discrete actions.
      network: flax module, `obs[..., *obs_shape] -> (policy, value[...])`.
      model: the single environment to plan with, whose `step` takes the states of the
        observations; by default `spec.simulator`, the environment that the agent acts in.
      optimizer: default Adam with weight decay and clipped gradients.
      replay: default uniform or prioritized replay, by `config`.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are not discrete, there is no environment to plan with, the network
        does not fit, or the replay buffer needs more memory than there is.

    Example:
      >>> import rljax
      >>> from rljax.envs.state import show_state
      >>> env = rljax.envs.batched(show_state(rljax.make("rljax/TicTacToe")), 64)
      >>> agent = alphazero(AlphaZeroConfig(num_simulations=16), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=9)
    """
    check_discrete(spec)
    model = spec.simulator if model is None else model
    if not isinstance(model, Env):
        given = "missing" if model is None else kind_of(model)
        raise ValueError(
            f"`model` is {given}, but alphazero plans with an `Env`: give the environment as "
            "`model=`, or wrap it with `rljax.envs.state.show_state`."
        )
    if network is None:
        hidden = config.hidden_sizes, config.activation, config.torso
        network = actor_critic_network(spec, *hidden)
    check_actor_critic(network, spec)
    network = masked(network, spec)
    rate_metric = optimizers.learning_rate_metric(None if optimizer else config.learning_rate)
    if optimizer is None:
        adam = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
        optimizer = optimizers.clipped(adam, config.max_grad_norm)
    optimizers.check_optimizer(optimizer)
    discount = search_discount(spec, config.gamma)
    search = make_search(config, spec, network.apply, model)
    extras = {"policy": jnp.zeros(spec.num_actions, jnp.float32), "value": jnp.float32(0)}
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average, extras=extras)

    def init(key):
        params = network.init(key, example_obs(spec))
        target_params = jax.tree.map(jnp.copy, params)
        return loop.init(Learned(params, target_params, optimizer.init(params)))

    def gradient_step(learned, batch):
        """The loss of eq. 1, with the targets of the search."""
        transitions = batch.transitions

        def loss(params):
            policy, value = network.apply(params, transitions.obs)
            target = transitions.extras["policy"]
            log_prob = jnp.where(target > 0, jax.nn.log_softmax(policy.logits), 0.0)
            policy_loss = -(target * log_prob).sum(axis=-1)
            td_error = transitions.extras["value"] - value
            value_loss = td.squared(td_error)
            total = batch.weight * (policy_loss + config.vf_coef * value_loss)
            metrics = {
                "losses/policy_loss": policy_loss.mean(), "losses/value_loss": value_loss.mean(),
                "losses/value": value.mean(), "losses/entropy": policy.entropy().mean(),
                "losses/explained_variance": explained_variance(
                    value, transitions.extras["value"], average
                ),
            }  # fmt: skip
            return total.mean(), (td_error, metrics)

        grads, (td_error, metrics) = jax.grad(loss, has_aux=True)(learned.params)
        grads = average(grads)
        params, opt_state = optimizers.apply_gradients(
            optimizer, grads, learned.opt_state, learned.params
        )
        metrics |= {"losses/grad_norm": optimizers.gradient_norm(grads), **rate_metric(opt_state)}
        target_params = off_policy.update_target(
            learned.target_params, params, config.tau, batch.target_is_due
        )
        return Learned(params, target_params, opt_state), td_error, metrics

    def update(state, trajectory, key):
        next_obs = loop.standardize(state, trajectory.next_obs)
        _, next_value = network.apply(state.learned.target_params, next_obs)
        value = returns.lambda_returns(
            trajectory.reward, next_value, trajectory.terminated, trajectory.truncated, discount,
            config.trace_lambda,
        )  # fmt: skip
        trajectory = trajectory._replace(extras=trajectory.extras | {"value": value})
        return loop.learn(state, trajectory, key, gradient_step)

    def searched(state, obs, key, explore):
        if not isinstance(obs, StateObs):
            raise ValueError(
                f"alphazero plans from the state of {spec.env_id}, but observes "
                f"{type(obs).__name__}: wrap the environment with `rljax.envs.state.show_state`."
            )
        return search(state.learned.target_params, obs.obs, obs.state, key, explore)

    def act(state, obs, key):
        found = searched(state, obs, key, 1.0)
        return found.action, {"policy": found.policy, "value": found.value}

    def best(state, obs, key):
        return searched(state, obs, key, 0.0)

    def greedy(state, obs, key):
        return best(state, obs, key).action

    return Agent(init, act, greedy, update, search=best)
