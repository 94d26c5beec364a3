"""What training costs beside a game in Python: the bare game, our adapter, and training with it.

    python -m benchmarks.slow_games [GAME ...] [--seconds 4] [--rounds 3] [--num-games 512]

Three contestants in turn, each on every core, each measured in processes of its own:

- bare: one match in each process, played by the library's own interface, without wrappers that only
  check, its actions random and drawn beforehand where no mask forbids any;
- adapter: our vector game with its checks, as many matches as `default` gives a worker, random actions
  drawn outside the timed part;
- training: `default` on this game, an LSTM of 128 units, from lineups to published weights.

Counted are decisions a second of all seats, in training those of past selves too. A step is one move of
the game: of one seat, or of all at once. Loss is the share of the bare game's rate that training lacks.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from random import Random
from time import perf_counter
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import game_speed
from envs.registry import make
from selfplay import bench
from selfplay import config as configuration
from selfplay.config import Config, num_cores

GAMES = (
    "pettingzoo:pettingzoo.sisl.pursuit_v5",
    "pettingzoo:mpe2.simple_tag_v3",
    "pettingzoo:pettingzoo.classic.tictactoe_v3",
    "openspiel:yacht",
    "openspiel:leduc_poker",
    "gymnasium:LunarLander-v3",
    "gymnasium:CartPole-v1",
)
WARM_UP = 0.5
"""Seconds of play before a bare game is measured."""
NUM_DRAWN = 1009
"""Actions that are drawn beforehand, and played over and over."""


class Rate(NamedTuple):
    """What one process measured."""

    decisions: float  # a second
    steps: float  # a second; 0: not counted


# A bare game plays matches for ever, and yields the number of decisions of each step.


def _play_gymnasium(rest: str) -> Iterator[int]:
    import gymnasium

    env = gymnasium.make(rest, disable_env_checker=True)
    action = itertools.cycle([env.action_space.sample() for _ in range(NUM_DRAWN)])
    env.reset(seed=os.getpid())
    while True:
        _, _, terminated, truncated, _ = env.step(next(action))
        yield 1
        if terminated or truncated:
            env.reset()


def _play_pettingzoo(rest: str) -> Iterator[int]:
    from envs.pettingzoo_games import bare

    module = importlib.import_module(rest)
    if hasattr(module, "parallel_env"):
        return _play_parallel(bare(module.parallel_env()))
    return _play_in_turn(bare(module.env()), Random(os.getpid()))


def _play_parallel(env: Any) -> Iterator[int]:
    env.reset(seed=os.getpid())
    drawn = [
        {agent: env.action_space(agent).sample() for agent in env.possible_agents} for _ in range(NUM_DRAWN)
    ]
    action = itertools.cycle(drawn)
    while True:
        actions = next(action)
        if len(env.agents) < len(actions):
            actions = {agent: actions[agent] for agent in env.agents}
        env.step(actions)
        yield len(actions)
        if not env.agents:
            env.reset()


def _play_in_turn(env: Any, rng: Random) -> Iterator[int]:
    env.reset(seed=os.getpid())
    while True:
        for agent in env.agent_iter():
            obs, _, terminated, truncated, info = env.last()
            if terminated or truncated:
                env.step(None)
                continue
            mask = obs["action_mask"] if isinstance(obs, dict) else info.get("action_mask")
            space = env.action_space(agent)
            env.step(space.sample() if mask is None else rng.choice(mask.nonzero()[0]))
            yield 1
        env.reset()


def _play_openspiel(rest: str) -> Iterator[int]:
    import pyspiel

    from envs.openspiel import observer

    game, rng = pyspiel.load_game(rest), Random(os.getpid())
    observe, seats = observer(rest, game), range(game.num_players())
    while True:
        state = game.new_initial_state()
        while not state.is_terminal():
            if state.is_chance_node():
                state.apply_action(_drawn(state.chance_outcomes(), rng.random()))
            elif state.is_simultaneous_node():
                for seat in seats:
                    observe(state, seat)
                state.apply_actions([rng.choice(state.legal_actions(seat)) for seat in seats])
                yield len(seats)
            else:
                observe(state, state.current_player())
                state.apply_action(rng.choice(state.legal_actions()))
                yield 1


def _drawn(outcomes: list[tuple[int, float]], uniform: float) -> int:
    """The outcome [(action, probability)] that a uniform number in [0, 1) falls on."""
    for action, probability in outcomes:
        uniform -= probability
        if uniform < 0:
            return action
    return outcomes[-1][0]  # the probabilities' sum is rounded


BARE: dict[str, Callable[[str], Iterator[int]]] = {
    "gymnasium": _play_gymnasium,
    "pettingzoo": _play_pettingzoo,
    "openspiel": _play_openspiel,
}


def bare(config: Config, seconds: float) -> Rate:
    """The game alone, in this process."""
    source, _, rest = config.env.id.partition(":")
    play = BARE[source](rest)
    _count(play, WARM_UP)
    return _count(play, seconds)


def _count(play: Iterator[int], seconds: float) -> Rate:
    decisions = steps = 0
    start = perf_counter()
    while (spent := perf_counter() - start) < seconds:
        for number in itertools.islice(play, 8):
            decisions += number
            steps += 1
    return Rate(decisions / spent, steps / spent)


def adapter(config: Config, seconds: float) -> Rate:
    """A worker's share of the matches, in this process."""
    env = make(config.env.id, config.rollout.num_games // num_cores())
    return Rate(game_speed.measure(env, seconds), 0.0)


def training(config: Config, seconds: float) -> Rate:
    """Acted decisions of a run, whose workers are processes of their own."""
    measured = bench.measure(config, seconds)
    acted = sum(part.decisions for parts in measured.collected for part in parts)
    return Rate(acted / (measured.ended - measured.begun), 0.0)


CONTESTANTS: dict[str, Callable[[Config, float], Rate]] = {
    "bare": bare,
    "adapter": adapter,
    "training": training,
}


def measure(name: str, game: str, arguments: list[str]) -> Rate:
    """A contestant on every core: as many processes, or one that has them all for itself."""
    processes = 1 if name == "training" else num_cores()
    command = [sys.executable, "-m", "benchmarks.slow_games", game, "--only", name, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    rates = []
    for process in running:
        out, err = process.communicate()
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{err}")
        rates.append(Rate(*json.loads(out.splitlines()[-1])))
    return Rate(*map(sum, zip(*rates)))


def row(game: str, rates: dict[str, list[Rate]]) -> list[str]:
    """Medians of a game: of each contestant, and how they compare."""
    alone, wrapped, trained = (
        statistics.median(rate.decisions for rate in rates[name]) for name in CONTESTANTS
    )
    step = num_cores() / statistics.median(rate.steps for rate in rates["bare"])
    seats = statistics.median(rate.decisions / rate.steps for rate in rates["bare"])
    own = num_cores() / trained - num_cores() / alone
    return [
        game,
        f"{step * 1e6:,.0f}",
        f"{seats:.1f}",
        *(f"{rate:,.0f}" for rate in (alone, wrapped, trained)),
        f"{wrapped / alone:.2f}",
        f"{trained / alone:.2f}",
        f"{1 - trained / alone:.0%}",
        f"{own * 1e6:,.1f}",
    ]


COLUMNS = (
    "", "us a step", "decisions a step", "bare", "adapter", "training", "adapter / bare", "training / bare",
    "loss", "us a decision beside the game",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("games", nargs="*", metavar="GAME", default=GAMES)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, beside its warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-games", type=int, default=0, help="of all workers; 0: as `default` has it")
    parser.add_argument("--only", choices=CONTESTANTS, help="measure this in this process; print its rates")
    options = parser.parse_args()
    if options.only:
        overrides: dict[str, Any] = {"env.id": options.games[0]}
        if options.num_games:
            overrides["rollout.num_games"] = options.num_games
        config = configuration.load("default", overrides)
        print(json.dumps(CONTESTANTS[options.only](config, options.seconds)))
        return
    arguments = ["--seconds", str(options.seconds), "--num-games", str(options.num_games)]
    shown = Table(*COLUMNS, title=f"medians of {options.rounds}, {num_cores()} cores", title_justify="left")
    for column in shown.columns[1:]:
        column.justify = "right"
    for game in options.games:
        rates: dict[str, list[Rate]] = {name: [] for name in CONTESTANTS}
        for number, name in itertools.product(range(1, options.rounds + 1), CONTESTANTS):
            rates[name].append(measure(name, game, arguments))
            print(f"{game} {number} {name} {rates[name][-1].decisions:,.0f}", file=sys.stderr, flush=True)
        shown.add_row(*row(game, rates))
    Console(width=200).print(shown)


if __name__ == "__main__":
    main()
