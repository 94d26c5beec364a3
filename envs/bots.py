"""Players that need to know nothing of the game but its spaces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from envs.leaves import leaf_spaces
from envs.vector import Bot, Tree


def by_row(bot: Bot) -> Bot:
    """Says of a bot that it treats each row alike, in numbers drawn [R, ...] for every row by its generator.

    It draws by `random(size)`, `uniform(low, high, size)` or `integers(num, size=size)` alone. Such a bot is
    asked for many matches at once even where each match draws numbers of its own.
    """
    bot.by_row = True  # type: ignore[attr-defined]
    return bot


def random_bot(action_space: spaces.Space, points: Mapping[str, str] | None = None) -> Bot:
    """The bot that draws each leaf uniformly from its legal values.

    A row's draw depends on nothing but that row's mask and its place among the rows. A Box leaf is
    drawn between its bounds, exponentially away from its only one, or from a standard normal.
    points: action leaf -> obs path of the entity set it points to; without a mask only those present
    are legal.
    """
    leaves = leaf_spaces(action_space)
    presence = {leaf: f"{path}_mask" for leaf, path in (points or {}).items()}

    def bot(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
        """obs leaves [R, ...], mask leaves [R, n] -> action leaves [R, ...]."""
        num_rows = len(next(iter(obs.values())))
        present = {leaf: obs[path].astype(np.bool_) for leaf, path in presence.items()}
        legal = present | mask
        return {path: _draw(leaf, legal.get(path), num_rows, rng) for path, leaf in leaves.items()}

    return by_row(bot) if all(isinstance(leaf, _CHOICES) for leaf in leaves.values()) else bot


_CHOICES = (spaces.Discrete, spaces.MultiDiscrete)


def _draw(
    space: spaces.Space, mask: np.ndarray | None, num_rows: int, rng: np.random.Generator
) -> np.ndarray:
    """One leaf's actions [R, ...], uniform over mask [R, n] where the leaf is discrete and has one."""
    if isinstance(space, spaces.Discrete):
        legal = np.ones((num_rows, int(space.n)), np.bool_) if mask is None else mask
        return (space.start + _draw_index(legal, rng)).astype(space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        num_choices = space.nvec.ravel()  # a mask is the choices' masks side by side
        legal = np.ones((num_rows, num_choices.sum()), np.bool_) if mask is None else mask
        return (space.start + _draw_parts(legal, num_choices, space.shape, rng)).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        if mask is not None:  # (0 legal, 1 legal) of each part
            twos = np.full(int(np.prod(space.shape)), 2)
            return _draw_parts(mask, twos, space.shape, rng).astype(space.dtype)
        return rng.integers(0, 2, (num_rows, *space.shape)).astype(space.dtype)
    if isinstance(space, spaces.Box):
        return _draw_box(space, num_rows, rng)
    raise ValueError(f"cannot draw random actions from {space}")


def _draw_parts(
    legal: np.ndarray, num_choices: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """[R, *shape] int64, each of the k parts by its own of the masks side by side in legal [R, sum]."""
    parts = np.split(legal, np.cumsum(num_choices)[:-1], axis=1)
    index = np.stack([_draw_index(part, rng) for part in parts], axis=1)
    return index.reshape(len(legal), *shape)


def _draw_index(legal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[R] int64, uniform over the true entries of each row of legal [R, n]; 0 for a row without any."""
    rank = (rng.random(len(legal)) * legal.sum(axis=1)).astype(np.int64)
    return (legal.cumsum(axis=1) > rank[:, None]).argmax(axis=1)


def _draw_box(space: spaces.Box, num_rows: int, rng: np.random.Generator) -> np.ndarray:
    """[R, ...]: uniform between two bounds (integers: both included), else see `random_bot`."""
    shape = (num_rows, *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(space.low, space.high, shape, endpoint=True, dtype=space.low.dtype.type)
    below, above = space.bounded_below, space.bounded_above
    low, high = np.where(below, space.low, 0.0), np.where(above, space.high, 0.0)
    draw = np.where(below & above, low + rng.random(shape) * (high - low), rng.standard_normal(shape))
    draw = np.where(below & ~above, low + rng.exponential(size=shape), draw)
    draw = np.where(above & ~below, high - rng.exponential(size=shape), draw)
    return draw.astype(space.dtype)
