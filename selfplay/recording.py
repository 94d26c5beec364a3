"""One match on record: what was played, what the policies thought of it, and playing it again.

A match is its game, its seed and its actions; `play_again` reproduces it from those alone. The boards are on
record too, so that a match can be shown where its game is not at hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.seat_views import names_of
from envs.vector import GameError, Group, Tree, VectorEnv
from policies.heads import HeadInput
from policies.spaces import leaves
from selfplay.config import EnvConfig
from selfplay.draws import Draws
from selfplay.errors import UserError
from selfplay.observation_text import observation_text
from selfplay.part_play import PartPlay
from selfplay.parts import Part
from selfplay.players import Decision as PlayerDecision
from selfplay.players import Player, PolicyPlayer
from selfplay.views import Views, seen_by

FORMAT = 2
T = TypeVar("T")
NUM_TOP = 3
"""Likeliest actions noted at each decision."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An action and how likely the policy held it to be."""

    action: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What a seat did, and for a policy what it thought."""

    seat: int
    action: Any  # a number or nested lists; by path where the action space has several leaves
    name: str | None  # of a discrete action
    value: float | None = None  # the policy's estimate of its return from here
    entropy: float | None = None  # nats, of the policy over legal actions
    top: tuple[Choice, ...] = ()  # likeliest first; only of discrete actions


@dataclass(frozen=True, slots=True)
class Recording:
    """A match that can be played again."""

    env_id: str
    env_kwargs: dict[str, Any]
    seed: int  # of the evaluation that it belongs to
    match_seed: int  # with the actions it gives the match
    lineup: tuple[str, ...]  # [A] who sat there
    returns: tuple[float, ...]  # [A]
    steps: tuple[tuple[Decision, ...], ...]  # [T] decisions of the seats that acted, step by step
    boards: tuple[str, ...]  # [T + 1] the match as text before each step and after the last


class FirstMatch:
    """A game that notes the first match of slot 0 while it is played."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self._over = False
        self.seed: int | None = None
        self.actions: list[dict[int, Tree]] = []  # by seat, for every step
        self.returns = np.zeros(len(env.teams))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        if self.seed is None and 0 in games:
            self.seed = int(seeds[games == 0][0])
        self._env.restart(games, seeds)

    def step(self, actions: tuple[Tree, ...]) -> None:
        if not self._over:
            self.actions.append(
                {
                    seat: {path: np.copy(leaf[0, place]) for path, leaf in leaves.items()}
                    for group, leaves in zip(self._env.groups, actions, strict=True)
                    for place, seat in enumerate(group.seats)
                    if self._env.to_act[0, seat]
                }
            )
        self._env.step(actions)
        if not self._over:
            self.returns += self._env.reward[0]
            self._over = bool(self._env.over[0])


def annotate(
    match: FirstMatch, game: EnvConfig, env: VectorEnv, seated: Sequence[tuple[str, Player]], seed: int
) -> Recording:
    """Play the noted match again on env (one slot) and ask the policies; seated [A]: label and player."""
    assert match.seed is not None
    watchers = {
        seat: _Watcher(env, seat, player)
        for seat, (_, player) in enumerate(seated)
        if isinstance(seen_by(player)[0], PolicyPlayer)
    }
    steps, boards = [], []
    for number in _again(env, match.seed, match.actions, match.returns):
        boards.append(_board(env))
        for watcher in watchers.values():
            watcher.earn(env)
        if number == len(match.actions):
            break
        steps.append(
            tuple(
                _decision(env, seat, action, names_of(env, 0, seat), watchers.get(seat))
                for seat, action in sorted(match.actions[number].items())
            )
        )
    return Recording(
        env_id=game.id,
        env_kwargs=game.kwargs,
        seed=seed,
        match_seed=match.seed,
        lineup=tuple(label for label, _ in seated),
        returns=tuple(match.returns.tolist()),
        steps=tuple(steps),
        boards=tuple(boards),
    )


def _board(env: VectorEnv) -> str:
    """The match of slot 0 as text; of a game that draws no board also what those see who are to act."""
    first = env.envs[0] if isinstance(env, Views) else env
    board = first.render(0)
    if getattr(first, "has_board", _always)(0):
        return board
    seen = [
        observation_text({path: leaf[0, place] for path, leaf in group.obs.items()}, f"seat {seat} sees")
        for group in first.groups
        for place, seat in enumerate(group.seats)
        if first.to_act[0, seat]
    ]
    return "\n".join([*seen, board])


def _always(game: int) -> bool:
    return True


