"""Signs of failed learning in the metrics of a run: what happened, and what may help."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rljax.results import figures

if TYPE_CHECKING:
    from rljax.results.result import Result

MIN_REPORTS = 8  # with a return; fewer show no trend
LEARNS = ("losses/entropy", "losses/td_loss", "losses/critic_loss")  # agents with a network
EPISODIC_LENGTH, ENTROPY, MAX_Q = (
    "charts/episodic_length", "losses/entropy", "losses/q_value_max",
)  # fmt: skip
VALUE_STD, EXPLAINED = "losses/value_std", "losses/explained_variance"
EXPLORATION = "add an exploration bonus (docs/exploration.md)"
KEEP_BEST = "keep the best policy with `eval_interval`"


class Curves(NamedTuple):
    """The metrics of one run.

    Attributes:
      steps: environment steps of the reports with a return, `[P]`.
      metrics: values at those reports, `[P]` by name.
      config: hyperparameters of the run.
      final: mean return of the evaluation of the final policy, NaN without one.
    """

    steps: np.ndarray
    metrics: dict[str, np.ndarray]
    config: dict[str, Any]
    final: float

    @property
    def returns(self) -> np.ndarray:
        return self.metrics[figures.EPISODIC_RETURN]


def health(result: "Result") -> list[dict[str, Any]]:
    """Returns the signs of `Result.health`."""
    if figures.EPISODIC_RETURN not in result.metrics or not {*LEARNS} & {*result.metrics}:
        return []
    found, diverged = [], {run["run"] for run in result.diverged}
    metrics = {name: result.by_setting(name) for name in result.metrics}
    final = np.full((len(result.settings), result.num_seeds), np.nan)
    if result.evaluation is not None:
        final = result.scores(evaluated=True)
    for setting, swept in enumerate(result.settings):
        for seed in range(result.num_seeds):
            run = setting * result.num_seeds + seed
            of_run = {name: x[setting, seed] for name, x in metrics.items()}
            present = ~np.isnan(of_run[figures.EPISODIC_RETURN])
            if run in diverged or present.sum() < MIN_REPORTS:
                continue
            of_run = {name: x[present] for name, x in of_run.items()}
            config, steps = result.config | swept, result.steps[present]
            curves = Curves(steps, of_run, config, final[setting, seed])
            text = next(filter(None, (sign(curves) for sign in SIGNS)), None)
            if text:
                found.append({"run": run, "setting": swept, "seed": seed, "text": text})
    return found


def nothing_happened(curves: Curves) -> str | None:
    """All episodes had the same return and length."""
    lengths = curves.metrics.get(EPISODIC_LENGTH, np.zeros(1))
    if np.ptp(curves.returns) > 0 or np.ptp(lengths) > 0:
        return None
    text = f"every episode had the return {curves.returns[0]:.4g} and the same length, so there was"
    cure = _cure(curves, "exploration_fraction", "ent_coef", other=EXPLORATION)
    return f"{text} nothing to learn from{cure}"


def stuck(curves: Curves) -> str | None:
    """The last quarter of the returns is constant, and the lowest of the run."""
    returns = curves.returns
    last = returns[-max(len(returns) // 4, MIN_REPORTS // 2) :]
    if np.ptp(last) > 0 or last[0] > returns.min() or last[0] == returns.max():
        return None
    since = curves.steps[np.flatnonzero(returns != last[0])[-1] + 1]
    text = f"the return is {last[0]:.4g}, its lowest, since step {since:,}"
    if ENTROPY in curves.metrics:
        entropy = curves.metrics[ENTROPY]
        text += f", and the entropy fell from {entropy.max():.2g} to {entropy[-1]:.2g}"
    return text + _cure(curves, "ent_coef", "eps_end", "learning_rate", "target_kl")


def constant(curves: Curves) -> str | None:
    """The value network has given the same value for all observations since some report."""
    returns, metrics = curves.returns, curves.metrics
    if VALUE_STD in metrics:
        is_constant = metrics[VALUE_STD] == 0
    else:
        is_constant = np.abs(metrics.get(EXPLAINED, np.ones(len(returns)))) < 1e-5
    last = len(returns) - max(len(returns) // 4, MIN_REPORTS // 2)
    if not is_constant[last:].all() or returns[last:].mean() > returns[: last or 1].mean():
        return None
    since = curves.steps[np.flatnonzero(~is_constant)[-1] + 1 if not is_constant.all() else 0]
    text = f"the network has given the same value for all observations since step {since:,}, as if"
    return f"{text} all units of a layer were dead" + _cure(curves, "learning_rate")


def unstable(curves: Curves) -> str | None:
    """The run has lost more than half of what it had learned, and more than its usual noise.

    A policy that evaluates well has lost nothing: exploratory actions lower the training return.
    """
    width = max(3, len(curves.returns) // 20)
    smooth = np.convolve(curves.returns, np.ones(width) / width, "valid")
    noise = np.median(np.abs(np.diff(curves.returns)))
    best, final = smooth.max(), np.fmax(smooth[-1], curves.final)
    gain, loss = best - smooth[0], best - final
    if loss <= 0.5 * gain or loss <= 6 * noise or gain <= 6 * noise:
        return None
    text = f"the return fell from {best:.4g} to {final:.4g} by the end"
    return text + _cure(curves, "learning_rate", "anneal_lr", other=KEEP_BEST)


def exploded(curves: Curves) -> str | None:
    """Action values are far outside the range of the returns."""
    if MAX_Q not in curves.metrics or np.isnan(curves.metrics[MAX_Q]).all():
        return None
    gamma = float(curves.config.get("gamma", 0.99))
    reward = np.abs(curves.metrics.get("charts/reward", np.zeros(1))).max()
    bound = np.abs(curves.returns).max() + reward / max(1 - gamma, 1e-3)
    largest = float(np.nanmax(np.abs(curves.metrics[MAX_Q])))
    if largest <= 10 * bound + 10:
        return None
    size = np.abs(curves.returns).max()
    text = f"action values reached {largest:.3g}, but returns only {size:.3g}"
    return text + _cure(curves, "learning_rate", "target_update_interval", "double")


SIGNS: tuple[Callable[[Curves], str | None], ...] = (
    nothing_happened, exploded, constant, stuck, unstable,
)  # fmt: skip
CURES = {
    "ent_coef": "raise `ent_coef`", "eps_end": "raise `eps_end`",
    "exploration_fraction": "raise `exploration_fraction`",
    "learning_rate": "lower `learning_rate`", "target_kl": "lower `target_kl`",
    "target_update_interval": "raise `target_update_interval`",
}  # fmt: skip
NORMALIZATION = ("normalize_reward", "normalize_obs")
SWITCHES = ("anneal_lr", "double", *NORMALIZATION)  # cures that are on or off


def _cure(curves: Curves, *names: str, other: str = "") -> str:
    """Returns the end of a sentence: the first two cures that the agent has an option for.

    Args:
      curves: the run.
      names: options that may help, and normalization after them.
      other: a cure that is not an option; it takes the second place.
    """
    config = curves.config
    off = [name for name in (*names, *NORMALIZATION) if config.get(name) is False]
    cures = [f"set {name}=True" for name in off if name in SWITCHES]
    cures += [CURES[name] for name in names if name in CURES and name in config]
    cures = [*cures[:1], other] if other else cures[:2]
    return f": {' or '.join(cures)}." if cures else "."
