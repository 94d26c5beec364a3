"""Which worlds agree with everything that a seat has seen: a particle filter that never asks the true match.

Worlds begin with chance drawn anew. Where others decide, a world branches into all they may do, each as
probable as the searcher's own policy holds it, in their place, a little unlikely play allowed for. Where the
seat itself decides, the worlds in which it would see something else are dropped, and it does what it did. So
in a game without hidden information or chance exactly the true position is left.

W worlds, R rows (decisions that are thought about together), A seats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from selfplay.search.minds import NOTHING, rows_as_bytes, seen
from selfplay.search.worlds import Simulator, Worlds, join, pieces, take

NUM_WORLDS = 128
"""Kept of a belief, the likeliest counting most; also drawn at once where there is none."""

ROUNDS = 16
"""Drawings before the seat gives up: no world agrees with what it has seen."""

MOST_BRANCHES = 1024
"""Worlds of a row while others decide."""

UNLIKELY = 0.05
"""Share of an opponent's choice that is uniform: it is not the searcher's own policy."""


@dataclass(slots=True)
class Belief:
    """What a seat knows of its match, and the worlds that agree with it."""

    seen: list[bytes] = field(default_factory=list)  # at each of its decisions
    played: list[int] = field(default_factory=list)  # one fewer while it decides
    worlds: Worlds | None = None  # in which it is to decide now or has just decided, with their weight
    lost: bool = False  # nothing agrees with it, and the policy plays alone to the end of the match


class Beliefs:
    """Follows matches from one seat."""

    def __init__(self, simulator: Simulator, seat: int) -> None:
        self.sim, self.seat = simulator, seat
        # Where nothing is drawn, all that is drawn anew is the same.
        self.deterministic = bool(getattr(simulator.env, "deterministic", False))

    def update(self, beliefs: Sequence[Belief], rngs: Sequence[np.random.Generator]) -> None:
        """Take in the newest view of each row, which is to decide; rngs [R] are drawn from."""
        going = [(k, belief.worlds) for k, belief in enumerate(beliefs) if belief.worlds is not None]
        if going:
            worlds = join([own | {"row": np.full(len(own["info"]), k)} for k, own in going])
            newest = [len(belief.seen) - 1 for belief in beliefs]
            arrived = self._onward(worlds, beliefs, newest, rngs)
            _give(beliefs, [k for k, _ in going], [] if arrived is None else [arrived])
        empty = [k for k, belief in enumerate(beliefs) if belief.worlds is None and not belief.lost]
        if empty:
            found = self._drawn(beliefs, empty, rngs)
            _give(beliefs, empty, found)
            for k in empty:
                beliefs[k].lost = beliefs[k].worlds is None

    def _drawn(
        self, beliefs: Sequence[Belief], rows: Sequence[int], rngs: Sequence[np.random.Generator]
    ) -> list[Worlds]:
        """Worlds of these rows from fresh chance: enough that agree, or those of the last round."""
        found: list[Worlds] = []
        agreed = np.zeros(len(beliefs), np.int64)
        length = np.array([len(belief.seen) for belief in beliefs])
        for _ in range(1 if self.deterministic else ROUNDS):
            wanting = [k for k in rows if agreed[k] < NUM_WORLDS]
            if not wanting:
                break
            time, worlds = 0, self._opened(beliefs, wanting, rngs)
            while worlds is not None:
                there = length[worlds["row"]] == time + 1
                if there.any():
                    found.append(take(worlds, there))
                np.add.at(agreed, worlds["row"][there], worlds["draws"][there])
                if there.all():
                    break
                time += 1
                worlds = self._onward(take(worlds, ~there), beliefs, [time] * len(beliefs), rngs)
        return found

    def _opened(
        self, beliefs: Sequence[Belief], rows: Sequence[int], rngs: Sequence[np.random.Generator]
    ) -> Worlds | None:
        """New matches for these rows, up to their first decision."""
        number = 1 if self.deterministic else NUM_WORLDS
        row = np.repeat(rows, number)
        seed = np.concatenate([rngs[k].integers(2**64, size=number, dtype=np.uint64) for k in rows])
        wanted = [belief.seen[0] for belief in beliefs]
        arrived, pending = [], []
        for first in range(0, len(row), self.sim.size):
            part = row[first : first + self.sim.size]
            self.sim.restart(seed[first : first + len(part)])
            own = {"row": part, "weight": np.ones(len(part)), "draws": np.ones(len(part), np.int64)}
            here, going = self._sorted(own, wanted)
            arrived += here
            pending += going
        return self._walked(arrived, pending, wanted, rngs)

    def _onward(
        self,
        worlds: Worlds,
        beliefs: Sequence[Belief],
        times: Sequence[int],
        rngs: Sequence[np.random.Generator],
    ) -> Worlds | None:
        """From each row's decision before the one at times [R] to that: those that agree with its view."""
        choice, wanted = np.full(len(beliefs), -1), [b""] * len(beliefs)
        for k in np.unique(worlds["row"]).tolist():
            choice[k], wanted[k] = beliefs[k].played[times[k] - 1], beliefs[k].seen[times[k]]
        pending = []
        for part in pieces(worlds, self.sim.size):
            self.sim.load(part)
            pending.append(self._branched(part, np.arange(len(part["row"])), choice[part["row"]]))
        return self._walked([], pending, wanted, rngs)

    def _walked(
        self,
        arrived: list[Worlds],
        pending: list[Worlds],
        wanted: Sequence[bytes],
        rngs: Sequence[np.random.Generator],
    ) -> Worlds | None:
        """Play pending worlds, which hold what is done next (act), until the seat is to decide in each."""
        while pending:
            worlds, pending = thinned(merged(join(pending)), MOST_BRANCHES, rngs), []
            for part in pieces(worlds, self.sim.size):
                self.sim.load(part)
                slot, seat = np.nonzero(part["act"] >= 0)
                self.sim.choose(slot, seat, part["act"][slot, seat])
                self.sim.step()
                here, going = self._sorted(part, wanted)
                arrived += here
                pending += going
        arrived = [worlds for worlds in arrived if len(worlds["row"])]
        return thinned(merged(join(arrived)), NUM_WORLDS, rngs) if arrived else None

    def _sorted(self, own: Worlds, wanted: Sequence[bytes]) -> tuple[list[Worlds], list[Worlds]]:
        """Of worlds in the first slots: those where the seat is to decide and sees what it saw, and those
        where it is not yet to decide. own: their row [W], weight [W] and draws [W]."""
        env, size = self.sim.env, len(own["row"])
        decides = env.to_act[:size, self.seat]
        here = np.flatnonzero(decides & ~env.over[:size])
        views = seen(*self.sim.views(here, np.full(len(here), self.seat))) if len(here) else []
        agrees = [view == wanted[row] for view, row in zip(views, own["row"][here].tolist())]
        here = here[np.array(agrees, bool)]
        going = np.flatnonzero(~decides & ~env.over[:size])
        arrived = [self._saved(own, here)] if len(here) else []
        return arrived, [self._branched(own, going, None)] if len(going) else []

    def _saved(self, own: Worlds, slots: np.ndarray) -> Worlds:
        return self.sim.save(slots) | {name: own[name][slots] for name in ("row", "weight", "draws")}

    def _branched(self, own: Worlds, slots: np.ndarray, choice: np.ndarray | None) -> Worlds:
        """What may be done in slots [K]: act [W, A], -1 for who does not; choice [K]: of the seat itself."""
        minds, num_seats = self.sim.minds, self.sim.num_seats
        k, seat = np.nonzero(self.sim.env.to_act[slots])
        ids, _ = self.sim.look(slots[k], seat)
        minds.think()
        self.sim.note(slots[k], seat, ids)
        worlds = self._saved(own, slots) | {"act": np.full((len(slots), num_seats), -1)}
        of = np.full((len(slots), num_seats), NOTHING)
        of[k, seat] = ids
        world = np.arange(len(slots))  # of each branch, which it comes from
        for other in np.unique(seat).tolist():
            acts = of[world, other] != NOTHING
            if other == self.seat:
                assert choice is not None
                worlds["act"][acts, other] = worlds["played"][acts, other] = choice[world[acts]]
                continue
            legal = minds.legal[of[world, other]] & acts[:, None]  # [W, n]
            legal[~acts, 0] = True  # one branch of those that wait
            branch, played = np.nonzero(legal)
            worlds, world = take(worlds, branch), world[branch]
            moves = acts[branch]
            chance = probability(minds.prior, minds.legal, of[world, other])[np.arange(len(world)), played]
            worlds["weight"] = worlds["weight"] * np.where(moves, chance, 1.0)
            worlds["act"][moves, other] = worlds["played"][moves, other] = played[moves]
        return worlds


