"""What players may know in a game, as arrays, and exact values in games where all seats move at once.

I information states, n actions, A seats; of one tick N histories and the M joint actions that follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Discrete

from envs.vector import Tree, VectorEnv
from selfplay.errors import UserError

MAX_STATES = 1_000_000

NONE = -1  # the parent of a player's first decision, the action before it, and what follows an ending


class NotExact(UserError):
    """Why a number cannot be computed exactly, in one line."""


@dataclass(frozen=True, slots=True)
class InformationStates:
    """What each player may know when it must act. A parent comes before its children."""

    name: list[str]  # [I] OpenSpiel's string; of other games its number
    player: np.ndarray  # [I] int64, who must act
    parent: np.ndarray  # [I] int64, index of that player's decision before; NONE at its first
    action: np.ndarray  # [I] int64, what it did there; NONE at its first
    depth: np.ndarray  # [I] int64, number of its decisions before
    obs: np.ndarray  # [I, D] float32, what it sees now
    legal: np.ndarray  # [I, n] bool
    reward: np.ndarray  # [I] float32, what it was paid since the decision before

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class Tick:
    """All that may happen in one step of a game."""

    state: np.ndarray  # [N, A] int64, what each seat knows: index among the information states
    history: np.ndarray  # [M] int64, which of the N a joint action follows
    action: np.ndarray  # [M, A] int64
    reward: np.ndarray  # [M, A] float64
    after: np.ndarray  # [M] int64, the history of the next tick that it leads to; NONE where the match ends


@dataclass(frozen=True, slots=True)
class _Known:
    """The information states of one tick; indices count from the first of all. K of them."""

    columns: tuple[np.ndarray, ...]  # player, parent, action, reward [K], obs [K, D], legal [K, n]
    state: np.ndarray  # [N, A] int64


def walk(make: Callable[[int], VectorEnv]) -> tuple[InformationStates, list[Tick]]:
    """Every history of a game without chance in which all seats choose from n actions in every tick.

    make: number of matches -> the game with as many slots, which gives its state as arrays [B, ...].
    A seat knows what it was shown and paid, and what it did.
    """
    env = make(1)
    env.restart(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    seats = env.to_act.shape[1]
    before = np.full((1, seats), NONE)  # [N, A] information state of each seat's last decision
    done, earned = before, np.zeros((1, seats), np.float32)  # what it did there, and was paid for it
    known: list[_Known] = []
    ticks: list[Tick] = []
    count = 0
    while len(before):
        _check_size(env)
        known.append(_known(env, before, done, earned, count))
        count += len(known[-1].columns[0])
        following, history, action = _step(make, env)
        reward, on = following.reward.astype(np.float64), np.flatnonzero(~following.over)
        after = np.full(len(history), NONE)
        after[on] = np.arange(len(on))
        ticks.append(Tick(known[-1].state, history, action, reward, after))
        before, done, earned = known[-1].state[history[on]], action[on], following.reward[on].copy()
        env = _only(make, following, on)
    return _table(known), ticks


def _known(
    env: VectorEnv, before: np.ndarray, done: np.ndarray, earned: np.ndarray, first: int
) -> _Known:  # fmt: skip
    """What the seats know in env's N matches; before, done, earned [N, A] as in `walk`."""
    if not env.to_act.all():
        raise NotExact(f"{env.id}: seats wait; its tree is walked only if all seats act in every step")
    (group,) = env.groups
    (obs,) = group.obs.values()
    matches, seats = before.shape
    legal = group.mask.get("", np.ones((matches, seats, _num_actions(env)), np.bool_))
    player = np.broadcast_to(np.arange(seats), before.shape)
    told = [column.ravel() for column in (player, before, done, earned)]
    columns = (*told, obs.reshape(matches * seats, -1), legal.reshape(matches * seats, -1))
    _, kept, index = np.unique(np.column_stack(columns), axis=0, return_index=True, return_inverse=True)
    return _Known(tuple(column[kept] for column in columns), first + index.reshape(before.shape))


def _num_actions(env: VectorEnv) -> int:
    (group,) = env.groups
    space = group.action_space
    if not isinstance(space, Discrete) or space.start != 0 or len(group.obs) != 1:
        raise NotExact(f"{env.id}: its tree is walked only for one observation array and actions 0..n-1")
    return int(space.n)


def _check_size(env: VectorEnv) -> None:
    """Before the histories that env's matches have come to are looked at, and gone on with."""
    matches, seats = env.to_act.shape
    if matches * _num_actions(env) ** seats > MAX_STATES:
        raise NotExact(f"{env.id} is too large for an exact computation: more than {MAX_STATES:,} histories")


