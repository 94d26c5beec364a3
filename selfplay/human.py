"""A person at the terminal: the board, the legal moves, and an answer that is asked for until it is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.seat_views import names_of, render_seat
from envs.vector import Group, Tree, VectorEnv
from selfplay.draws import Draws
from selfplay.errors import UserError
from selfplay.evaluate import Evaluation, match_seeds, rotations, summary
from selfplay.matches import MatchResults, score
from selfplay.observation_text import observation_text
from selfplay.part_play import Seated
from selfplay.parts import Part
from selfplay.players import NO_STATE, Decision
from selfplay.recording import action_name
from selfplay.rollout import Matches
from selfplay.typed_actions import can_be_typed, offer, read

QUIT = "q"
MANY = 1000
"""Matches of a session that nobody gave an end: it is asked for after each."""


class Quit(Exception):
    """The person has had enough, or there is nobody to ask."""


class HumanPlayer:
    """Asks for each decision of its seats of one part on slot 0 of the game; there is no other slot."""

    state_shape = NO_STATE
    extras: tuple[str, ...] = ()

    def __init__(self, env: VectorEnv, part: Part, whose: str = "Your") -> None:
        """whose: the move that is asked for, as in "Your move"."""
        if env.num_games != 1:
            raise ValueError(f"a person plays one match at a time, not {env.num_games}")
        space = env.groups[part.group].action_space
        if not can_be_typed(space):
            raise UserError(f"{env.id}: a person cannot type actions of {space}")
        self._env, self._space = env, space
        self._part, self._whose = part, whose
        self.seats: Collection[int] = range(len(env.teams))  # those that the person holds in this match

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        """Ask once for each row: obs leaves [R, ...], mask leaves [R, n] -> action "" [R, ...]."""
        legal = mask.get("")
        own = [seat for seat in self._part.seats.tolist() if self._env.to_act[0, seat] and seat in self.seats]
        actions = []
        for row, seat in zip(range(len(is_first)), own, strict=True):
            print(f"\n{self._shown(seat, {path: leaf[row] for path, leaf in obs.items()})}\n")
            actions.append(self._ask(seat, None if legal is None else legal[row]))
        return Decision({"": np.stack(actions)}, None, None, state)

    def _shown(self, seat: int, obs: Tree) -> str:
        """What the seat may know: the board; where that is missing or not enough, its observation."""
        env = self._env
        board = env.render(0) if len(env.teams) == 1 else render_seat(env, 0, seat)
        if not board:
            return observation_text(obs)
        return board if getattr(env, "has_board", _always)(0) else f"{observation_text(obs)}\n{board}"

    def _ask(self, seat: int, legal: np.ndarray | None) -> np.ndarray:
        """The action [...] that the person chooses among legal [n]."""
        names = names_of(self._env, 0, seat)
        where = f" at seat {seat}" if len(self.seats) > 1 else ""
        while True:
            word = ask(f"{self._whose} move{where} ({offer(self._space, legal, names)}; {QUIT} quits): ")
            try:
                return read(self._space, word, legal, names)
            except ValueError as error:
                print(error)


def _always(game: int) -> bool:
    return True


def ask(question: str) -> str:
    """A line from the person; raises Quit for 'q' and at the end of the input."""
    print(question, end="", flush=True)
    try:
        word = input().strip()
    except EOFError:
        print()
        raise Quit from None
    if word.lower() in (QUIT, "quit"):
        raise Quit
    return word


class _Announced:
    """A game that says what those do who are not asked, where everybody may know."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.labels: Mapping[int, str] = {}  # of the seats to announce

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, actions: tuple[Tree, ...]) -> None:
        said = []
        for group, leaves in zip(self._env.groups, actions, strict=True):
            for place, seat in enumerate(group.seats):
                if self._env.to_act[0, seat] and seat in self.labels:
                    names = names_of(self._env, 0, seat)
                    played = _played(names, group, {path: leaf[0, place] for path, leaf in leaves.items()})
                    said.append(f"{self.labels[seat]} plays {played}.")
        self._env.step(actions)
        if said:
            print("\n" + "\n".join(said))


