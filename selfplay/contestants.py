"""Who may be asked to play: what the words of `play A B` mean, and the game in which they meet."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.vector import VectorEnv
from selfplay import checkpoint, worker
from selfplay import config as configuration
from selfplay.config import Config
from selfplay.errors import CheckpointError, UserError
from selfplay.league import roles
from selfplay.league.store import Player, Store
from selfplay.matches import MAIN
from selfplay.part_play import Seated
from selfplay.parts import Part, policy_of, split
from selfplay.players import PolicyPlayer
from selfplay.run_directory import RunDirectory
from selfplay.weights import by_part, load_weights
from selfplay.worker import BOT_PREFIX, RANDOM, is_bot

HUMAN = "human"
FORMS = "a run directory, DIR:PLAYER, a checkpoint, random, bot:NAME or human"

POLICY_PREFIX = "policy:"  # of the policy's arrays among the learner's
NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Contestant:
    """Someone that `play` was given."""

    text: str  # as it was typed
    label: str  # for reports: also says which weights of a run these are
    bot: str | None = None  # "random" or "bot:NAME"
    config: Config | None = None  # of the run that it comes from
    weights: Mapping[str, np.ndarray] | None = None  # by parameter name

    @property
    def is_human(self) -> bool:
        return self.bot is None and self.weights is None


def find(text: str) -> Contestant:
    """The contestant that a word of the command line means."""
    if text == HUMAN:
        return Contestant(text, text)
    if is_bot(text):
        return Contestant(text, text, bot=text)
    path = Path(text)
    if (path / checkpoint.MANIFEST).is_file() or path.parent.name == "checkpoints":
        return _from_checkpoint(text, path)
    if path.is_dir():
        return _newest(text, RunDirectory.open(path))
    for k, letter in enumerate(text):
        if letter == ":" and Path(text[:k]).is_dir():
            return _member(text, RunDirectory.open(text[:k]), text[k + 1 :])
    words = [RANDOM, HUMAN, BOT_PREFIX]
    close = difflib.get_close_matches(text, words, n=1)
    near = f"; nearest: {close[0]}" if close else ""
    folder, colon, player = text.rpartition(":")
    missing = f"no run directory {folder}, asked for its {player}" if colon else f"no run directory {text}"
    raise UserError(f"{missing}{near}; a player is {FORMS}")


def _from_checkpoint(text: str, path: Path) -> Contestant:
    """The policy in a checkpoint's folder, built as the run around it says."""
    path = path.resolve()
    run = path.parents[1]
    if path.parent.name != "checkpoints" or not (run / "config.toml").is_file():
        raise CheckpointError(
            f"{text} lies outside its run, whose config.toml says how to build the policy; "
            "give the checkpoint as RUN/checkpoints/iteration-N"
        )
    return Contestant(text, text, config=RunDirectory.open(run).config, weights=_weights(path))


def _weights(path: Path) -> dict[str, np.ndarray]:
    """The main learner's arrays in a checkpoint, by parameter name."""
    return _policy(checkpoint.load(path)[0].get("learner", {}))


