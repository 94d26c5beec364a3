"""Coefficients that change in the course of a run, as functions of its progress."""


def linear(first: float, final: float, progress: float) -> float:
    """first + (final - first) * progress, with progress held to [0, 1]; both ends are exact.

    progress is done / planned of whatever the schedule counts (agent steps); past the plan it stays final.
    """
    if progress >= 1:
        return final
    return first + (final - first) * max(progress, 0.0)
