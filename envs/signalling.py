"""A signalling game after Lewis: a speaker sends a message about a target that a listener must name.

B games. Seat 0 speaks, seat 1 listens; both are one team. clock 0: the speaker is to act; clock 1 to
`delay`: the listener waits; clock `delay` + 1: the listener names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Discrete, MultiDiscrete
from numba import njit

from envs import native
from envs.random_bits import next_random
from envs.vector import Bot, GameError, Group, Tree

SPEAKER, LISTENER = 0, 1
NOT_NAMED = -1


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes. L tokens of a message, N targets."""

    random: np.ndarray  # [B] uint64, state of the generator of distractors
    target: np.ndarray  # [B] int64
    message: np.ndarray  # [B, L] int64, as sent; zeros before
    clock: np.ndarray  # [B] int64
    named: np.ndarray  # [B] int64, what the listener has named, or NOT_NAMED
    seen: np.ndarray  # [B, 1] int64, the speaker's view: the target
    heard: np.ndarray  # [B, 1, L] int64, the listener's: the message at age 0, then distractors
    age: np.ndarray  # [B, 1] int64, and how long ago the message came
    mask: np.ndarray  # [B, 1, N or N + 1] bool, the listener's; entry N is to wait
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, seeds: np.ndarray, targets: int) -> None:
    """Open matches in slots games [K] int64 from seeds [K] uint64."""
    for k in range(games.shape[0]):
        game = games[k]
        m.random[game], bits = next_random(seeds[k])
        m.target[game] = np.int64(bits % np.uint64(targets))
        m.message[game] = 0
        m.clock[game] = 0
        m.named[game] = NOT_NAMED
        m.seen[game, 0] = m.target[game]
        m.to_act[game, SPEAKER] = True
        m.to_act[game, LISTENER] = False
        native.clear(game, m.reward, m.terminated, m.over)


@njit(cache=True, nogil=True)
def _first_illegal(m: _Matches, spoken: np.ndarray, named: np.ndarray, tokens: int) -> int:
    """The first match whose acting seat does what it may not, spoken [B, 1, L], named [B, 1]; -1 if none."""
    for game in range(m.over.shape[0]):
        if m.to_act[game, SPEAKER]:
            for token in spoken[game, 0]:
                if token < 0 or token >= tokens:
                    return game
        elif m.to_act[game, LISTENER]:
            choice = named[game, 0]
            if choice < 0 or choice >= m.mask.shape[2] or not m.mask[game, 0, choice]:
                return game
    return -1


@njit(cache=True, nogil=True)
def _show_listener(m: _Matches, game: int, tokens: int, targets: int, delay: int) -> None:
    """What is heard now, and what may be done: naming when the delay is over, else waiting."""
    age = m.clock[game] - 1
    m.age[game, 0] = age
    for k in range(m.message.shape[1]):
        m.heard[game, 0, k] = m.message[game, k]
        if age > 0:
            m.random[game], bits = next_random(m.random[game])
            m.heard[game, 0, k] = np.int64(bits % np.uint64(tokens))
    if delay > 0:
        m.mask[game, 0, :targets] = age == delay
        m.mask[game, 0, targets] = age < delay


