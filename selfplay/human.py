"""A person at the terminal: the board, the legal moves, and an answer that is asked for until it is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.vector import Group, Tree, VectorEnv
from selfplay.errors import UserError
from selfplay.evaluate import Evaluation, rotations, summary
from selfplay.matches import MatchResults, score
from selfplay.part_play import Seated
from selfplay.parts import Part
from selfplay.players import NO_STATE, Decision
from selfplay.recording import action_name
from selfplay.rollout import Matches

QUIT = "q"
MANY = 1000
"""Matches of a session that nobody gave an end: it is asked for after each."""


class Quit(Exception):
    """The person has had enough, or there is nobody to ask."""


class HumanPlayer:
    """Asks for each decision on slot 0 of the game; there is no other slot."""

    state_shape = NO_STATE
    extras: tuple[str, ...] = ()

    def __init__(self, env: VectorEnv, group: int = 0, whose: str = "Your") -> None:
        """group: of the seats, among the game's; whose: the move that is asked for, as in "Your move"."""
        if env.num_games != 1:
            raise ValueError(f"a person plays one match at a time, not {env.num_games}")
        space = env.groups[group].action_space
        if not isinstance(space, spaces.Discrete):
            raise UserError(f"{env.id}: a person cannot type actions of {space}")
        self._env, self._space = env, space
        self._whose = whose

    def act(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: np.random.Generator
    ) -> Decision:
        """Ask once for each row: obs leaves [R, ...], mask leaves [R, n] -> action "" [R] int64."""
        legal = mask.get("")
        rows = []
        for row in range(len(is_first)):
            board = self._env.render(0)
            if not getattr(self._env, "has_board", _always)(0):
                board = f"{observation_text({path: leaf[row] for path, leaf in obs.items()})}\n{board}"
            rows.append(self._ask(board, None if legal is None else legal[row]))
        return Decision({"": np.array(rows, np.int64)}, None, None, state)

    def _ask(self, board: str, legal: np.ndarray | None) -> int:
        """The action that the person chooses among legal [n]."""
        space = self._space
        allowed = range(int(space.n)) if legal is None else np.flatnonzero(legal).tolist()
        names = self._env.action_names(0)
        actions = {action_name(names, space, k + int(space.start)): k + int(space.start) for k in allowed}
        print(f"\n{board}\n")
        while True:
            word = ask(f"{self._whose} move ({' '.join(actions)}; {QUIT} quits): ")
            if word in actions:
                return actions[word]
            folded = [action for name, action in actions.items() if name.lower() == word.lower()]
            if len(folded) == 1:
                return folded[0]
            print(f"{word!r} is not a legal move." if word else "Type one of the moves in brackets.")


def _always(game: int) -> bool:
    return True


MOST_NUMBERS = 64
"""Of a leaf that is printed in full."""

MOST_PLANES = 36


def observation_text(obs: Mapping[str, np.ndarray]) -> str:
    """What one seat sees, leaves [...], in few lines: for games that draw no board."""
    return "\n".join(f"you see{f' {path}' if path else ''}: {_leaf_text(leaf)}" for path, leaf in obs.items())


def _leaf_text(leaf: np.ndarray) -> str:
    """Numbers, the places that are 1 where all are 0 or 1, a board of such planes; of much else the range."""
    binary = leaf.ndim > 0 and bool(np.isin(leaf, (0, 1)).all())
    if binary and leaf.ndim == 3 and 1 < leaf.shape[2] <= MOST_PLANES:
        return _board_text(leaf)
    if binary and leaf.ndim == 1 and leaf.size > 8:
        return f"1 at {' '.join(map(str, np.flatnonzero(leaf))) or 'none'} of 0 to {leaf.size - 1}, else 0"
    if leaf.size <= MOST_NUMBERS:
        text = np.array2string(leaf, precision=3, suppress_small=True)
        return f"\n{text}" if "\n" in text else text
    return f"{leaf.dtype} {leaf.shape}, from {leaf.min():g} to {leaf.max():g}"


def _board_text(planes: np.ndarray) -> str:
    """A board [H, W, planes] of 0 and 1: at each place the first plane that is 1, of those that vary."""
    vary = np.ptp(planes.reshape(-1, planes.shape[2]).astype(np.int8), axis=0) > 0
    signs = "0123456789abcdefghijklmnopqrstuvwxyz"
    rows = [
        " ".join(next((signs[k] for k in np.flatnonzero(cell.astype(np.bool_) & vary)), ".") for cell in row)
        for row in planes
    ]
    return "\n".join(["the first of the planes that is 1 at each place, '.' if none", *rows])


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
    """A game that says what those do who are not asked."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.labels: Mapping[int, str] = {}  # of the seats to announce

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, actions: tuple[Tree, ...]) -> None:
        names = self._env.action_names(0)
        said = []
        for group, leaves in zip(self._env.groups, actions, strict=True):
            for place, seat in enumerate(group.seats):
                if self._env.to_act[0, seat] and seat in self.labels:
                    played = _played(names, group, {path: leaf[0, place] for path, leaf in leaves.items()})
                    said.append(f"{self.labels[seat]} plays {played}.")
        self._env.step(actions)
        if said:
            print("\n" + "\n".join(said))


def _played(names: list[str] | None, group: Group, action: Tree) -> str:
    """One seat's action leaves as text."""
    if isinstance(group.action_space, spaces.Discrete):
        return action_name(names, group.action_space, int(action[""]))
    return ", ".join(f"{path} {leaf.tolist()}".strip() for path, leaf in action.items())


def session(
    env: VectorEnv,
    parts: Sequence[Part],
    players: Sequence[Seated],
    labels: Sequence[str],
    *,
    games: int | None,
    seed: int,
) -> Evaluation:
    """Play match after match on env's one slot, teams in rotation, until `games` are over or a person quits.

    players and labels by number, as in `selfplay.evaluate`. A match that a person leaves does not count.
    """
    announced = _Announced(env)
    lineups = rotations(env.teams, MANY if games is None else games)
    matches = Matches(announced, parts, np.random.SeedSequence(seed), cyclic=False)
    matches.assign(lineups, dict(zip(lineups.players, players, strict=True)))
    finished: list[MatchResults] = []
    try:
        for number, seats in enumerate(lineups.table):
            people = [k for k in seats if isinstance(players[k][0], HumanPlayer)]
            announced.labels = {seat: labels[k] for seat, k in enumerate(seats) if k not in people}
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


def _introduce(number: int, seats: np.ndarray, labels: Sequence[str]) -> None:
    """Who sits where in the match that begins; seats [A]."""
    who = ", ".join(f"seat {seat}: {labels[k]}" for seat, k in enumerate(seats))
    print(f"\n--- match {number + 1} --- {who}")


def _outcome(result: MatchResults, teams: Sequence[int], labels: Sequence[str]) -> str:
    """How the only match of `result` ended."""
    scores = score(result.returns, tuple(teams))[0]
    if len(set(teams)) == 1:
        return f"Over: return {result.returns[0].mean():g}."
    best = sorted({labels[int(result.players[k])] for k, s in zip(result.lineup[0], scores) if s > 0})
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
