"""A contestant as a player that searches, one for each seat."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from envs.vector import VectorEnv
from selfplay import contestants, worker
from selfplay.config import Config, EnvConfig
from selfplay.contestants import Contestant
from selfplay.errors import UserError
from selfplay.part_play import Seated
from selfplay.parts import Part, split
from selfplay.players import Player, PolicyPlayer
from selfplay.search.player import Searcher, SearchPlayer
from selfplay.search.worlds import Simulator

SLOTS = 256
"""Imagined matches that are stepped at once."""


def seat_by_seat(env: VectorEnv) -> tuple[Part, ...]:
    """A part for each seat: who searches must know where it sits."""
    parts = split(env, ["seat"])
    return tuple(sorted(parts, key=lambda part: int(part.seats[0])))


def check_side(contestant: Contestant, simulations: int) -> None:
    """Raises UserError unless the contestant is a policy."""
    if contestant.weights is None:
        raise UserError(
            f"--search {simulations}: it is A that searches, and {contestant.label} is no policy; "
            "A must be a run directory, DIR:PLAYER or a checkpoint"
        )


def seat(
    contestant: Contestant,
    game: EnvConfig,
    env: VectorEnv,
    parts: Sequence[Part],
    *,
    simulations: int,
    greedy: bool,
) -> Seated:
    """The contestant's policies with a search, ready to play these parts, each a seat.

    In imagined matches its own policies sit on all seats. env is asked for nothing but its layout.
    """
    check_side(contestant, simulations)
    assert contestant.config is not None
    seated = contestants.seat(contestant, env, parts, greedy=greedy)
    policies = [player for player in seated if isinstance(player, PolicyPlayer)]
    simulator = Simulator(worker.make_game(Config(env=game), SLOTS), policies)
    gamma = [contestant.config.ppo.gamma] * len(policies)
    return tuple(Searcher(simulator, simulations, gamma, greedy=greedy).players)


def warn_of_unsearched(player: Player) -> None:
    """Say on stderr how many decisions were left to the policy alone, if any."""
    assert isinstance(player, SearchPlayer)
    searcher = player.searcher
    if searcher.unsearched:
        print(
            f"--search: {searcher.unsearched} of {searcher.decisions} decisions were left to the policy "
            "alone, as no imagined match agreed with what had been seen",
            file=sys.stderr,
        )