@njit(cache=True, nogil=True)
def _step(m: _Matches, spoken: np.ndarray, named: np.ndarray, tokens: int, targets: int, delay: int) -> None:
    """One legal step, from spoken [B, 1, L] and named [B, 1], of every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        if m.clock[game] == 0:
            m.message[game] = spoken[game, 0]
            m.to_act[game, SPEAKER] = False
            m.to_act[game, LISTENER] = True
        elif m.clock[game] == delay + 1:
            m.named[game] = named[game, 0]
            m.reward[game] = m.named[game] == m.target[game]
            m.terminated[game] = True
            m.over[game] = True
            m.to_act[game, LISTENER] = False
            continue
        m.clock[game] += 1
        _show_listener(m, game, tokens, targets, delay)


class Signalling:
    """Lewis's signalling game: +1 to both seats if the listener names the speaker's target, else 0.

    The speaker sees one of `targets` and sends `length` tokens of an alphabet of `tokens`. The
    listener hears them; then, for `delay` decisions, it hears random tokens and may only wait (action
    `targets`), and at the last of them it names a target. No code is given: one must arise in play.
    """

    id = "signalling"
    teams = (0, 0)
    public_actions = True
    seat_names = ("speaker_0", "listener_0")
    zero_sum = False

    def __init__(
        self, num_games: int, *, targets: int = 32, tokens: int = 4, length: int = 3, delay: int = 0
    ) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        native.check_int(self.id, "targets", targets, 2, None)
        native.check_int(self.id, "tokens", tokens, 2, None)
        native.check_int(self.id, "length", length, 1, 16)
        native.check_int(self.id, "delay", delay, 0, None)
        self.num_games = num_games
        self._rules = (tokens, targets, delay)
        self._matches = m = _new_matches(num_games, length, targets, waits=delay > 0)
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        message = MultiDiscrete([tokens] * length)
        listener = Dict(age=Discrete(delay + 1), heard=message)
        names: Discrete = Discrete(targets + (delay > 0))
        heard = {"age": m.age, "heard": m.heard}
        self.groups = (
            Group("speaker", (SPEAKER,), Discrete(targets), message, {"": m.seen}),
            Group("listener", (LISTENER,), listener, names, heard, {"": m.mask}),
        )
        self.privileged_space: gymnasium.Space = Dict(
            clock=Discrete(delay + 2), message=message, target=Discrete(targets)
        )
        self.privileged: Tree = {"clock": m.clock, "message": m.message, "target": m.target}
        self.max_return = min(1.0, tokens**length / targets)  # no code tells more targets than messages
        # A bot has no memory, and only without a delay does the message stand before the listener.
        self.bots: Mapping[str, tuple[Bot, ...]] = {} if delay else {"perfect": _code_bots(tokens, length)}

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        _restart(self._matches, *native.check_restart(self.id, self.num_games, games, seeds), self._rules[1])

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Speak actions[0] "" [B, 1, L] or name actions[1] "" [B, 1]; if one is illegal, nothing is done."""
        spoken, named = actions[0][""], actions[1][""]
        native.check_array(self.id, "the speaker's action", spoken, self._matches.heard.shape, np.int64)
        native.check_array(self.id, "the listener's action", named, self._matches.seen.shape, np.int64)
        game = _first_illegal(self._matches, spoken, named, self._rules[0])
        if game >= 0:
            raise self._illegal(game, spoken, named)
        _step(self._matches, spoken, named, *self._rules)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each."""
        return native.copy_state(self._matches._asdict())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._matches._asdict(), state)

    def render(self, game: int, seat: int | None = None) -> str:
        """Target, message and what was named, or whose turn it is; for the listener what it hears."""
        m = self._matches
        if self.over[game] and m.named[game] == NOT_NAMED:
            return "not started"
        if seat == LISTENER and not self.over[game]:
            heard = _words(m.heard[game, 0]) if m.clock[game] > 0 else "nothing yet"
            return f"you hear {heard}, {m.age[game, 0]} after the message"
        lines = [f"target   {m.target[game]}"]
        if m.clock[game] == 0:
            return "\n".join([*lines, "speaker to send"])
        lines.append(f"message  {_words(m.message[game])}")
        if self.over[game]:
            verdict = "right" if m.named[game] == m.target[game] else "wrong"
            return "\n".join([*lines, f"named    {m.named[game]}: {verdict}"])
        if m.age[game, 0] > 0:
            lines.append(f"noise    {_words(m.heard[game, 0])}")
        task = "to name" if m.age[game, 0] == self._rules[2] else "to wait"
        return "\n".join([*lines, f"listener {task}"])

    def action_names(self, game: int) -> None:
        """Numbers."""

    def _illegal(self, game: int, spoken: np.ndarray, named: np.ndarray) -> GameError:
        tokens, targets, _ = self._rules
        if self.to_act[game, SPEAKER]:
            seat, action, legal = SPEAKER, spoken[game, 0].tolist(), f"each token from 0 to {tokens - 1}"
        else:
            waits = self._matches.mask[game, 0, -1] and self._matches.mask.shape[2] > targets
            seat, action = LISTENER, named[game, 0]
            legal = f"only {targets} (wait)" if waits else f"0 to {targets - 1}"
        return native.illegal_action(self.id, game, seat, action, legal)


def _new_matches(num_games: int, length: int, targets: int, *, waits: bool) -> _Matches:
    """B matches that are over."""
    return _Matches(
        random=np.zeros(num_games, np.uint64),
        target=np.zeros(num_games, np.int64),
        message=np.zeros((num_games, length), np.int64),
        clock=np.zeros(num_games, np.int64),
        named=np.full(num_games, NOT_NAMED),
        seen=np.zeros((num_games, 1), np.int64),
        heard=np.zeros((num_games, 1, length), np.int64),
        age=np.zeros((num_games, 1), np.int64),
        mask=np.ones((num_games, 1, targets + waits), np.bool_),
        **native.shown(num_games, 2),
    )


def _code_bots(tokens: int, length: int) -> tuple[Bot, Bot]:
    """Speaker and listener that agree on a code: the target's last `length` digits in base `tokens`."""
    places = tokens ** np.arange(length)[::-1]  # [L]

    def speaker(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
        """obs "" [R] -> action "" [R, L]."""
        return {"": obs[""][:, None] // places % tokens}

    def listener(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
        """obs "heard" [R, L] -> action "" [R]."""
        code = obs["heard"] @ places
        return {"": np.minimum(code, mask[""].shape[1] - 1)}

    return speaker, listener


def _words(tokens: np.ndarray) -> str:
    """A message as a person reads it."""
    return " ".join(map(str, tokens.tolist()))
