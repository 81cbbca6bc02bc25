"""The metrics that agents and the training loop report, with their formulas.

`docs/metrics.md` is made from them by `docs/metrics.py`.
"""

from typing import NamedTuple

from rljax.agents import AGENTS


class Metric(NamedTuple):
    """A metric as certain agents report it.

    Attributes:
      name: its name, "family/quantity".
      formula: its formula, or a definition in words.
      agents: the agents that report it; empty if it does not depend on the agent.
      condition: when it is reported; empty if always.
    """

    name: str
    formula: str
    agents: tuple[str, ...] = ()
    condition: str = ""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _family(name: str) -> tuple[str, ...]:
    return tuple(agent for agent, row in AGENTS.items() if row.family == name)


POLICY_GRADIENT = _family("policy gradient")
DQN = _names("dqn c51 qr_dqn munchausen rainbow")
SAC = _names("sac simba discrete_sac mbpo")
CRITICS = (*_names("ddpg td3"), *SAC)
SEARCH = _names("alphazero muzero")
DYNAMIC_PROGRAMMING = _names("value_iteration policy_iteration")
TABULAR = tuple(
    name for name, row in AGENTS.items() if row.tabular and name not in DYNAMIC_PROGRAMMING
)
GROUPS = {
    "policy gradient": POLICY_GRADIENT, "DQN family": DQN, "SAC family": SAC,
    "tabular agents": TABULAR,
}  # fmt: skip
ONE_OPTIMIZER = (*DQN, "pqn", *POLICY_GRADIENT, *SEARCH)

