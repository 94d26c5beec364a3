"""The shapes, dtypes and names of a game, which never change: is it laid out as the vector protocol says?

B games, A seats of the game, S seats of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike

from envs.leaves import leaf_spaces
from envs.rows import check_space, num_choices
from envs.vector import GameError, Group, VectorEnv

MEMBERS = sorted(
    {*VectorEnv.__annotations__, *(name for name in vars(VectorEnv) if not name.startswith("_"))}
)
"""What every game has."""


def check_layout(env: VectorEnv, num_games: int) -> None:
    """Raises GameError of one line, naming the game, at the first breach in a game just made."""
    missing = [name for name in MEMBERS if not hasattr(env, name)]
    _require(not missing, env, f"{type(env).__name__} is not a VectorEnv; it lacks {', '.join(missing)}")
    _require(env.num_games == num_games, env, f"num_games is {env.num_games}, not {num_games} as asked")
    _check_seats(env)
    shape = (num_games, len(env.teams))
    for name in ("to_act", "terminated", "truncated"):
        _check_array(env, name, getattr(env, name), shape, np.bool_)
    _check_array(env, "reward", env.reward, shape, np.float32)
    _check_array(env, "over", env.over, (num_games,), np.bool_)
    _require(env.over.all(), env, "a match is in play before the first restart")
    _require(not env.to_act.any(), env, "a seat is to act before the first restart")
    names = [group.name for group in env.groups]
    _require(len(set(names)) == len(names), env, f"groups {names} are not named apart")
    for group in env.groups:
        _check_group(env, group)
    _check_optional(env)


def _require(holds: bool | np.bool_, env: VectorEnv, message: str) -> None:
    if not holds:
        raise GameError(f"{getattr(env, 'id', type(env).__name__)}: {message}")


def _check_seats(env: VectorEnv) -> None:
    """Teams, groups and names of the seats."""
    teams, num_seats = env.teams, len(env.teams)
    _require(num_seats > 0, env, "teams is empty; a game needs one seat at least")
    _require(sorted(set(teams)) == list(range(len(set(teams)))), env, f"teams {teams} are not 0, 1, ..")
    seats = [seat for group in env.groups for seat in group.seats]
    _require(
        sorted(seats) == list(range(num_seats)), env, f"groups seat {seats}, not each of {num_seats} once"
    )
    for group in env.groups:
        _require(list(group.seats) == sorted(group.seats), env, f"seats of {group.name} do not ascend")
    names = getattr(env, "seat_names", None)
    if names is not None:
        sound = len(set(names)) == num_seats and all(isinstance(name, str) and name for name in names)
        _require(sound, env, f"seat_names {names} are not {num_seats} names, all different")


def _check_group(env: VectorEnv, group: Group) -> None:
    """Obs and mask leaves fit the group's spaces, and so does what is said of its actions."""
    rows = (env.num_games, len(group.seats))
    action_leaves = leaf_spaces(group.action_space)
    for space in (group.observation_space, group.action_space):
        try:
            check_space(space)
        except ValueError as error:
            raise GameError(f"{env.id}, group {group.name}: {error}") from error
    _check_tree(env, "obs", group.obs, group.observation_space, rows)
    for path, mask in group.mask.items():
        _require(path in action_leaves, env, f"mask {path!r} is of no action leaf ({[*action_leaves]})")
        choices = sum(num_choices(action_leaves[path]))
        _require(choices > 0, env, f"mask {path!r} is of a leaf that is not discrete")
        _check_array(env, f"mask {path!r}", mask, (*rows, choices), np.bool_)
    _check_uses(env, group, action_leaves)
    _check_points(env, group, action_leaves)


def _check_uses(env: VectorEnv, group: Group, action_leaves: Mapping[str, spaces.Space]) -> None:
    """Each leaf that is not always used depends on choices of another leaf, which is Discrete."""
    for path, primaries in group.uses.items():
        _require(path in action_leaves, env, f"uses {path!r} is of no action leaf ({[*action_leaves]})")
        for primary, choices in primaries.items():
            leaf = action_leaves.get(primary)
            _require(
                isinstance(leaf, spaces.Discrete) and primary != path,
                env,
                f"uses {path!r} depends on {primary!r}, which is not another leaf that is Discrete",
            )
            assert isinstance(leaf, spaces.Discrete)
            outside = [choice for choice in choices if not leaf.contains(np.int64(choice))]
            _require(not outside, env, f"uses {path!r} names {outside}, which are not in {leaf}")


def _check_points(env: VectorEnv, group: Group, action_leaves: Mapping[str, spaces.Space]) -> None:
    """Each leaf that points chooses one of as many entities as its set in the observation holds."""
    obs_leaves = leaf_spaces(group.observation_space)
    for path, target in group.points.items():
        leaf, entities = action_leaves.get(path), obs_leaves.get(target)
        present = obs_leaves.get(f"{target}_mask")
        fits = (
            isinstance(leaf, spaces.Discrete)
            and isinstance(entities, spaces.Box)
            and isinstance(present, spaces.MultiBinary)
            and len(entities.shape) == 2
            and present.shape == entities.shape[:1] == (int(leaf.n),)
        )
        _require(fits, env, f"points {path!r} ({leaf}) does not fit obs {target!r} ({entities}, {present})")


def _check_optional(env: VectorEnv) -> None:
    """Members that a game need not have."""
    dropped = getattr(env, "dropped", None)
    if dropped is not None:
        _check_array(env, "dropped", dropped, (env.num_games,), np.bool_)
        _require(isinstance(getattr(env, "cause", None), str), env, "has dropped, but no cause that is text")
    _require(
        hasattr(env, "privileged") == hasattr(env, "privileged_space"),
        env,
        "has one of privileged and privileged_space without the other",
    )
    if hasattr(env, "privileged"):
        _check_tree(env, "privileged", env.privileged, env.privileged_space, (env.num_games,))  # type: ignore[attr-defined]


def _check_tree(
    env: VectorEnv, name: str, tree: Mapping[str, np.ndarray], space: spaces.Space, rows: tuple[int, ...]
) -> None:
    """Each leaf of the space is there as an array of these rows, in the leaf's shape and dtype."""
    leaves = leaf_spaces(space)
    _require(tree.keys() == leaves.keys(), env, f"{name} leaves {[*tree]}, not {[*leaves]}")
    for path, leaf in leaves.items():
        _require(leaf.shape is not None, env, f"{name} {path!r} is {leaf}, which no array holds")
        assert leaf.shape is not None
        assert leaf.dtype is not None
        _check_array(env, f"{name} {path!r}", tree[path], (*rows, *leaf.shape), leaf.dtype)


def _check_array(env: VectorEnv, name: str, array: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    _require(isinstance(array, np.ndarray), env, f"{name} is a {type(array).__name__}, not an array")
    _require(array.shape == shape, env, f"{name} is {array.shape}, not {shape}")
    _require(array.dtype == dtype, env, f"{name} is {array.dtype}, not {np.dtype(dtype)}")
