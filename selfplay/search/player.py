"""A policy that searches before it acts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.vector import Tree
from selfplay.draws import Draws, generators
from selfplay.players import Decision
from selfplay.search.belief import Belief, Beliefs
from selfplay.search.minds import NOTHING, seen
from selfplay.search.tree import Search
from selfplay.search.worlds import Simulator

MOST_THOUGHTS = 50_000
"""Information sets remembered before those that no belief needs are forgotten."""


class Searcher:
    """What the searching players of one side share, a seat each."""

    def __init__(
        self, simulator: Simulator, simulations: int, gamma: Sequence[float], *, greedy: bool = False
    ) -> None:
        """gamma [A]: discount of a decision, for each seat."""
        self.sim, self.simulations = simulator, simulations
        self.gamma, self.greedy = tuple(gamma), greedy
        self.players = [SearchPlayer(self, seat) for seat in range(simulator.num_seats)]
        self.decisions = 0
        self.unsearched = 0  # of those, left to the policy: no world agreed with what was seen

    def forget(self) -> None:
        """Keep the thoughts that somebody's belief goes on from."""
        minds = self.sim.minds
        if minds.size <= MOST_THOUGHTS:
            return
        worlds = [
            belief.worlds
            for player in self.players
            for belief in player.beliefs.values()
            if belief.worlds is not None
        ]
        used = np.unique(np.concatenate([np.zeros(0, np.int64), *(own["info"].ravel() for own in worlds)]))
        renumbered = minds.keep(used[used != NOTHING])
        for own in worlds:
            own["info"] = renumbered[own["info"]]


class SearchPlayer:
    """Plays one seat by its policy and a search. What it knows of a match is its own; the true state is not.

    Its recurrent state is the policy's and, as one layer more, the number of the belief that goes with it.
    It samples by how often each choice was tried, or takes the one tried most often (greedy).
    """

    def __init__(self, searcher: Searcher, seat: int) -> None:
        self.searcher, self.seat = searcher, seat
        self.policy = searcher.sim.players[seat]
        layers, vectors, width = self.policy.state_shape
        self.state_shape = (layers + 1, vectors, width)
        self.extras = self.policy.extras
        self.beliefs: dict[int, Belief] = {}
        self.following = Beliefs(searcher.sim, seat)
        self._last = 0

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        alone = self.policy.act(obs, mask, is_first, state[:-1], rng)
        numbers = self._numbered(state[-1, 0, :, 0].astype(np.int64), is_first)
        beliefs = [self.beliefs[number] for number in numbers]
        for belief, view in zip(beliefs, seen(obs, mask)):
            belief.seen.append(view)
        seeds = [int(own.integers(2**63)) for own in generators(rng, len(beliefs))]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        action = {path: leaf.copy() for path, leaf in alone.action.items()}
        start = int(getattr(self.policy.policy.head, "start", 0))
        for first in range(0, len(beliefs), self.searcher.sim.size):
            part = slice(first, first + self.searcher.sim.size)
            choice = self._search(beliefs[part], action[""][part] - start, rngs[part])
            action[""][part] = choice + start
        for belief, choice in zip(beliefs, (action[""] - start).tolist()):
            belief.played.append(choice)
        self.searcher.forget()
        after = np.zeros_like(state)
        after[:-1], after[-1, 0, :, 0] = alone.state, numbers
        return Decision(action, None, alone.value, after)

    def _numbered(self, old: np.ndarray, is_first: np.ndarray) -> list[int]:
        """The number of each row's belief, a new one where a match begins."""
        numbers = old.tolist()
        for k in np.flatnonzero(is_first).tolist():
            self.beliefs.pop(numbers[k], None)
            self._last += 1
            numbers[k] = self._last
            self.beliefs[self._last] = Belief()
        return numbers

    def _search(
        self, beliefs: Sequence[Belief], policys: np.ndarray, rngs: Sequence[np.random.Generator]
    ) -> np.ndarray:
        """Choices [R]; the policy's own [R] where there is nothing to search in."""
        searcher = self.searcher
        self.following.update(beliefs, rngs)
        rows = [k for k, belief in enumerate(beliefs) if belief.worlds is not None]
        searcher.decisions += len(beliefs)
        searcher.unsearched += len(beliefs) - len(rows)
        choice = policys.copy()
        if rows:
            roots = [worlds for k in rows if (worlds := beliefs[k].worlds) is not None]
            own = [rngs[k] for k in rows]
            search = Search(searcher.sim, self.seat, roots, searcher.simulations, searcher.gamma, own)
            visits, prior = search.run()
            uniform = np.array([rng.random() for rng in own])
            choice[rows] = picked(visits, prior, None if searcher.greedy else uniform)
        return choice


def picked(visits: np.ndarray, prior: np.ndarray, uniform: np.ndarray | None) -> np.ndarray:
    """visits [R, n] -> choice [R]: in proportion to them by uniform [R] in [0, 1), or the most (None).

    The likelier by prior [R, n] of those tried equally often.
    """
    if uniform is None:
        return (visits + prior / 2).argmax(axis=1)
    edges = np.cumsum(visits, axis=1)
    chosen: np.ndarray = (edges > uniform[:, None] * edges[:, -1:]).argmax(axis=1)
    return chosen
