"""Gumbel MuZero: tree search in a learned model, with Gumbel noise and sequential halving.

MuZero (https://arxiv.org/abs/1911.08265) learns to predict rewards, values and the policies of the
search along replayed sequences; Danihelka et al. 2022 (https://openreview.net/forum?id=bERaNdoegnO)
choose actions and policy targets so that the policy improves with few simulations. The search is
`mctx.gumbel_muzero_policy`. Differs from the papers: Adam, dense networks, a search value under
the improved policy, not under the visits, which sequential halving spends on bad actions too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents import off_policy
from rljax.agents.acting import check_discrete
from rljax.agents.muzero_search import make_search
from rljax.agents.off_policy import Learned
from rljax.agents.search import SearchConfig, search_discount
from rljax.config import config, option
from rljax.networks import policies
from rljax.networks.encoder import example_obs
from rljax.networks.muzero import check_muzero_network, muzero_network
from rljax.ops import optimizers, random
from rljax.ops.diagnostics import explained_variance
from rljax.ops.unrolled import last_step, unrolled
from rljax.ops.value_supports import from_support, to_support
from rljax.replay import check_memory, sequences
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


@config
class MuZeroConfig(SearchConfig):
    """Options of Gumbel MuZero."""

    num_envs: int = option(8, "number of parallel environments", low=1)
    batch_size: int = option(128, "sequences per gradient step", low=1)
    train_frequency: int = option(8, "environment steps between two updates", low=1)
    n_step: int = option(10, "number of rewards in an n-step return", low=1)
    hidden_sizes: tuple[int, ...] = option(
        (128, 128), "units of the hidden layers of each network; the last one is the state", low=1
    )
    unroll_steps: int = option(5, "steps K that the model is unrolled in training", low=1)
    bootstrap: str = option(
        "target",
        "values in n-step returns: target network, or search when acting",
        choices=("target", "search"),
    )
    num_reanalyzed: int = option(
        0, "sequences of a batch whose policies and values are computed anew", low=0
    )
    support_size: int = option(
        20, "S: values and rewards are distributions over -S, ..., S, transformed", low=1
    )
    vf_coef: float = option(0.25, "value loss coefficient", low=0)
    normalize_obs: bool = option(False, "normalize observations by running mean and variance")

    def __post_init__(self):
        super().__post_init__()
        needed = self.sequence_length * self.num_envs
        if self.learning_starts < needed:
            raise ValueError(
                f"`learning_starts` is {self.learning_starts}, but the first sequences need "
                f"(unroll_steps + n_step) x num_envs = {needed} steps: raise it to {needed} or "
                "more."
            )
        if self.num_reanalyzed > self.batch_size:
            raise ValueError(
                f"`num_reanalyzed` is {self.num_reanalyzed}, but a batch has only "
                f"{self.batch_size} sequences: make it at most `batch_size`."
            )

    @property
    def sequence_length(self) -> int:
        """Number of steps of a replayed sequence, L = K + n."""
        return self.unroll_steps + self.n_step


def muzero(
    config: Any, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a Gumbel MuZero agent, for environments of one player and for games of two.

    Args:
      config: a `MuZeroConfig`; floats may be tracers.
      spec: description of the environment, with discrete actions.
      network: flax module with the methods of `networks.muzero.MuZeroNetwork`.
      optimizer: default Adam with weight decay and clipped gradients.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are not discrete, an argument has the wrong type, or the replay
        buffer needs more memory than there is.

    Example:
      >>> import rljax
      >>> env = rljax.build("CartPole-v1", num_envs=8)
      >>> agent = muzero(MuZeroConfig(num_simulations=8), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
    """
    check_discrete(spec)
    if network is None:
        network = muzero_network(
            spec, config.support_size, config.hidden_sizes, config.activation, config.torso
        )
    check_muzero_network(network, spec)
    rate_metric = optimizers.learning_rate_metric(None if optimizer else config.learning_rate)
    if optimizer is None:
        adam = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
        optimizer = optimizers.clipped(adam, config.max_grad_norm)
    optimizers.check_optimizer(optimizer)
    discount = search_discount(spec, config.gamma)
    num_unrolled = config.unroll_steps
    search = make_search(config, spec, network)
    extras = {"policy": jnp.zeros(spec.num_actions, jnp.float32), "value": jnp.float32(0)}
    item = off_policy.example_transition(spec)._replace(extras=extras)
    check_memory(config.buffer_size, item, "buffer_size")
    replay = sequences(
        config.buffer_size, config.batch_size, config.sequence_length, spec.num_envs,
        across_episodes=True, exponent=config.priority_exponent if config.prioritized else 0.0,
    )  # fmt: skip
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average, extras=extras)

    def represent(params, obs):
        return network.apply(params, obs, method="represent")

    def predict(params, state):
        return network.apply(params, state, method="predict")

    def dynamics(params, state, action):
        return network.apply(params, state, action, method="dynamics")

    def unroll(params, obs, action):
        """Imagines K steps from `obs[N]` with `action[K, N]`.

        Returns reward logits `[K, N, 2 S + 1]`, and policy and value logits of all K + 1 states.
        """

        def step(state, action):
            state, reward_logits = dynamics(params, half_gradient(state), action)
            return state, (state, reward_logits)

        root = represent(params, obs)
        _, (states, reward_logits) = jax.lax.scan(step, root, action)
        states = jnp.concatenate([root[None], states])
        return reward_logits, *predict(params, states)

    def init(key):
        obs, action = example_obs(spec), jnp.zeros(1, jnp.int32)
        params = network.init(key, obs, action)
        target_params = jax.tree.map(jnp.copy, params)
        return loop.init(Learned(params, target_params, optimizer.init(params)))

    def value_of(params, obs):
        return from_support(predict(params, represent(params, obs))[1])

    def search_targets(target_params, steps, key):
        """Returns policies `[K + 1, N, A]` and values `[L, N]` of the observations of sequences.

        Policies are those of the search when acting; those of reanalyzed sequences, of a new
        search with the target parameters (appendix H of the paper). Values come from the target
        network or, with `bootstrap="search"`, from the search when acting.
        """
        policy, value = steps.extras["policy"][: num_unrolled + 1], steps.extras["value"]
        count = config.num_reanalyzed
        if count:
            roots = jax.tree.map(lambda x: x[: num_unrolled + 1, :count], steps.obs)
            roots = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), roots)
            fresh = search(target_params, roots, key, 1.0).policy
            policy = policy.at[:, :count].set(fresh.reshape(num_unrolled + 1, count, -1))
        # the first return of n rewards bootstraps from observation n, the last one from the end
        num_fresh = config.batch_size if config.bootstrap == "target" else count
        if num_fresh:
            later = jax.tree.map(lambda x: x[config.n_step :, :num_fresh], steps.obs)
            value = value.at[config.n_step :, :num_fresh].set(value_of(target_params, later))
        return policy, value

    def gradient_step(learned, batch):
        """One gradient step on sequences `[L, N]`, Schrittwieser et al. 2020 (appendix G)."""
        steps = batch.transitions
        policy, value = search_targets(learned.target_params, steps, batch.noise)
        last = last_step(steps.terminated, steps.truncated)
        column = jnp.arange(config.batch_size)
        final_obs = jax.tree.map(lambda x: x[last, column], steps.next_obs)
        targets = unrolled(
            steps.reward, steps.terminated, steps.truncated, value,
            value_of(learned.target_params, final_obs), discount, config.n_step, num_unrolled,
        )  # fmt: skip
        obs = jax.tree.map(lambda x: x[0], steps.obs)
        # the loss of each imagined state has the weight 1 / K, so that all have that of the root
        scale = jnp.full((num_unrolled + 1, 1), 1.0 / num_unrolled).at[0].set(1.0)

        def cross_entropy(logits, target, is_target):
            """Returns the losses `[N]` of the logits and targets `[T, N, C]` of T states."""
            loss = -(target * jax.nn.log_softmax(logits)).sum(axis=-1)
            weight = scale if len(loss) > num_unrolled else scale[1:]
            return (weight * jnp.where(is_target, loss, 0.0)).sum(axis=0)

        def loss(params):
            reward_logits, policy_logits, value_logits = unroll(
                params, obs, steps.action[:num_unrolled]
            )
            size = (reward_logits.shape[-1] - 1) // 2
            losses = {
                "policy": cross_entropy(policy_logits, policy, targets.is_real),
                "value": cross_entropy(
                    value_logits, to_support(targets.value, size), targets.is_known
                ),
                "reward": cross_entropy(
                    reward_logits, to_support(targets.reward, size), targets.is_known[:-1]
                ),
            }
            total = losses["policy"] + config.vf_coef * losses["value"] + losses["reward"]
            root_value = from_support(value_logits[0])
            metrics = {f"losses/{name}_loss": x.mean() for name, x in losses.items()}
            metrics |= {
                "losses/value": root_value.mean(),
                "losses/entropy": policies.like((policy_logits[0],)).entropy().mean(),
                "losses/explained_variance": explained_variance(
                    root_value, targets.value[0], average
                ),
            }
            return (batch.weight * total).mean(), (targets.value[0] - root_value, metrics)

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
        return loop.learn(state, trajectory, key, gradient_step, random.split)

    def act(state, obs, key):
        found = search(state.params, loop.standardize(state, obs), key, 1.0)
        return found.action, {"policy": found.policy, "value": found.value}

    def best(state, obs, key):
        return search(state.params, loop.standardize(state, obs), key, 0.0)

    def greedy(state, obs, key):
        return best(state, obs, key).action

    return Agent(init, act, greedy, update, search=best)


def half_gradient(x: Array) -> Array:
    """Returns `x` with half of its gradient, as at each step of the dynamics (appendix G)."""
    return 0.5 * x + jax.lax.stop_gradient(0.5 * x)
