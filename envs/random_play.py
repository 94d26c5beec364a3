"""Random legal play of a whole vector env, and copies of what it shows, to compare plays with.

B games, S seats of a group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from envs.bots import random_bot
from envs.vector import Tree, VectorEnv

View = dict[str, np.ndarray]
"""What an env shows, copied, by name; [B, ...] each, rows of obs, mask and privileged not valid zeroed."""


def trace(env: VectorEnv, num_steps: int, seed: int, order: np.ndarray) -> Iterator[View]:
    """Restarts every match, then plays on as `play_on`; yields the same."""
    restart(env, order, np.random.default_rng(seed))
    yield from play_on(env, num_steps, seed + 1, order)


def play_on(
    env: VectorEnv, num_steps: int, seed: int, order: np.ndarray, *, reopen: bool = True
) -> Iterator[View]:
    """Plays, with new matches for those over (reopen); yields the view at first and after each step.

    Entry k of a view, [B, ...], is the match in slot order[k] of the env, and what happens to it
    depends on k and not on the slot.
    """
    rng = np.random.default_rng(seed)
    yield take(view(env), order)
    for _ in range(num_steps):
        env.step(random_actions(env, rng, order))
        yield take(view(env), order)
        seeds = rng.integers(2**64, size=env.num_games, dtype=np.uint64)
        over = env.over[order] & reopen
        env.restart(order[over], seeds[over])


def restart(env: VectorEnv, games: np.ndarray, rng: np.random.Generator) -> None:
    """Open matches in slots games [K] from seeds drawn from rng."""
    env.restart(games, rng.integers(2**64, size=len(games), dtype=np.uint64))


def random_actions(
    env: VectorEnv, rng: np.random.Generator, order: np.ndarray | None = None
) -> tuple[Tree, ...]:
    """Each group's leaves [B, S, ...]: legal where the seat is to act, nonsense (-1, nan) elsewhere."""
    order = np.arange(env.num_games) if order is None else order
    actions = []
    for group in env.groups:
        acts = env.to_act[:, group.seats]
        obs = {path: _flat(leaf[order]) for path, leaf in group.obs.items()}
        mask = {path: _flat(leaf[order]) for path, leaf in group.mask.items()}
        drawn = random_bot(group.action_space, group.points)(obs, mask, rng)
        leaves = {}
        for path, rows in drawn.items():
            legal = np.empty((*acts.shape, *rows.shape[1:]), rows.dtype)
            legal[order] = rows.reshape(legal.shape)
            leaf = np.full_like(legal, _nonsense(rows.dtype))
            leaf[acts] = legal[acts]
            leaves[path] = leaf
        actions.append(leaves)
    return tuple(actions)


def _nonsense(dtype: np.dtype) -> float:
    """A value that is no action, so that a game which reads it shows that."""
    if np.issubdtype(dtype, np.floating):
        return np.nan
    return -1 if np.issubdtype(dtype, np.signedinteger) else np.iinfo(dtype).max


def _flat(leaf: np.ndarray) -> np.ndarray:
    """[B, S, ...] -> [B * S, ...]"""
    return leaf.reshape(-1, *leaf.shape[2:])


def arrays(env: VectorEnv) -> dict[str, np.ndarray]:
    """Every array that an env shows, itself, by name."""
    shown = {name: getattr(env, name) for name in ("to_act", "reward", "terminated", "truncated", "over")}
    for group in env.groups:
        shown |= {f"{group.name} obs {path!r}": leaf for path, leaf in group.obs.items()}
        shown |= {f"{group.name} mask {path!r}": leaf for path, leaf in group.mask.items()}
    shown |= {f"privileged {path!r}": leaf for path, leaf in getattr(env, "privileged", {}).items()}
    return shown


def view(env: VectorEnv) -> View:
    """Copies of what the env shows."""
    copies = {name: array.copy() for name, array in arrays(env).items()}
    for group in env.groups:
        acts = env.to_act[:, group.seats]
        valid = {"obs": acts | env.truncated[:, group.seats], "mask": acts}
        for kind, leaves in (("obs", group.obs), ("mask", group.mask)):
            for path in leaves:
                copies[f"{group.name} {kind} {path!r}"][~valid[kind]] = 0
    seen = (env.to_act | env.truncated).any(axis=1)
    for path in getattr(env, "privileged", {}):
        copies[f"privileged {path!r}"][~seen] = 0
    return copies


def take(view: View, games: np.ndarray) -> View:
    """The view of some matches: indices or flags."""
    return {name: array[games] for name, array in view.items()}


def is_float(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.floating)
