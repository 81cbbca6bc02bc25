"""Lengths of the episodes of a trial, and time limits that are reported as terminations."""

import numpy as np

from rljax.envs.trials import Trial
from rljax.types import EnvSpec

FEW = 4  # episodes of exactly the same length from which a time limit is suspected


def episode_lengths(trial: Trial) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the lengths of terminated and truncated episodes, and the longest unfinished one."""
    done = trial.terminated | trial.truncated
    terminated, truncated, unfinished = [], [], 0
    for copy in range(done.shape[1]):
        ends = np.flatnonzero(done[:, copy])
        lengths = np.diff(ends, prepend=-1)
        is_truncated = trial.truncated[ends, copy]
        terminated += lengths[~is_truncated].tolist()
        truncated += lengths[is_truncated].tolist()
        unfinished = max(unfinished, len(done) - 1 - (int(ends[-1]) if len(ends) else -1))
    return np.array(terminated, int), np.array(truncated, int), unfinished


def terminates_at_limit(spec: EnvSpec, trial: Trial) -> bool:
    """Whether episodes terminate after as many steps as the time limit, and none is truncated."""
    terminated, truncated, _ = episode_lengths(trial)
    limit = spec.max_episode_steps
    return bool(limit and (terminated == limit).sum() >= FEW and not (truncated == limit).any())


def length_faults(
    spec: EnvSpec, trial: Trial, has_own_end: bool = False
) -> tuple[list[str], list[str]]:
    """Returns faults and warnings about the ends of episodes.

    Args:
      spec: description of the environment.
      trial: random steps.
      has_own_end: with a later time limit, episodes terminate after as many steps as now.
    """
    terminated, truncated, unfinished = episode_lengths(trial)
    limit, faults, warnings = spec.max_episode_steps, [], []
    longest = max([unfinished, *terminated, *truncated])
    if limit and longest > limit:
        faults.append(
            f"An episode has {longest} steps or more, but `max_episode_steps` is {limit}; "
            "truncate it there, or correct the spec."
        )
    if terminates_at_limit(spec, trial) and not has_own_end:
        at_limit = int((terminated == limit).sum())
        faults.append(
            f"{at_limit} episodes are terminated after exactly {limit} steps, the time limit; "
            "return `truncated` there, so that agents bootstrap from the last observation. If the "
            "task itself ends there, set `max_episode_steps` to 0 in the spec."
        )
    if limit and (truncated == limit).any() and (truncated == 1).sum() > (truncated > 1).sum():
        faults.append(
            "After the time limit every step is truncated; set the step counter to 0 where an "
            "episode starts."
        )
    elif len(truncated) and (truncated != limit).any():
        low, high = truncated.min(), truncated.max()
        lengths = f"{low}" if low == high else f"{low} to {high}"
        warnings.append(
            f"Episodes are truncated after {lengths} steps, but `max_episode_steps` is {limit}; "
            "set it to the time limit."
        )
    suspect = _suspected_limit(terminated[terminated != limit])
    if suspect:
        count = int((terminated == suspect).sum())
        warnings.append(
            f"{count} of {len(terminated)} terminated episodes have exactly {suspect} steps, and "
            "none is longer. If that is a time limit, return `truncated` there, so that agents "
            "bootstrap; it is right if the task has a fixed length."
        )
    if not len(terminated) + len(truncated) and not limit:
        warnings.append(
            f"No episode ends within {len(trial.reward):,} random steps, and there is no time "
            "limit; set `max_episode_steps`."
        )
    return faults, warnings


def _suspected_limit(lengths: np.ndarray) -> int:
    """Returns the length that many of the longest episodes share, 0 if there is none."""
    if not len(lengths) or (longest := int(lengths.max())) == 1:
        return 0
    at_most = (lengths == longest).sum()
    nearly = ((lengths < longest) & (lengths >= longest - max(1, longest // 10))).sum()
    return longest if at_most >= FEW and at_most > 4 * nearly else 0


def length_facts(spec: EnvSpec, trial: Trial) -> list[str]:
    """Returns how many episodes ended, how, and after how many steps."""
    terminated, truncated, unfinished = episode_lengths(trial)
    lengths = np.concatenate([terminated, truncated])
    steps = f"{len(trial.reward):,} random steps of {trial.reward.shape[1]} copies"
    if not len(lengths):
        return [f"No episode ended in {steps}."]
    mean = f"{lengths.mean():.1f} steps on average, {lengths.min()} to {lengths.max()}"
    facts = [
        f"{len(lengths):,} episodes ended in {steps}: {len(terminated):,} terminated, "
        f"{len(truncated):,} truncated, {mean}."
    ]
    limit = spec.max_episode_steps
    if limit and max(lengths.max(), unfinished) < limit:
        facts.append(f"No episode reached the time limit of {limit:,} steps.")
    return facts