def play_again(recording: Recording, env: VectorEnv) -> Iterator[tuple[str, tuple[Decision, ...]]]:
    """The board before each step and what was decided there; last the final board and ().

    env has one slot. Raises UserError where it does not give the returns on record.
    """
    if len(env.teams) != len(recording.lineup):
        raise UserError(f"{env.id} has {len(env.teams)} seats, the match on record {len(recording.lineup)}")
    actions = [
        {decision.seat: _leaves(env, decision.seat, decision.action) for decision in step}
        for step in recording.steps
    ]
    for number in _again(env, recording.match_seed, actions, recording.returns):
        yield _board(env), recording.steps[number] if number < len(actions) else ()


def save(recording: Recording, path: Path) -> None:
    """Write it as JSON."""
    try:
        path.write_text(json.dumps({"format": FORMAT} | asdict(recording), allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> Recording:
    """Read what `save` wrote; UserError of one line for anything else."""
    try:
        table = json.loads(path.read_text(), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a replay: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict) or "format" not in table:
        raise UserError(f"{path} is not a replay: it has no format")
    if table["format"] != FORMAT:
        raise UserError(f"{path} is a replay of another format; this version reads {FORMAT}")
    try:
        return _read(table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is a damaged replay: {type(error).__name__} {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _read(table: Mapping[str, Any]) -> Recording:
    """A recording from its JSON object; raises one of four errors where it is not as `save` writes it."""
    recording = Recording(
        env_id=_of(str, table["env_id"]),
        env_kwargs=_of(dict, table["env_kwargs"]),
        seed=_of(int, table["seed"]),
        match_seed=_of(int, table["match_seed"]),
        lineup=tuple(_of(str, label) for label in table["lineup"]),
        returns=tuple(_number(value) for value in table["returns"]),
        steps=tuple(tuple(_read_decision(decision) for decision in step) for step in table["steps"]),
        boards=tuple(_of(str, board) for board in table["boards"]),
    )
    if not 0 <= recording.match_seed < 2**64:
        raise ValueError("match_seed is out of range")
    if len(recording.returns) != len(recording.lineup):
        raise ValueError("there must be a return for each seat")
    if len(recording.boards) != len(recording.steps) + 1:
        raise ValueError("there must be a board before each step and one after the last")
    seats = {decision.seat for step in recording.steps for decision in step}
    if not seats <= set(range(len(recording.lineup))):
        raise ValueError("a decision is of a seat that is not in the lineup")
    return recording


def _read_decision(table: Mapping[str, Any]) -> Decision:
    thought = {name: None if table[name] is None else _number(table[name]) for name in ("value", "entropy")}
    if (thought["value"] is None) != (thought["entropy"] is None):
        raise ValueError("a decision has one of value and entropy without the other")
    top = tuple(
        Choice(_of(int, each["action"]), _of(str, each["name"]), _number(each["probability"]))
        for each in table["top"]
    )
    name = table["name"]
    return Decision(
        _of(int, table["seat"]), table["action"], None if name is None else _of(str, name), **thought, top=top
    )


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is not of type {kind.__name__}")
    return value


def _number(value: Any) -> float:
    number = float(_of(int, value) if isinstance(value, int) else _of(float, value))
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def _again(
    env: VectorEnv, seed: int, actions: Sequence[Mapping[int, Tree]], returns: Sequence[float] | np.ndarray
) -> Iterator[int]:
    """Step through a match on slot 0; yields the number of steps taken, before the first and after each."""
    env.restart(np.array([0]), np.array([seed], np.uint64))
    given = np.zeros(len(env.teams))
    for number, step in enumerate(actions):
        if env.over[0] or set(step) != set(np.flatnonzero(env.to_act[0])):
            raise UserError(
                f"{env.id} does not ask the seats on record at step {number}: the game has changed"
            )
        yield number
        try:
            env.step(tuple(_scattered(group, step) for group in env.groups))
        except GameError as error:
            raise UserError(f"the match on record cannot be played again: {error}") from error
        given += env.reward[0]
    if not env.over[0] or not np.allclose(given, returns):
        raise UserError(
            f"{env.id} does not end as on record: returns {given.tolist()}, recorded {list(returns)}"
        )
    yield len(actions)


def _scattered(group: Group, step: Mapping[int, Tree]) -> Tree:
    """A group's action leaves [1, S, ...]; zeros for seats that do not act."""
    action = {
        path: np.zeros((1, len(group.seats), *(leaf.shape or ())), leaf.dtype)
        for path, leaf in leaves(group.action_space).items()
    }
    for place, seat in enumerate(group.seats):
        for path, value in step.get(seat, {}).items():
            action[path][0, place] = value
    return action


def _place(env: VectorEnv, seat: int) -> tuple[int, int]:
    """The group of a seat, and its place there."""
    return next((k, group.seats.index(seat)) for k, group in enumerate(env.groups) if seat in group.seats)


def _leaves(env: VectorEnv, seat: int, action: Any) -> Tree:
    """An action's leaves from what JSON kept of it."""
    own = leaves(env.groups[_place(env, seat)[0]].action_space)
    try:
        return {
            path: np.asarray(action if path == "" else action[path], leaf.dtype).reshape(leaf.shape)
            for path, leaf in own.items()
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{env.id}: the action {action!r:.60} on record does not fit it") from error


class _Watcher:
    """A policy that follows a match from one seat, while the seat does what is on record."""

    extras: tuple[str, ...]
    own: Callable[[Tree], Tree]

    def __init__(self, env: VectorEnv, seat: int, player: Player) -> None:
        policy, self.own = seen_by(player)
        assert isinstance(policy, PolicyPlayer)
        self.policy = policy.policy
        self.state_shape, self.extras = player.state_shape, player.extras
        number, place = _place(env, seat)
        self.group = env.groups[number]
        part = Part(str(seat), number, np.array([place]), np.array([seat]))
        self.play = PartPlay(env, part, 0, _scattered(self.group, {}))
        self.play.tracks_previous = True
        self.play.open(np.array([0]))
        self.action: Tree = {}
        self.value, self.entropy = 0.0, 0.0
        self.probability: np.ndarray | None = None  # of each action of a Discrete space

    def think(self, action: Tree) -> None:
        """Take in what the seat sees and, as its decision, this action's leaves."""
        self.action = {path: leaf[None] for path, leaf in action.items()}
        to_act = np.zeros((1, int(self.play.part.seats[0]) + 1), bool)
        to_act[:, -1] = True
        lineup = np.zeros(to_act.shape, np.int32)
        self.play.act(to_act, lineup, {0: "it"}, {"it": (self,)}, np.random.default_rng(0), None)

    def earn(self, env: VectorEnv) -> None:
        """Note what the last step paid."""
        self.play.earn(env.reward)

    @torch.inference_mode()
    def act(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws
    ) -> PlayerDecision:
        """The action on record; what the policy thinks of it is kept."""
        out = self.policy.step(_tensors(self.own(obs)), torch.from_numpy(is_first), torch.from_numpy(state))
        legal, head, space = _tensors(mask), self.policy.head, self.group.action_space
        _, entropy = head.evaluate(out.head, legal, _tensors(self.action))
        self.value, self.entropy = float(out.value[0]), float(entropy[0])
        if isinstance(space, spaces.Discrete):
            size = int(space.n)
            every = {"": torch.arange(size) + int(space.start)}
            rows = {path: leaf.expand(size, -1) for path, leaf in legal.items()}
            logp, _ = head.evaluate(_repeated(out.head, size), rows, every)
            self.probability = logp.exp().numpy()
        return PlayerDecision(self.action, None, None, out.state.numpy())


def _repeated(x: HeadInput, size: int) -> HeadInput:
    """One row of a head's input as so many."""

    def repeat(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {path: leaf.expand(size, *leaf.shape[1:]) for path, leaf in leaves.items()}

    return HeadInput(x.flat.expand(size, -1), repeat(x.entities), repeat(x.present))


def _tensors(tree: Tree) -> dict[str, Tensor]:
    return {path: torch.from_numpy(np.ascontiguousarray(leaf)) for path, leaf in tree.items()}


def _decision(
    env: VectorEnv, seat: int, action: Tree, names: list[str] | None, watcher: _Watcher | None
) -> Decision:
    """What the seat does on slot 0 of env, before the step."""
    space = env.groups[_place(env, seat)[0]].action_space
    plain = {path: leaf.tolist() for path, leaf in action.items()}
    kept: Any = plain[""] if set(plain) == {""} else plain
    name = action_name(names, space, kept) if isinstance(space, spaces.Discrete) else None
    if watcher is None:
        return Decision(seat, kept, name)
    watcher.think(action)
    probability = watcher.probability
    top: tuple[Choice, ...] = ()
    if probability is not None and isinstance(space, spaces.Discrete):
        order = np.argsort(-probability, kind="stable")[:NUM_TOP]
        likely = [(int(space.start) + int(k), float(probability[k])) for k in order if probability[k] > 0]
        top = tuple(Choice(choice, action_name(names, space, choice), p) for choice, p in likely)
    return Decision(seat, kept, name, watcher.value, watcher.entropy, top)


def action_name(names: list[str] | None, space: spaces.Discrete, action: int) -> str:
    """What a person types for a discrete action."""
    return names[action - int(space.start)] if names is not None else str(action)
