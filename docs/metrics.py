"""Writes docs/metrics.md from the descriptions in rljax/agents/metric_descriptions.py.

python docs/metrics.py
"""

import textwrap
from functools import partial
from pathlib import Path

from rljax.agents.metric_descriptions import groups, table_of_agents, table_of_metrics

fill = partial(textwrap.fill, width=100, break_long_words=False, break_on_hyphens=False)
PAGE = Path(__file__).with_suffix(".md")

TEXT = """\
# Metrics

<!-- Written by `python docs/metrics.py` from rljax/agents/metric_descriptions.py. -->

A report holds, for each metric, the mean over all updates since the last report. `num_reports` sets
the number of reports; it does not change the training. A metric is NaN where there was nothing to
average, such as a loss before the first gradient step: agents that learn from replay take none
before `learning_starts`. Metrics do not change the training either: parameters are the same with
and without them.

```python
import rljax

run = rljax.train("ppo", "CartPole-v1", num_seeds=2, total_timesteps=10_000, num_reports=5)
print(sorted(run.metrics))
print(run.metric("losses/explained_variance"))  # [seed, report]
```

Notation: pi_old is the policy that acted, pi the policy being updated, r = pi(a given s) / pi_old(a
given s) the probability ratio, A the advantage, v the value network, Q the action values, mu the
deterministic policy, y the target, delta the TD error. Means are over all samples of an update, and
over its gradient steps. With several devices (`devices=N`) they are means over all devices.

## All metrics

{groups}.

{metrics}
## The return

`charts/episodic_return` is the mean return of the episodes that ended since the last report; if
none ended, that of the report before. It is NaN until every environment has completed an episode:
short episodes end first, and in a task such as Acrobot they are not like the others. The progress
bar, the table and `run.returns` show this number, over seeds as an interquartile mean, and so do
the figures of runs without `eval_interval`.
The bar of a sweep shows the best and the median setting.

## Learning rates

The learning rate is that of the default optimizer, as it was used: with `anneal_lr` it falls from
update to update. The rate of your own optimizer, `optimizer=`, is reported if its state holds it.
It does with `optax.inject_hyperparams`:

```python
import optax
import rljax

rate = optax.cosine_decay_schedule(1e-3, decay_steps=6_000)
run = rljax.train(
    "ppo", "CartPole-v1", total_timesteps=10_000, num_reports=5,
    optimizer=optax.inject_hyperparams(optax.adam)(learning_rate=rate),
)  # fmt: skip
print(run.metric("charts/learning_rate"))
```

Tabular agents have a constant step size, `learning_rate` in `config.toml`.

## How to read them

- **Explained variance** near 1: the values predict the targets. Near 0 or below: they do not
  predict them better than a constant.
- **Gradient norm** above `max_grad_norm` all the time: every step is clipped, and the learning rate
  alone sets its length.
- **KL divergence and clip fraction** that jump: the steps are too long; lower the learning rate or
  the number of epochs. Both near 0: the policy hardly moves.
- **Entropy** that falls to its minimum early: the policy has stopped exploring; raise `ent_coef`.
- **Action saturation** near 1: most actions are at a bound, where the gradient of a squashed policy
  vanishes.
- **Maximum Q-value** that grows without bound, far above any possible return: the values diverge.
- **Replay fill** of 1: the oldest transitions are being overwritten.

## Names in CleanRL and Stable-Baselines3

| rljax | CleanRL | Stable-Baselines3 |
| --- | --- | --- |
| `charts/episodic_return` | `charts/episodic_return` | `rollout/ep_rew_mean` |
| `charts/episodic_length` | `charts/episodic_length` | `rollout/ep_len_mean` |
| `charts/learning_rate` | `charts/learning_rate` | `train/learning_rate` |
| `losses/policy_loss` | `losses/policy_loss` | `train/policy_gradient_loss` |
| `losses/value_loss` | `losses/value_loss` | `train/value_loss`, twice as large |
| `losses/entropy` | `losses/entropy` | `train/entropy_loss`, its negative |
| `losses/kl`, exact | `losses/approx_kl`, the estimate k3 | `train/approx_kl`, the estimate k3 |
| `losses/clip_fraction` | `losses/clipfrac` | `train/clip_fraction` |
| `losses/explained_variance` | `losses/explained_variance` | `train/explained_variance` |
| `losses/td_loss` | `losses/td_loss` | `train/loss` |
| `losses/q_value` | `losses/q_values`, `losses/qf1_values` | |
| `losses/critic_loss` | `losses/qf_loss` | `train/critic_loss` |
| `losses/alpha` | `losses/alpha` | `train/ent_coef` |
| `time/steps_per_second`, without compilation and evaluation | `charts/SPS` | `time/fps` |

## Metrics of each agent

Each agent also reports the metrics of the training loop: the return, length and reward, and the
steps per second.

{agents}"""


def page() -> str:
    """Returns the page as Markdown."""
    return TEXT.format(groups=fill(groups()), metrics=table_of_metrics(), agents=table_of_agents())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
