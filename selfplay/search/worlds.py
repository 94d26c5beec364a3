"""Copies of matches, as many at once as the simulator has slots.

W worlds, C slots, A seats, K pairs of a slot and a seat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from gymnasium.spaces import Discrete

from envs.vector import Tree, VectorEnv
from policies.categorical_head import CategoricalHead
from policies.spaces import PREVIOUS_ACTION, PREVIOUS_REWARD, PRIVILEGED, dtype_of
from selfplay.errors import UserError
from selfplay.players import PolicyPlayer
from selfplay.search.minds import NOTHING, SHARED, Minds

Worlds = Tree
"""W matches in mid-play, every array [W, ...]: the game's state ("env:NAME") and of each seat, [W, A], the
information set of its last decision (info), what it played there (played), the value that it then expected
less what it was paid since (value), and what it was paid since (since). Where it matters, weight and row."""

_SEATS = ("info", "played", "value", "since")


def take(worlds: Worlds, index: np.ndarray | slice) -> Worlds:
    """These of the worlds."""
    return {name: leaf[index] for name, leaf in worlds.items()}


def join(parts: Sequence[Worlds]) -> Worlds:
    """All of them. Histories of games from elsewhere are as long as the longest."""
    return {name: _stacked([part[name] for part in parts]) for name in parts[0]}


def pieces(worlds: Worlds, size: int) -> Iterator[Worlds]:
    """The worlds in turn, at most so many at once."""
    for first in range(0, len(worlds["info"]), size):
        yield take(worlds, slice(first, first + size))


def _stacked(leaves: Sequence[np.ndarray]) -> np.ndarray:
    if len({leaf.shape[1:] for leaf in leaves}) == 1:
        return np.concatenate(leaves)
    whole = np.full((sum(map(len, leaves)), max(leaf.shape[1] for leaf in leaves)), _blank(leaves[0].dtype))
    first = 0
    for leaf in leaves:
        whole[first : first + len(leaf), : leaf.shape[1]] = leaf
        first += len(leaf)
    return whole


def _trimmed(leaf: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """A history [W, L] as long as its longest; those of bytes come with their length, and may stay longer."""
    if leaf.shape[1:] == blank.shape[1:] or not np.issubdtype(leaf.dtype, np.signedinteger):
        return leaf
    used = np.flatnonzero((leaf != _blank(leaf.dtype)).any(axis=0))
    return leaf[:, : int(used[-1]) + 1 if len(used) else 0]


def _blank(dtype: np.dtype) -> np.generic:
    """What histories hold beyond their end."""
    return dtype.type(-1 if np.issubdtype(dtype, np.signedinteger) else 0)


def check(env: VectorEnv, players: Sequence[PolicyPlayer]) -> None:
    """Raises UserError unless the game can be searched by these policies."""
    simple = all(isinstance(group.action_space, Discrete) for group in env.groups)
    if not simple or not all(isinstance(player.policy.head, CategoricalHead) for player in players):
        raise UserError(f"--search: an action of {env.id} is not one choice of n (Discrete); play it without")
    state = env.state()
    if state is None or any(leaf.shape[:1] != (env.num_games,) for leaf in state.values()):
        raise UserError(f"--search: {env.id} cannot copy the state of its matches; play it without")


class Simulator:
    """A game on which imagined matches are played, slot by slot, with the policies' minds beside it."""

    def __init__(self, env: VectorEnv, players: Sequence[PolicyPlayer]) -> None:
        """players [A]: the policy that imagines each seat; env holds no match yet."""
        check(env, players)
        self.env, self.players = env, tuple(players)
        self.size, self.num_seats = env.num_games, len(env.teams)
        spaces = [group.action_space for group in env.groups]
        self.minds = Minds(players, max(int(space.n) for space in spaces if isinstance(space, Discrete)))
        self.two_sided = env.zero_sum and self.num_seats == 2
        shape = (self.size, self.num_seats)
        self.info = np.full(shape, NOTHING, np.int64)
        self.played = np.full(shape, -1, np.int64)
        self.value = np.zeros(shape)
        self.since = np.zeros(shape, np.float32)
        self._chosen = np.full(shape, -1, np.int64)
        self._blank = env.state()
        self._group = np.empty(self.num_seats, np.int64)
        self._place = np.empty(self.num_seats, np.int64)
        for number, group in enumerate(env.groups):
            self._group[list(group.seats)] = number
            self._place[list(group.seats)] = np.arange(len(group.seats))
        # Seats that are looked at together: of one policy and one group.
        self._kind = np.array(
            [
                next(j for j in range(seat + 1) if self._alike(j, seat))
                for seat in range(self.num_seats)
            ]
        )  # fmt: skip

    def _alike(self, seat: int, other: int) -> bool:
        same_policy = self.players[seat] is self.players[other]
        return same_policy and bool(self._group[seat] == self._group[other])

    # Worlds in and out.

    def restart(self, seeds: np.ndarray) -> None:
        """New matches in the first slots, from seeds [W]."""
        slots = np.arange(len(seeds))
        self.env.restart(slots, seeds)
        self.info[slots], self.played[slots] = NOTHING, -1
        self.value[slots], self.since[slots] = 0, 0

    def load(self, worlds: Worlds) -> None:
        """These worlds in the first slots; the others are empty."""
        assert self._blank is not None
        size = len(worlds["info"])
        assert size <= self.size
        state = {}
        for name, blank in self._blank.items():
            leaf = _trimmed(worlds[f"env:{name}"], blank)
            if leaf.shape[1:] == blank.shape[1:]:
                state[name] = blank.copy()
            else:
                state[name] = np.full((self.size, *leaf.shape[1:]), _blank(leaf.dtype))
            state[name][:size] = leaf
        self.env.set_state(state)
        for name in _SEATS:
            getattr(self, name)[:size] = worlds[name]

    def save(self, slots: np.ndarray) -> Worlds:
        """The worlds in slots [W]."""
        state = self.env.state()
        assert state is not None
        own = {name: getattr(self, name)[slots] for name in _SEATS}
        return own | {f"env:{name}": leaf[slots] for name, leaf in state.items()}

    # Decisions.

    def look(
        self, slot: np.ndarray, seat: np.ndarray, tag: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The information sets [K] of seats [K] in slots [K] that are to act, and which are new.

        tag [K]: of the searches that they belong to.
        """
        ids, new = np.empty(len(slot), np.int64), np.zeros(len(slot), bool)
        tags = np.full(len(slot), SHARED) if tag is None else tag
        kinds = self._kind[seat]
        for kind in np.unique(kinds).tolist():
            at = np.flatnonzero(kinds == kind)
            obs, mask = self.views(slot[at], seat[at])
            pair = slot[at], seat[at]
            ids[at], new[at] = self.minds.look(
                self.players[kind], seat[at], self.info[pair], self.played[pair], obs, mask, tags[at]
            )
        return ids, new

    def views(self, slot: np.ndarray, seat: np.ndarray) -> tuple[Tree, Tree]:
        """What seats [K] of one kind see in slots [K]: leaves [K, ...] as their policy is given them."""
        player, group = self.players[seat[0]], self.env.groups[self._group[seat[0]]]
        place = self._place[seat]
        obs, mask = (
            {path: leaf[slot, place] for path, leaf in tree.items()} for tree in (group.obs, group.mask)
        )
        for path in player.extras:
            if path == PREVIOUS_ACTION:  # 0 for none, as `policies.spaces.previous_space` says
                obs[path] = (self.played[slot, seat] + 1).astype(dtype_of(group.action_space))
            elif path == PREVIOUS_REWARD:
                obs[path] = self.since[slot, seat, None]
            else:
                whole: Tree = getattr(self.env, "privileged", {})
                obs[path] = whole[path.removeprefix(PRIVILEGED).removeprefix("/")][slot]
        return obs, mask

    def note(self, slot: np.ndarray, seat: np.ndarray, ids: np.ndarray) -> None:
        """Seats [K] in slots [K] are in these information sets and decide."""
        self.info[slot, seat] = ids
        self.value[slot, seat], self.since[slot, seat] = self.minds.value[ids], 0

    def choose(self, slot: np.ndarray, seat: np.ndarray, choice: np.ndarray) -> None:
        """They play these choices in the next step."""
        self.played[slot, seat] = self._chosen[slot, seat] = choice

    def step(self) -> np.ndarray:
        """One step of all slots; gives the reward [C, A]. Where nothing was decided, any legal action."""
        actions = []
        for group in self.env.groups:
            space, seats = group.action_space, list(group.seats)
            assert isinstance(space, Discrete)
            legal = group.mask[""].argmax(axis=2) if group.mask else 0
            chosen = self._chosen[:, seats]
            action = np.where(chosen >= 0, chosen, legal) + int(space.start)
            actions.append({"": action.astype(dtype_of(space))})
        self.env.step(tuple(actions))
        self._chosen[:] = -1
        self.value -= self.env.reward
        self.since += self.env.reward
        return self.env.reward