METRICS = (
    Metric(
        "charts/episodic_return",
        "mean undiscounted return of the latest episodes, see [the return](#the-return)",
    ),
    Metric("charts/episodic_length", "mean length of the latest episodes, in steps"),
    Metric("charts/reward", "mean reward per step"),
    Metric("charts/legal_actions", "mean number of legal actions", (),
           "environments with an action mask"),
    Metric("charts/intrinsic_reward",
           "mean exploration bonus per step, without its coefficient; the episodic return does not "
           "contain it", (), "with `random_network_distillation`"),
    Metric("charts/learning_rate",
           "learning rate of the latest gradient step of an update, after annealing",
           ONE_OPTIMIZER, "if it is known, see [learning rates](#learning-rates)"),
    Metric("charts/actor_learning_rate", "learning rate of the policy", CRITICS,
           "if it is known"),
    Metric("charts/critic_learning_rate", "learning rate of the critics", CRITICS,
           "if it is known"),
    Metric("charts/action_saturation",
           "fraction of the components of the sampled actions with abs(a) >= 0.99; a is in units "
           "of half the range of the action, before it is clipped to [-1, 1]",
           POLICY_GRADIENT, "with continuous actions"),
    Metric("charts/action_saturation",
           "fraction of the components of the policy's actions in the replayed states with "
           "abs(a) >= 0.99; a in [-1, 1] is the output of the tanh",
           _names("ddpg td3 sac simba mbpo"), "with continuous actions"),
    Metric("charts/action_saturation",
           "fraction of the components of the executed actions with abs(a) >= 0.99; a in [-1, 1] "
           "is in units of half the range of the action", ("pets",), "with continuous actions"),
    Metric("charts/replay_fill",
           "stored items / capacity of the replay buffer, after the rollout was added",
           (*DQN, *CRITICS, "pets", *SEARCH)),
    Metric("charts/model_epochs", "epochs of a training of the models", _names("mbpo pets")),
    Metric("losses/policy_loss",
           "-mean(surrogate): -mean(min(r A, clip(r, 1 - eps, 1 + eps) A)), or "
           "-mean(r A - beta KL)",
           _names("ppo dppo")),
    Metric("losses/policy_loss", "mean(-log pi(a given s) A)",
           _names("a2c a3c impala reinforce actor_critic")),
    Metric("losses/policy_loss", "-mean(r A + ent_coef H(pi)) after the step", ("trpo",)),
    Metric("losses/policy_loss", "-mean(Q(s, mu(s)))", ("ddpg",)),
    Metric("losses/policy_loss", "-mean(Q(s, mu(s))), of the updates of the policy", ("td3",)),
    Metric("losses/policy_loss", "mean(alpha log pi(a given s) - min(Q_1, Q_2))", SAC),
    Metric("losses/policy_loss", "mean cross-entropy of the policy to that of the search",
           ("alphazero",)),
    Metric("losses/policy_loss",
           "mean cross-entropy of the policy to that of the search, summed over the unrolled steps",
           ("muzero",)),
    Metric("losses/critic_loss",
           "mean((y - Q(s, a))^2 / 2) with importance weights, summed over the critics", CRITICS),
    Metric("losses/value_loss",
           "mean((v(s) - target)^2 / 2); `ppo` and `dppo` with `clip_value`: the clipped value "
           "loss",
           (*POLICY_GRADIENT, "alphazero")),
    Metric("losses/value_loss",
           "cross-entropy of the predicted values, summed over the unrolled steps", ("muzero",)),
    Metric("losses/explained_variance",
           "1 - Var(target - v(s)) / Var(target), with the values and value targets before the "
           "update; both variances are summed over the updates of a report and the workers share "
           "their means", tuple(x for x in POLICY_GRADIENT if x != "reinforce")),
    Metric("losses/explained_variance",
           "1 - Var(target - v(s)) / Var(target), of the steps of the completed episodes, with the "
           "baseline before the update; both variances are summed over the updates of a report",
           ("reinforce",), 'with `baseline="value"`'),
    Metric("losses/explained_variance",
           "1 - Var(target - v(s)) / Var(target), of each batch before the gradient step; both "
           "variances are summed over the gradient steps of a report", SEARCH),
    Metric("losses/entropy",
           "mean entropy H(pi(s)); for a Gaussian policy the differential entropy, which can be "
           "negative", POLICY_GRADIENT),
    Metric("losses/entropy",
           "mean of -log pi(a given s), for actions in [-1, 1] or the discrete entropy", SAC),
    Metric("losses/entropy",
           "mean entropy of the policy network in the sampled states", SEARCH),
    Metric("losses/alpha", "temperature alpha of the entropy", SAC),
    Metric("losses/kl", "mean KL(pi_old, pi), exact in each state", _names("ppo dppo trpo")),
    Metric("losses/approx_kl",
           "mean(r - 1 - log r), an unbiased estimate of KL(pi_old, pi) from the sampled actions "
           "(the estimator k3), where pi is the learner's policy", ("impala",)),
    Metric("losses/ratio",
           "mean probability ratio of the learner's policy to the acting policy", ("impala",)),
    Metric("losses/clip_fraction", "fraction of samples with abs(r - 1) > clip_eps",
           _names("ppo dppo"), 'with `surrogate="clip"`'),
    Metric("losses/step_fraction",
           "fraction of the natural-gradient step that the line search accepted; 0 if none",
           ("trpo",)),
    Metric("losses/grad_norm",
           "Euclidean norm of the gradient of all parameters before it is clipped; the gradient is "
           "the mean over workers, and steps that are skipped (`dppo`, `reinforce`) do not count",
           tuple(x for x in ONE_OPTIMIZER if x != "trpo")),
    Metric("losses/actor_grad_norm", "Euclidean norm of the gradient of the policy", CRITICS),
    Metric("losses/actor_grad_norm",
           "Euclidean norm of the gradient of the surrogate objective, before the natural step",
           ("trpo",)),
    Metric("losses/critic_grad_norm", "Euclidean norm of the gradient of the critics",
           (*CRITICS, "trpo")),
    Metric("losses/td_loss", "mean loss of the TD error, without importance weights",
           _names("dqn munchausen pqn")),
    Metric("losses/td_loss", "mean cross-entropy to the projected target distribution",
           _names("c51 rainbow")),
    Metric("losses/td_loss", "mean quantile Huber loss", ("qr_dqn",)),
    Metric("losses/q_value", "mean Q(s, a) of the sampled actions",
           (*DQN, "pqn", *CRITICS)),
    Metric("losses/value_std",
           "standard deviation of max_a Q(s, a) over the steps and environments of a rollout; 0 if "
           "the network is constant", (*DQN, "pqn"), "with more than one step in a rollout"),
    Metric("losses/q_value_max",
           "maximum Q(s, a) of the sampled actions of a batch; mean over the batches",
           (*DQN, "pqn", *CRITICS)),
    Metric("losses/value", "mean predicted value of the sampled states", SEARCH),
    Metric("losses/reward_loss",
           "cross-entropy of the predicted rewards, summed over the steps of the unrolled model",
           ("muzero",)),
    Metric("losses/model_loss",
           "mean of (mean - y)^2 / variance + log variance of the elite networks on held-out data, "
           "y the standardized change of the observation or reward; with a learned termination "
           "plus its cross-entropy", _names("mbpo pets")),
    Metric("losses/model_error",
           "mean((mean - y)^2) of the elite networks on held-out data; 1 for a model that knows "
           "only the means",
           _names("mbpo pets")),
    Metric("losses/td_error", "mean abs(delta) of the updates of the table", TABULAR),
    Metric("losses/bellman_residual", "maximum change of an action value in the last update",
           DYNAMIC_PROGRAMMING),
    Metric("losses/rnd_loss", "mean squared error of the predictor, before it is scaled", (),
           "with `random_network_distillation`"),
    Metric("eval/episodic_return",
           "undiscounted return of the greedy policy in fresh environments", (),
           "with `eval_interval`"),
    Metric("eval/episodic_length",
           "length of the episodes of the greedy policy in fresh environments, in steps", (),
           "with `eval_interval`"),
    Metric("time/steps_per_second",
           "environment steps of all runs per second of training, without compilation, evaluation "
           "and saving; only for writers and `on_report`, because the files of a run depend on its "
           "options alone"),
)  # fmt: skip


