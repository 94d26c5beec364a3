"""What the policies think in every information set that has been met.

An information set is all that a seat has seen and done since its match began. Thoughts of the same one are
the same: priors, value, and the recurrent state that the next decision begins with. M sets, K looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from envs.vector import Tree
from policies.categorical_head import CategoricalHead
from policies.spaces import PRIVILEGED
from selfplay.players import PolicyPlayer
from selfplay.transfer import to_device, to_host

NOTHING = 0
"""The information set of a seat that has not decided yet."""

SHARED = -1
"""The tag of thoughts that are not one search's own."""

START = 1024


class _Unthought(NamedTuple):
    """Information sets [K] that a policy has yet to think about."""

    player: PolicyPlayer
    ids: np.ndarray  # [K]
    before: np.ndarray  # [K] set of the seat's last decision
    obs: Tree  # leaf -> [K, ...]
    mask: Tree  # leaf -> [K, n]


class Minds:
    """Thoughts by number. The first is of a seat that has not decided yet."""

    def __init__(self, players: Sequence[PolicyPlayer], num_choices: int) -> None:
        self.size = 1
        self.prior = np.zeros((START, num_choices))  # [M, n] probability of each choice
        self.legal = np.zeros((START, num_choices), bool)  # [M, n]
        self.value = np.zeros(START)  # [M] of what the seat gets from this decision on
        self.visits = np.zeros((START, num_choices))  # [M, n]
        self.total = np.zeros((START, num_choices))  # [M, n] sum of what followed
        self.states = {
            shape: np.zeros((START, *shape), np.float32)  # [M, L, S, H] after the decision
            for shape in {player.state_shape for player in players}
        }
        self._known: dict[tuple[int, int, int, int, bytes], int] = {}
        self._own: list[tuple[int, int, int, int, bytes]] = []  # keys of searches
        self._waiting: list[_Unthought] = []

    def look(
        self,
        player: PolicyPlayer,
        seat: np.ndarray,
        before: np.ndarray,
        played: np.ndarray,
        obs: Tree,
        mask: Tree,
        tag: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sets [K] of seats that were in sets `before` [K], played there and now see this; which are new.

        Of new ones nothing is known before `think`. obs leaves [K, ...], mask leaves [K, n], played [K]
        choices, tag [K]: whose thoughts they are.
        """
        keys = list(zip(tag.tolist(), seat.tolist(), before.tolist(), played.tolist(), seen(obs, mask)))
        ids = np.empty(len(keys), np.int64)
        fresh: list[int] = []
        for k, key in enumerate(keys):
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self.size + len(fresh)
                fresh.append(k)
                if key[0] != SHARED:
                    self._own.append(key)
            ids[k] = found
        new = np.zeros(len(keys), bool)
        new[fresh] = True
        self.size += len(fresh)
        if fresh:
            views = (_rows(obs, fresh), _rows(mask, fresh))
            self._waiting.append(_Unthought(player, ids[fresh], before[fresh], *views))
        return ids, new

    def think(self) -> None:
        """Think about all sets that were new: one forward for each policy."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._make_room(self.size)
        for player in {id(each.player): each.player for each in waiting}.values():
            own = [each for each in waiting if each.player is player]
            self._forward(
                player,
                np.concatenate([each.ids for each in own]),
                np.concatenate([each.before for each in own]),
                _joined([each.obs for each in own]),
                _joined([each.mask for each in own]),
            )

    @torch.inference_mode()
    def _forward(
        self, player: PolicyPlayer, ids: np.ndarray, before: np.ndarray, obs: Tree, mask: Tree
    ) -> None:
        """Note the thoughts of sets ids [K]: obs leaves [K, ...], mask leaves [K, n], before [K]."""
        stored = self.states[player.state_shape]
        state = np.ascontiguousarray(np.moveaxis(stored[before], 0, 2))
        views, legal = (
            {path: to_device(np.ascontiguousarray(leaf), player.device) for path, leaf in tree.items()}
            for tree in (obs, mask)
        )
        device = player.device
        out = player.policy.step(views, to_device(before == NOTHING, device), to_device(state, device))
        head = player.policy.head
        assert isinstance(head, CategoricalHead)
        prior, value, after = to_host([head.log_probs(out.head, legal).exp(), out.value, out.state])
        num_choices = prior.shape[1]
        for array in (self.prior, self.legal, self.visits, self.total):
            array[ids] = 0
        self.prior[ids, :num_choices] = prior
        self.legal[ids, :num_choices] = mask.get("", True)
        self.value[ids] = value
        stored[ids] = np.moveaxis(after, 2, 0)

    def _make_room(self, size: int) -> None:
        if size <= len(self.value):
            return
        for name in ("prior", "legal", "value", "visits", "total"):
            setattr(self, name, _grown(getattr(self, name), size))
        self.states = {shape: _grown(state, size) for shape, state in self.states.items()}

    def end_search(self, size: int) -> None:
        """Forget the searches' own thoughts, which are those from `size` on."""
        for key in self._own:
            del self._known[key]
        self._own = []
        self.size = size

    def keep(self, ids: np.ndarray) -> np.ndarray:
        """Forget all but these [J], ascending, which become 1 to J; gives the new numbers [M] of the old."""
        renumbered = np.zeros(self.size, np.int64)
        renumbered[ids] = np.arange(1, len(ids) + 1)
        rows = slice(1, len(ids) + 1)
        for array in (self.prior, self.legal, self.value, self.visits, self.total, *self.states.values()):
            array[rows] = array[ids]
        self.size = len(ids) + 1
        self._known.clear()
        return renumbered


def seen(obs: Tree, mask: Tree) -> list[bytes]:
    """What a seat sees as bytes, for each of K rows; what only a critic may see is no part of it."""
    leaves = [leaf for path, leaf in obs.items() if not path.startswith(PRIVILEGED)] + list(mask.values())
    return rows_as_bytes(leaves)


def rows_as_bytes(leaves: Sequence[np.ndarray]) -> list[bytes]:
    """Arrays [K, ...] side by side, row by row."""
    size = len(leaves[0])
    whole = np.concatenate(
        [np.ascontiguousarray(leaf).reshape(size, -1).view(np.uint8) for leaf in leaves], axis=1
    )
    width, data = whole.shape[1], whole.tobytes()
    return [data[k * width : (k + 1) * width] for k in range(size)]


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """The array with room for `size` rows or twice what it has."""
    larger = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _rows(tree: Tree, index: list[int]) -> Tree:
    return {path: leaf[index] for path, leaf in tree.items()}


def _joined(trees: Sequence[Tree]) -> Tree:
    return {path: np.concatenate([tree[path] for tree in trees]) for path in trees[0]}