def _played(names: list[str] | None, group: Group, action: Tree) -> str:
    """One seat's action leaves as text."""
    if isinstance(group.action_space, spaces.Discrete):
        return action_name(names, group.action_space, int(action[""]))
    return ", ".join(
        f"{path} {np.round(leaf.astype(np.float64), 3).tolist()}".strip() for path, leaf in action.items()
    )


def session(
    env: VectorEnv,
    parts: Sequence[Part],
    players: Sequence[Seated],
    labels: Sequence[str],
    *,
    people: Mapping[int, Sequence[HumanPlayer]],
    games: int | None,
    seed: int,
    units: Sequence[int],
) -> Evaluation:
    """Play match after match on env's one slot, units in rotation, until `games` are over or a person quits.

    players, labels and units [A] as in `selfplay.evaluate`; people: those who are asked, by the same numbers.
    A match that a person leaves does not count.
    """
    announced = _Announced(env)
    number = MANY if games is None else games
    lineups = rotations(units, number, len(players))
    matches = Matches(announced, parts, np.random.SeedSequence(0), cyclic=False)
    matches.assign(lineups, dict(zip(lineups.players, players, strict=True)), seeds=match_seeds(seed, number))
    finished: list[MatchResults] = []
    try:
        for number, seats in enumerate(lineups.table):
            announced.labels = _announced_seats(env, seats, labels, people)
            for k, persons in people.items():
                for person in persons:
                    person.seats = np.flatnonzero(seats == k).tolist()
            _introduce(number, seats, labels)
            matches.tick()
            while not matches.idle:
                matches.tick()
            finished.append(matches.results())
            print(f"\n{env.render(0)}\n\n{_outcome(finished[-1], env.teams, labels)}")
            if games is None and ask(f"Enter for another match, {QUIT} to quit: ").lower() in ("n", "no"):
                break
    except Quit:
        unfinished = not matches.idle
        print("Good bye." + (" The match under way does not count." if unfinished else ""))
    return summary(_joined(finished, len(env.teams)), env.teams, seed)


def _announced_seats(
    env: VectorEnv, seats: np.ndarray, labels: Sequence[str], people: Collection[int]
) -> dict[int, str]:
    """Labels of the seats that no person holds, if what they do is public; seats [A]."""
    if not getattr(env, "public_actions", False):
        return {}
    return {seat: labels[k] for seat, k in enumerate(seats.tolist()) if k not in people}


def _introduce(number: int, seats: np.ndarray, labels: Sequence[str]) -> None:
    """Who sits where in the match that begins; seats [A]."""
    who = ", ".join(f"seat {seat}: {labels[k]}" for seat, k in enumerate(seats))
    print(f"\n--- match {number + 1} --- {who}")


def _outcome(result: MatchResults, teams: Sequence[int], labels: Sequence[str]) -> str:
    """How the only match of `result` ended."""
    scores = score(result.returns, tuple(teams))[0]
    if len(set(teams)) == 1:
        return f"Over: return {result.returns[0].mean():g}."
    ahead: dict[int, list[str]] = {}  # team -> who held it
    for team, k, s in zip(teams, result.lineup[0], scores, strict=True):
        label = labels[int(result.players[k])]
        if s > 0 and label not in ahead.setdefault(team, []):
            ahead[team].append(label)
    best = sorted(" with ".join(held) for held in ahead.values())
    return f"Winner: {best[0]}." if scores.max() == 1 else f"A draw between {' and '.join(best)}."


def _joined(parts: Sequence[MatchResults], num_seats: int) -> MatchResults:
    """Matches of several results as one, players by the numbers that are their names."""
    num_players = 1 + max((int(name) for part in parts for name in part.players), default=0)
    lineup = [np.array(part.players, np.int32)[part.lineup] for part in parts]
    empty = np.zeros((0, num_seats))
    return MatchResults(
        players=tuple(map(str, range(num_players))),
        lineup=np.concatenate([empty.astype(np.int32), *lineup]),
        returns=np.concatenate([empty.astype(np.float32), *(part.returns for part in parts)]),
        length=np.concatenate([np.zeros(0, np.int32), *(part.length for part in parts)]),
        seed=np.concatenate([np.zeros(0, np.uint64), *(part.seed for part in parts)]),
    )