def _policy(learner: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The policy's arrays among those of a learner."""
    return {
        name.removeprefix(POLICY_PREFIX): array
        for name, array in learner.items()
        if name.startswith(POLICY_PREFIX)
    }


def _newest(text: str, run: RunDirectory) -> Contestant:
    """The policy in the run's newest checkpoint; before there is one, its newest past self."""
    path = checkpoint.newest(run.checkpoints)
    if path is not None:
        return Contestant(text, f"{text} ({path.name})", config=run.config, weights=_weights(path))
    with Store(run.league, readonly=True) as store:
        past = [player.name for player in store.players() if player.kind == "snapshot"]
        if not past:
            raise UserError(f"{run.path} has neither a checkpoint nor a past self yet: train it for longer")
        return Contestant(text, f"{text} ({past[-1]})", config=run.config, weights=store.weights(past[-1]))


def _member(text: str, run: RunDirectory, name: str) -> Contestant:
    """A player of the run's league."""
    if name == MAIN:
        return _newest(text, run)
    with Store(run.league, readonly=True) as store:
        players = {player.name: player for player in store.players()}
        if name not in players:
            raise UserError(f"{run.path} has no player {name!r}{_known(name, list(players))}")
        if players[name].kind == "bot":
            return Contestant(text, text, bot=name, config=run.config)
        if players[name].kind == "learning":
            return _exploiter(text, run, name, players)
        return Contestant(text, text, config=run.config, weights=store.weights(name))


def _exploiter(text: str, run: RunDirectory, name: str, players: Mapping[str, Player]) -> Contestant:
    """An exploiter that learns, as it was in the run's newest checkpoint."""
    slot = name.partition(".")[0]
    frozen = [each for each in players if each.startswith(f"{name}-")]
    instead = f"; play {run.path}:{frozen[-1]} instead" if frozen else ""
    lives = roles.lives(slot, (each for each, player in players.items() if player.kind == "learning"))
    if name != lives[-1]:
        successor = lives[lives.index(name) + 1]
        raise UserError(f"{text} gave way to {successor} and is kept as its past selves alone{instead}")
    path = checkpoint.newest(run.checkpoints)
    arrays = checkpoint.load(path)[0] if path else {}
    learner = arrays.get(f"{checkpoint.prefix(slot)}learner")
    if path is None or learner is None or checkpoint.iteration_of(path) < players[name].iteration:
        raise UserError(f"{text} is not in the run's newest checkpoint{instead}")
    return Contestant(text, f"{text} ({path.name})", config=run.config, weights=_policy(learner))


def past_selves(text: str, number: int) -> list[Contestant]:
    """So many of the main learner's snapshots in a run directory, evenly spaced in time."""
    if not (Path(text) / "config.toml").is_file():
        raise UserError(f"{text} is no run directory, whose past selves could be taken")
    run = RunDirectory.open(text)
    with Store(run.league, readonly=True) as store:
        names = [player.name for player in store.players() if player.role == "main" and player.weights]
    if not names:
        raise UserError(f"{text} has no past self yet: train it for longer")
    chosen = np.unique(np.linspace(0, len(names) - 1, number).round().astype(int))
    return [_member(f"{text}:{names[k]}", run, names[k]) for k in chosen]


def _known(name: str, names: list[str]) -> str:
    """The nearest right spelling and, in part where they are many, all that there are."""
    close = difflib.get_close_matches(name, names, n=1)
    half = NAMES_SHOWN // 2
    shown = names if len(names) <= NAMES_SHOWN else [*names[:half], "...", *names[-half:]]
    return f"{f'; nearest: {close[0]}' if close else ''}; it has {', '.join(shown)}"


def games(
    contestants: Sequence[Contestant], env_id: str | None, kwargs: Mapping[str, Any]
) -> tuple[configuration.EnvConfig, ...]:
    """Each one's game: of its run, or the first run's, or env_id; `kwargs` go over those of the runs.

    They are one game by name; their arguments may differ (`selfplay.views`).
    """
    of_runs = [
        (player.text, configuration.EnvConfig(id=env.id, kwargs=env.kwargs | dict(kwargs)))
        for player in contestants
        if player.config is not None
        for env in [player.config.env]
    ]
    if not of_runs:
        if env_id is None:
            raise UserError("which game? No player comes from a run: name the game by --env ID")
        return (configuration.EnvConfig(id=env_id, kwargs=dict(kwargs)),) * len(contestants)
    first, game = of_runs[0]
    if env_id not in (None, game.id):
        raise UserError(f"--env {env_id} is not the game of {first}, which plays {game.id}")
    for text, other in of_runs:
        if other.id != game.id:
            raise UserError(f"they play different games: {first} {game.id}, {text} {other.id}")
    own = dict(of_runs)
    return tuple(own.get(player.text, game) for player in contestants)


def common_game(
    contestants: Sequence[Contestant], env_id: str | None, kwargs: Mapping[str, Any]
) -> configuration.EnvConfig:
    """The one game that all of them play, arguments included."""
    each = games(contestants, env_id, kwargs)
    first = next((k for k, player in enumerate(contestants) if player.config is not None), 0)
    for player, game in zip(contestants, each, strict=True):
        if game != each[first]:
            raise UserError(
                f"they play {game.id} with different arguments: {contestants[first].text} "
                f"{each[first].kwargs}, {player.text} {game.kwargs}; "
                "set those that differ by --env.kwargs.KEY VALUE"
            )
    return each[first]


def common_parts(contestants: Sequence[Contestant], env: VectorEnv) -> tuple[Part, ...]:
    """Parts of the seats as fine as every contestant's own."""
    return split(env, [side.config.policy.per for side in contestants if side.config is not None])


def seat(contestant: Contestant, env: VectorEnv, parts: Sequence[Part], *, greedy: bool) -> Seated:
    """The bot or the policies, ready to play these parts of the game."""
    assert not contestant.is_human
    if contestant.bot is not None:
        return worker.make_bot(contestant.bot, env, parts)
    config = contestant.config
    assert config is not None
    assert contestant.weights is not None
    policies = worker.make_policies(config, env, 0)
    try:
        for policy, weights in zip(
            policies.values(), by_part(contestant.weights, list(policies)), strict=True
        ):
            load_weights(policy, weights)
    except RuntimeError as error:
        cause = str(error).splitlines()[-1].strip().rstrip(".")
        raise UserError(f"{contestant.label} does not fit {env.id}: {cause}") from error
    players = [PolicyPlayer(policy, greedy=greedy) for policy in policies.values()]
    own = worker.make_parts(config, env)
    return tuple(players[policy_of(part, own)] for part in parts)