def probability(prior: np.ndarray, legal: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How likely an opponent's choices are [K, n]: (1 - u) prior + u / (number of legal ones)."""
    number = np.maximum(legal[ids].sum(axis=1, keepdims=True), 1)
    mixed: np.ndarray = (1 - UNLIKELY) * prior[ids] + UNLIKELY * legal[ids] / number
    return mixed


def merged(worlds: Worlds) -> Worlds:
    """Worlds that are the same, as one of their weight together; in the order in which they first came."""
    names = [name for name in worlds if name not in ("weight", "draws", "value")]
    rows = rows_as_bytes([worlds[name] for name in names])
    number: dict[bytes, int] = {}
    which = np.array([number.setdefault(row, len(number)) for row in rows])
    first = np.full(len(number), len(rows))
    np.minimum.at(first, which, np.arange(len(rows)))
    found = take(worlds, first)
    found["weight"] = np.bincount(which, weights=worlds["weight"])
    found["draws"] = np.bincount(which, weights=worlds["draws"]).astype(np.int64)
    return found


def thinned(worlds: Worlds, limit: int, rngs: Sequence[np.random.Generator]) -> Worlds:
    """At most `limit` worlds of each row, drawn by weight where there are more; rows keep their weight."""
    row = worlds["row"]
    crowded = np.flatnonzero(np.bincount(row) > limit).tolist()
    if not crowded:
        return worlds
    weight, kept = worlds["weight"].copy(), ~np.isin(row, crowded)
    for k in crowded:
        own = np.flatnonzero(row == k)
        times = systematic(weight[own], limit, float(rngs[k].random()))
        kept[own] = times > 0
        weight[own] = weight[own].sum() * times / limit
    found = take(worlds, kept)
    found["weight"] = weight[kept]
    return found


def systematic(weight: np.ndarray, number: int, uniform: float) -> np.ndarray:
    """How often each of `number` evenly spaced points falls on it: weight [W], uniform in [0, 1) -> [W]."""
    edges = np.cumsum(weight) / weight.sum() * number
    edges[-1] = number
    reached = np.ceil(edges - uniform).clip(0, number)  # points below each edge
    return np.diff(reached, prepend=0.0)


def _give(beliefs: Sequence[Belief], rows: Sequence[int], found: Sequence[Worlds]) -> None:
    """Hand these rows the worlds that are theirs, weights summing to 1; None to those without."""
    worlds = merged(join(found)) if found else None
    for k in rows:
        own = None if worlds is None else take(worlds, worlds["row"] == k)
        if own is None or not len(own["row"]):
            beliefs[k].worlds = None
            continue
        own["weight"] = own["weight"] / own["weight"].sum()
        beliefs[k].worlds = own