def _step(make: Callable[[int], VectorEnv], env: VectorEnv) -> tuple[VectorEnv, np.ndarray, np.ndarray]:
    """The M matches after every joint action in env's N: history [M] of 0..N-1 and action [M, A]."""
    matches, seats = env.to_act.shape
    n = _num_actions(env)
    joint = np.stack(np.unravel_index(np.arange(n**seats), (n,) * seats), axis=1)  # [n^A, A]
    legal = env.groups[0].mask.get("", np.ones((matches, seats, n), np.bool_))
    allowed = legal[:, np.arange(seats), joint].all(axis=2)  # [N, n^A]
    history, which = np.nonzero(allowed)
    following, action = _only(make, env, history), joint[which]
    following.step(({"": action.astype(env.groups[0].action_space.dtype)},))
    return following, history, action


def _only(make: Callable[[int], VectorEnv], env: VectorEnv, rows: np.ndarray) -> VectorEnv:
    """A game whose matches are these [M] of env's, perhaps some of them several times."""
    some = make(max(len(rows), 1))
    state: Tree | None = env.state()
    assert state is not None
    if len(rows):
        some.set_state({name: array[rows] for name, array in state.items()})
    return some


def _table(known: Sequence[_Known]) -> InformationStates:
    player, parent, action, reward, obs, legal = map(np.concatenate, zip(*(each.columns for each in known)))
    depth = np.repeat(np.arange(len(known)), [len(each.columns[0]) for each in known])
    names = [str(number) for number in range(len(player))]
    return InformationStates(names, player, parent, action, depth, obs, legal, reward)


def nash_conv(ticks: Sequence[Tick], probability: np.ndarray) -> float:
    """What the seats would gain, each alone by its best response: probability [I, n] of their play.

        NashConv(pi) = sum_i [ max_b u_i(b, pi_-i) - u_i(pi) ]

    A history counts by the others' reach c_i, the product of their probabilities on the way to it. Backwards
    from the endings, an action a of an information state is worth

        Q_i(I, a) = sum over h in I, a_-i of c_i(h, a, a_-i) r_i(h, a, a_-i) + W_i(h, a, a_-i)

    where W_i is this sum for the histories that follow; a best response takes the greatest Q_i.
    Source: Johanson et al. 2011, "Accelerating best response calculation in large extensive games", IJCAI.
    """
    seats = ticks[0].state.shape[1]
    reaches = _others_reach(ticks, probability)
    return sum(
        _value(ticks, reaches, seat, best=None, size=probability.shape)
        - _value(ticks, reaches, seat, best=probability, size=probability.shape)
        for seat in range(seats)
    )


def _chosen(tick: Tick, probability: np.ndarray) -> np.ndarray:
    """[M, A] each seat's probability of its action."""
    return probability[tick.state[tick.history], tick.action]


def _others_reach(ticks: Sequence[Tick], probability: np.ndarray) -> list[np.ndarray]:
    """Of each tick [M, A]: the product of the other seats' probabilities on the way through an action."""
    reaches = []
    reach = np.ones((1, ticks[0].state.shape[1]))
    for tick in ticks:
        own = _chosen(tick, probability)
        others = [np.delete(own, seat, axis=1).prod(axis=1) for seat in range(own.shape[1])]
        reaches.append(reach[tick.history] * np.stack(others, axis=1))
        reach = reaches[-1][tick.after != NONE]
    return reaches


def _value(
    ticks: Sequence[Tick],
    reaches: Sequence[np.ndarray],
    seat: int,
    *,
    best: np.ndarray | None,
    size: tuple[int, int],
) -> float:
    """Expected return of a seat that plays `best` [I, n], or for None its best response."""
    worth: np.ndarray = np.zeros(0)  # [N] of the next tick's histories
    for tick, reach in zip(reversed(ticks), reversed(reaches)):
        state, action = tick.state[tick.history, seat], tick.action[:, seat]
        following = np.zeros(len(action))
        following[tick.after != NONE] = worth
        total = reach[:, seat] * tick.reward[:, seat] + following  # [M]
        if best is None:
            place = state * size[1] + action
            value = np.bincount(place, total, minlength=size[0] * size[1]).reshape(size)
            value[np.bincount(place, minlength=value.size).reshape(size) == 0] = -np.inf  # illegal
            share = (value.argmax(axis=1)[state] == action).astype(np.float64)
        else:
            share = best[state, action]
        worth = np.bincount(tick.history, share * total, minlength=len(tick.state))
    return float(worth[0])
