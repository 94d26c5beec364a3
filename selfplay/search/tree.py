"""The search: simulated matches from worlds that a seat believes in, guided by priors and values.

Each simulation draws a world and walks down it; every seat that is to act chooses in its own information
set, by what was found there so far (PUCT), hence without knowing more than it would. Where nobody who acts
has been before, the value heads tell what to expect, and all decisions on the way learn of it. In a game in
turns without hidden information this is AlphaZero's search; of several seats each looks after its own return
(max^n); with hidden information it is multiple-observer information-set search over determinisations. Of
seats that move at once only the one that is searched for tries and learns; the others draw from their policy,
for seats that all reacted to each other would move in step.

R rows: decisions that are searched for together, each in its own slot. A seats, K pairs of a row and a seat.
Sources: Silver et al. 2018 (AlphaZero), Science 362:1140; Schrittwieser et al. 2020 (MuZero),
arXiv:1911.08265, appendix B, for the bounds of Q; Cowling, Powley and Whitehouse 2012, "Information set Monte
Carlo tree search", IEEE TCIAIG 4(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from selfplay.search.minds import Minds
from selfplay.search.worlds import Simulator, Worlds, join, take

C_INIT = 1.25
C_BASE = 19652
"""Weights of the prior against what was found (AlphaZero's pseudocode)."""


class _Step(NamedTuple):
    """What was done in one step of a simulation."""

    row: np.ndarray  # [K]
    seat: np.ndarray  # [K]
    ids: np.ndarray  # [K]
    choice: np.ndarray  # [K]
    learns: np.ndarray  # [K] bool
    reward: np.ndarray  # [R, A], 0 where a row had ended before


class Search:
    """The searches of R rows for one seat, side by side."""

    def __init__(
        self,
        simulator: Simulator,
        seat: int,
        roots: Sequence[Worlds],
        simulations: int,
        gamma: Sequence[float],
        rngs: Sequence[np.random.Generator],
    ) -> None:
        """roots [R]: worlds with their weight, in which the seat is to decide; gamma [A]: a decision's."""
        assert len(roots) <= simulator.size
        self.sim, self.seat, self.simulations = simulator, seat, simulations
        self.gamma = np.asarray(gamma)
        self.rngs = list(rngs)
        self.worlds = join(roots)
        first = np.cumsum([0, *(len(root["weight"]) for root in roots[:-1])])
        self.world = first[:, None] + np.stack(
            [drawn(root["weight"], simulations + 1, rng) for root, rng in zip(roots, rngs)]
        )  # [R, N + 1] of each simulation
        bounds = len(roots), simulator.num_seats
        self.low, self.high = np.full(bounds, np.inf), np.full(bounds, -np.inf)  # of the returns seen

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each choice was tried [R, n], and the policy's prior [R, n]."""
        minds, size = self.sim.minds, self.sim.minds.size
        for number in range(self.simulations + 1):  # the first meets the root
            self._simulate(self.world[:, number])
        rows = np.arange(len(self.world))
        self.sim.load(take(self.worlds, self.world[:, 0]))
        root, new = self.sim.look(rows, np.full(len(rows), self.seat), rows)
        assert not new.any()
        found = minds.visits[root].copy(), minds.prior[root].copy()
        minds.end_search(size)
        return found

    def _simulate(self, world: np.ndarray) -> None:
        """One walk of every row from world [R] to where nobody was before, or to its end."""
        self.sim.load(take(self.worlds, world))
        env, rows = self.sim.env, len(world)
        walking = np.ones(rows, bool)
        to_come = np.zeros((rows, self.sim.num_seats))  # what each seat gets after its last decision
        path, leaves = [], []
        while walking.any():
            row, seat = np.nonzero(env.to_act[:rows] & walking[:, None])
            ids, new = self.sim.look(row, seat, row)
            known = np.bincount(row, weights=~new, minlength=rows) > 0
            leaf = walking & ~known
            to_come[leaf] = self.sim.value[:rows][leaf]
            leaves.append((row[leaf[row]], seat[leaf[row]], ids[leaf[row]]))
            if new[known[row]].any():  # to choose at once, beside somebody who has been here
                self.sim.minds.think()
            walking &= known
            going = walking[row]
            row, seat, ids = row[going], seat[going], ids[going]
            if not len(row):
                break
            choice, learns = self._chosen(row, seat, ids)
            self.sim.note(row, seat, ids)
            self.sim.choose(row, seat, choice)
            reward = self.sim.step()[:rows]
            path.append(_Step(row, seat, ids, choice, learns, np.where(walking[:, None], reward, 0)))
            walking &= ~env.over[:rows]
        self.sim.minds.think()
        for row, seat, ids in leaves:
            self._expect(to_come, row, seat, self.sim.minds.value[ids])
        self._back_up(path, to_come)

    def _expect(self, to_come: np.ndarray, row: np.ndarray, seat: np.ndarray, value: np.ndarray) -> None:
        """What is to come [R, A] where seats [K] of rows [K] are to act and expect these values [K].

        A seat that waits expects, with one opponent and zero sum, the opposite of what the other does; else
        what it expected at its last decision, less what it was paid since, which is there already.
        """
        if self.sim.two_sided:
            to_come[row, 1 - seat] = -value
        to_come[row, seat] = self.gamma[seat] * value

    def _chosen(self, row: np.ndarray, seat: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The choice [K] in each information set, and whether it learns what follows [K]."""
        minds = self.sim.minds
        choice = puct(minds, ids, self.low[row, seat], self.high[row, seat]).argmax(axis=1)
        learns = (np.bincount(row)[row] == 1) | (seat == self.seat)
        for k in np.flatnonzero(~learns).tolist():
            reached = np.cumsum(minds.prior[ids[k]])
            point = self.rngs[row[k]].random() * reached[-1]
            choice[k] = np.searchsorted(reached, point, side="right")
        return choice, learns

    def _back_up(self, path: Sequence[_Step], to_come: np.ndarray) -> None:
        """Tell every decision on the way what followed, from the last to the first.

            G_d = sum of the seat's rewards from d to d' + gamma G_d'

        for its decisions d and d' one after the other.
        """
        minds = self.sim.minds
        for step in reversed(path):
            to_come += step.reward
            pair = step.row, step.seat
            gain = to_come[pair]
            tried = step.ids[step.learns], step.choice[step.learns]
            minds.visits[tried] += 1
            minds.total[tried] += gain[step.learns]
            self.low[pair] = np.minimum(self.low[pair], gain)
            self.high[pair] = np.maximum(self.high[pair], gain)
            to_come[pair] = self.gamma[step.seat] * gain


def puct(minds: Minds, ids: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Scores [K, n] of the choices in information sets ids [K]; low, high [K]: returns seen so far.

        Q(a) + c(N) P(a) sqrt(N) / (1 + N(a)),  c(N) = C_INIT + log((1 + N + C_BASE) / C_BASE)

    Q is scaled to [0, 1] by the returns seen; a choice not tried yet counts as the mean of those that were.
    """
    visits, total = minds.visits[ids], minds.total[ids]
    number = visits.sum(axis=1, keepdims=True)
    mean = total.sum(axis=1, keepdims=True) / np.maximum(number, 1)
    quality = np.where(visits > 0, total / np.maximum(visits, 1), mean)
    width = (high - low)[:, None]
    known = np.isfinite(width) & (width > 0)
    with np.errstate(invalid="ignore"):
        scaled = np.where(known, (quality - low[:, None]) / np.where(known, width, 1), 0.0)
    weight = C_INIT + np.log((1 + number + C_BASE) / C_BASE)
    scores = scaled + weight * minds.prior[ids] * np.sqrt(np.maximum(number, 1)) / (1 + visits)
    return np.where(minds.legal[ids], scores, -np.inf)


def drawn(weight: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """`number` worlds by weight [W], in random order: one from each of so many equal shares of the weight."""
    point = (rng.permutation(number) + rng.random()) / number
    edges = np.cumsum(weight) / weight.sum()
    return np.minimum(np.searchsorted(edges, point, side="right"), len(weight) - 1)