def metrics_of(agent: str) -> list[str]:
    """Returns the names of the metrics that an agent reports beside those of the training loop.

    Example:
      >>> metrics_of("q_learning")
      ['losses/td_error']
    """
    return sorted({metric.name for metric in METRICS if agent in metric.agents})


def table_of_metrics() -> str:
    """Returns all metrics with their formulas as a Markdown table."""
    rows = sorted(METRICS, key=lambda metric: metric.name)
    lines = ["| metric | reported by | formula |", "| --- | --- | --- |"]
    last = ""
    for metric in rows:
        name = f"`{metric.name}`" if metric.name != last else ""
        lines.append(f"| {name} | {_reported_by(metric)} | {metric.formula} |")
        last = metric.name
    return "\n".join(lines) + "\n"


def _reported_by(metric: Metric) -> str:
    names, others = [], list(metric.agents)
    for group, members in GROUPS.items():
        if set(members) <= set(others):
            names.append(group)
            others = [agent for agent in others if agent not in members]
    words = [*names, *(f"`{agent}`" for agent in others), metric.condition]
    return ", ".join(filter(None, words)) or "all"


def groups() -> str:
    """Returns the agents of each group that the table of metrics names, as Markdown."""
    return ". ".join(
        f"{group[0].upper()}{group[1:]}: {', '.join(f'`{x}`' for x in members)}"
        for group, members in GROUPS.items()
    )


def table_of_agents() -> str:
    """Returns the metrics of each agent as a Markdown table."""
    rows = [f"| `{x}` | {', '.join(f'`{name}`' for name in metrics_of(x))} |" for x in AGENTS]
    return "\n".join(["| agent | metrics |", "| --- | --- |", *rows]) + "\n"
