"""Actions as a person types them: the name of a choice, or numbers side by side."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from selfplay.recording import action_name

MOST_NUMBERS = 16
"""Of an action that somebody is willing to type."""


def can_be_typed(space: spaces.Space) -> bool:
    """Whether actions of the space are a choice, or a few numbers."""
    if isinstance(space, spaces.Discrete):
        return True
    plain = isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box)
    return plain and 0 < int(np.prod(space.shape or ())) <= MOST_NUMBERS


def offer(space: spaces.Space, legal: np.ndarray | None, names: list[str] | None) -> str:
    """What may be typed; legal [n] as in a group's mask."""
    if isinstance(space, spaces.Discrete):
        return " ".join(_named(space, legal, names))
    if isinstance(space, spaces.Box):
        ranges = [_range(*bounds) for bounds in _bounds(space)]
    else:
        ranges = [" or ".join(map(str, choices)) for choices in _choices(space, legal)]
    many = len(ranges) > 1
    if not many:
        return ranges[0]
    same = len(set(ranges)) == 1
    return f"{len(ranges)} numbers: {f'each {ranges[0]}' if same else ', '.join(ranges)}"


def read(space: spaces.Space, word: str, legal: np.ndarray | None, names: list[str] | None) -> np.ndarray:
    """The action [...] that the word means; ValueError that says why, if it means none that is legal."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(_chosen(_named(space, legal, names), word), space.dtype)
    words = word.replace(",", " ").split()
    shape = tuple(space.shape or ())
    number = int(np.prod(shape))
    if len(words) != number:
        raise ValueError(f"Type {number} number{'s' if number > 1 else ''}, not {len(words)}.")
    numbers = _box(space, words) if isinstance(space, spaces.Box) else _parts(space, words, legal)
    return np.asarray(numbers, space.dtype).reshape(shape)


def _named(space: spaces.Discrete, legal: np.ndarray | None, names: list[str] | None) -> dict[str, int]:
    """Legal actions by name."""
    allowed = range(int(space.n)) if legal is None else np.flatnonzero(legal).tolist()
    start = int(space.start)
    return {action_name(names, space, k + start): k + start for k in allowed}


def _chosen(actions: dict[str, int], word: str) -> int:
    if word in actions:
        return actions[word]
    folded = [action for name, action in actions.items() if name.lower() == word.lower()]
    if len(folded) == 1:
        return folded[0]
    raise ValueError(f"{word!r} is not a legal move." if word else "Type one of the moves in brackets.")


def _choices(space: spaces.Space, legal: np.ndarray | None) -> list[list[int]]:
    """Legal values of each part; their masks lie side by side."""
    if isinstance(space, spaces.MultiBinary):
        sizes, start = np.full(int(np.prod(space.shape)), 2), np.zeros(int(np.prod(space.shape)), int)
    else:
        assert isinstance(space, spaces.MultiDiscrete)
        sizes, start = space.nvec.ravel(), space.start.ravel()
    masks = np.ones(sizes.sum(), bool) if legal is None else legal
    parts = np.split(masks, np.cumsum(sizes)[:-1])
    return [(np.flatnonzero(part) + first).tolist() for part, first in zip(parts, start, strict=True)]


def _parts(space: spaces.Space, words: list[str], legal: np.ndarray | None) -> list[int]:
    numbers = []
    for place, (word, choices) in enumerate(zip(words, _choices(space, legal), strict=True), start=1):
        if word not in map(str, choices):
            raise ValueError(f"Number {place} is {word}; it must be {' or '.join(map(str, choices))}.")
        numbers.append(int(word))
    return numbers


def _bounds(space: spaces.Box) -> list[tuple[float, float]]:
    return list(zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True))


def _range(low: float, high: float) -> str:
    if np.isfinite(low) and np.isfinite(high):
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if np.isfinite(low) else f"at most {high:g}" if np.isfinite(high) else "any"


def _box(space: spaces.Box, words: list[str]) -> list[float]:
    whole = np.issubdtype(space.dtype, np.integer)
    numbers: list[float] = []
    for word, (low, high) in zip(words, _bounds(space), strict=True):
        try:
            number = int(word) if whole else float(word)
        except ValueError:
            raise ValueError(f"{word!r} is not a {'whole ' if whole else ''}number.") from None
        if not low <= number <= high or not np.isfinite(number):
            raise ValueError(f"{word} is not {_range(low, high)}.")
        numbers.append(number)
    return numbers
