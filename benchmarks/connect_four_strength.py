"""How well a player plays Connect Four, on two scales that others can reproduce.

    python -m benchmarks.connect_four_strength PLAYER [--games 200] [--mcts 100 1000] [--positions 2000]

PLAYER is what `play` takes. It meets OpenSpiel's MCTS in its C++ version (UCT with c = 2, one random rollout
for each simulation, proven wins and losses backed up, nothing kept between moves), each beginning half of
the matches. And its moves are compared with those of BitBully, a solver that knows the score of every
position: who wins and how soon.

N positions to judge, R rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from envs.connect_four import CELLS, COLUMNS, one_ply
from envs.vector import Tree, VectorEnv
from selfplay import contestants, worker
from selfplay.cli import guarded
from selfplay.config import Config, EnvConfig
from selfplay.draws import Draws, generators
from selfplay.errors import UserError
from selfplay.evaluate import SLOTS, Evaluation, evaluate, rotations, score_interval
from selfplay.options import Parser
from selfplay.parts import split
from selfplay.players import NO_STATE, BotPlayer, Decision, Player
from selfplay.rollout import Matches

GAME = "connect_four"
UCT_C = 2.0
MAX_MEMORY_MB = 1000
PLIES = ((0, 9), (10, 19), (20, CELLS - 1))
"""Discs on the board in the parts of a match that are told apart."""

FULL = np.iinfo(np.int64).min
"""In place of the score of a column that is full."""


class MctsPlayer:
    """OpenSpiel's Monte Carlo tree search: UCT with one uniformly random rollout for each simulation.

    Every move is a new search, from draws that depend on the generator given to `act` alone. It plays the
    child visited most often, or one proven best. OpenSpiel's columns are numbered as ours.
    Source: Kocsis & Szepesvári 2006; Winands et al. 2008 for the proven values (solve=True).
    """

    state_shape = NO_STATE
    extras: tuple[str, ...] = ()

    def __init__(self, simulations: int) -> None:
        try:
            import pyspiel
        except ModuleNotFoundError as error:
            raise UserError(
                'MCTS is OpenSpiel\'s: pip install -c constraints.txt -e ".[openspiel]"'
            ) from error
        self._pyspiel = pyspiel
        self._game = pyspiel.load_game(GAME)
        self._simulations = simulations

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        seeds = (each.integers(2**31, size=2).tolist() for each in generators(rng, len(is_first)))
        rows = zip(obs[""], mask[""], seeds)
        action = np.array([self._search(board, legal, *seeds) for board, legal, seeds in rows], np.int64)
        return Decision({"": action}, None, None, state)

    def _search(self, board: np.ndarray, legal: np.ndarray, search_seed: int, rollout_seed: int) -> int:
        """The column to play on board [2, 6, 7], where legal [7]."""
        state = self._game.new_initial_state(_as_struct(board))
        assert state.legal_actions() == np.flatnonzero(legal).tolist()
        bot = self._pyspiel.MCTSBot(
            game=self._game,
            evaluator=self._pyspiel.RandomRolloutEvaluator(n_rollouts=1, seed=rollout_seed),
            uct_c=UCT_C,
            max_simulations=self._simulations,
            max_memory_mb=MAX_MEMORY_MB,
            solve=True,
            seed=search_seed,
            verbose=False,
        )
        return int(bot.step(state))


def _as_struct(board: np.ndarray) -> dict[str, Any]:
    """OpenSpiel's description of a match in mid-play, from board [2, 6, 7]; x began, the bottom row leads."""
    own, other = ("x", "o") if board.sum() % 2 == 0 else ("o", "x")
    cells = np.where(board[0], own, np.where(board[1], other, "."))
    return {"board": cells.tolist(), "current_player": own, "is_terminal": False, "winner": ""}


class Solver:
    """BitBully with its book of all positions of 12 discs: perfect scores of moves.

    A score is positive for the side that wins, 0 for a draw, and larger the sooner it is won or the later it
    is lost: winning with the disc number 43 - 2s or 44 - 2s of the match has score s.
    """

    def __init__(self) -> None:
        try:
            from bitbully import BitBully, Board
        except ModuleNotFoundError as error:
            raise UserError(
                'the solver is BitBully: pip install -c constraints.txt -e ".[eval]"; or --positions 0'
            ) from error
        self._bitbully, self._board = BitBully(opening_book="12-ply-dist"), Board

    def scores(self, boards: np.ndarray) -> np.ndarray:
        """Scores [N, 7] of the columns for the side to act on boards [N, 2, 6, 7]; FULL where one is full."""
        distinct, index = np.unique(boards, axis=0, return_inverse=True)
        table = np.full((len(distinct), COLUMNS), FULL)
        for row, board in zip(table, distinct):
            for column, score in self._bitbully.score_all_moves(self._native(board)).items():
                row[column] = score
        return table[index.reshape(-1)]

    def _native(self, board: np.ndarray) -> Any:
        """BitBully's board, on which 1 began; its first row is the top one."""
        own, other = (1, 2) if board.sum() % 2 == 0 else (2, 1)
        return self._board.from_array((own * board[0] + other * board[1])[::-1].tolist())


class WatchedDecisions:
    """A game that notes what one player decides, in matches that each have their slot.

    decides [B, A] bool tells which seats are that player's.
    """

    def __init__(self, env: VectorEnv, decides: np.ndarray) -> None:
        self._env = env
        self._decides = decides
        self.noted: list[
            tuple[np.ndarray, np.ndarray, np.ndarray]
        ] = []  # slot [R], obs [R, 2, 6, 7], action [R]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, actions: tuple[Tree, ...]) -> None:
        game, seat = np.nonzero(self._env.to_act & self._decides)
        obs, action = self._env.groups[0].obs[""], actions[0][""]
        self.noted.append((game, obs[game, seat], action[game, seat]))
        self._env.step(actions)


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions of one player, each from a match of its own, in which it met itself or one_ply.

    A greedy player meets, as itself, the policy that samples.
    """

    obs: np.ndarray  # [N, 2, 6, 7]
    action: np.ndarray  # [N]
    itself: np.ndarray  # [N] bool, met itself

    @property
    def ply(self) -> np.ndarray:
        """Discs on the board [N]."""
        return self.obs.sum(axis=(1, 2, 3))

    @property
    def mask(self) -> np.ndarray:
        """Legal columns [N, 7]."""
        return self.obs[:, :, -1].sum(axis=1) == 0


def draw_decisions(
    env: VectorEnv, player: Player, rival: Player, *, seed: np.random.SeedSequence
) -> tuple[np.ndarray, np.ndarray]:
    """One decision of the player from each of B matches, uniformly among those it made there.

    Gives obs [B, 2, 6, 7] and action [B]. The player begins half of the matches; where it is its own rival,
    both seats decide for it. Independent matches make independent decisions, as their interval supposes.
    """
    match_seed, draw_seed = seed.spawn(2)
    lineups = rotations(env.teams, env.num_games)
    watched = WatchedDecisions(env, (lineups.table == 0) | (rival is player))
    matches = Matches(watched, split(env, ["group"]), match_seed, cyclic=False)
    matches.assign(lineups, {"0": (player,), "1": (rival,)})
    matches.play_all()
    game, obs, action = (np.concatenate(parts) for parts in zip(*watched.noted))
    order = np.lexsort((np.random.default_rng(draw_seed).random(len(game)), game))
    chosen = order[np.flatnonzero(np.diff(game[order], append=-1))]  # the last of each match
    return obs[chosen], action[chosen]


@dataclass(frozen=True, slots=True)
class Quality:
    """How many of some moves are perfect."""

    mover: str
    where: str  # which positions
    positions: int
    keeps_outcome: float | None  # share that keep the win, or else the draw; any move where all lose
    keeps_outcome_ci95: tuple[float, float] | None
    best: float | None  # share that win soonest, keep the draw, or lose latest
    best_ci95: tuple[float, float] | None


def qualities(
    decisions: Decisions, scores: np.ndarray, label: str, seed: np.random.SeedSequence
) -> list[Quality]:
    """The player's moves and, at the same positions, those of one_ply and the mean over all legal ones.

    The outcome is at stake where some legal move gives it away; in a lost position none can.
    """
    highest = scores.max(axis=1, keepdims=True)
    legal = scores != FULL  # [N, 7]
    keeps = legal & (np.sign(scores) == np.sign(highest))
    bot = one_ply({"": decisions.obs}, {"": decisions.mask}, np.random.default_rng(seed))[""]
    chances = {label: np.eye(COLUMNS)[decisions.action]}  # [N, 7] how likely each move is
    chances.setdefault("bot:one_ply", np.eye(COLUMNS)[bot])
    chances.setdefault("random", legal / legal.sum(axis=1, keepdims=True))
    parts = [*_parts(decisions), ("outcome at stake", (legal & ~keeps).any(axis=1))]
    return [
        _quality(
            mover,
            where,
            (chance * keeps).sum(axis=1)[chosen],
            (chance * (scores == highest)).sum(axis=1)[chosen],
        )
        for mover, chance in chances.items()
        for where, chosen in parts
    ]


def _parts(decisions: Decisions) -> Iterator[tuple[str, np.ndarray]]:
    """Positions that are told apart: a name and which they are, [N] bool."""
    ply = decisions.ply
    yield "all", np.ones(len(ply), bool)
    for low, high in PLIES:
        yield f"ply {low}-{high}", (low <= ply) & (ply <= high)
    yield "against one_ply", ~decisions.itself
    yield "against itself", decisions.itself


def _quality(mover: str, where: str, keeps: np.ndarray, best: np.ndarray) -> Quality:
    """keeps, best [N]: the probability that the move is so."""
    if len(keeps) == 0:
        return Quality(mover, where, 0, None, None, None, None)
    shares = [float(share.mean()) for share in (keeps, best)]
    first, second = (score_interval(share, len(keeps)) for share in shares)
    return Quality(mover, where, len(keeps), shares[0], first, shares[1], second)


@dataclass(frozen=True, slots=True)
class Strength:
    """What was found about a player."""

    player: str
    greedy: bool
    seed: int
    mcts: dict[int, Evaluation]  # by simulations
    distinct_positions: int
    moves: list[Quality]


def measure(
    word: str, *, games: int, mcts: Sequence[int], positions: int, seed: int, greedy: bool
) -> Strength:
    """How strong the player that `word` means is."""
    torch.set_num_threads(1)
    side = contestants.find(word)
    if side.is_human:
        raise UserError("human: people are not measured; play random bot:one_ply, a run or a checkpoint")
    game = contestants.common_game([side], GAME, {})
    opponents = {n: MctsPlayer(n) for n in mcts}
    solver = Solver() if positions else None
    env = _game(game, 1)
    parts = split(env, ["group"])
    (player,), (sampling,) = (contestants.seat(side, env, parts, greedy=how) for how in (greedy, False))
    results = {
        simulations: evaluate(
            _game(game, min(games, SLOTS)), parts, [(player,), (opponent,)], games=games, seed=seed
        )
        for simulations, opponent in opponents.items()
    }
    if solver is None:
        return Strength(side.label, greedy, seed, results, 0, [])
    *seeds, bot_seed = np.random.SeedSequence(seed).spawn(3)
    # A greedy player's matches against itself would all be the same one.
    rivals = (BotPlayer(one_ply), sampling if greedy else player)
    drawn = [
        draw_decisions(_game(game, positions // 2), player, rival, seed=own_seed)
        for rival, own_seed in zip(rivals, seeds)
    ]
    obs, action = (np.concatenate(arrays) for arrays in zip(*drawn))
    decisions = Decisions(obs, action, np.arange(positions) >= positions // 2)
    moves = qualities(decisions, solver.scores(obs), side.label, bot_seed)
    return Strength(side.label, greedy, seed, results, len(np.unique(obs, axis=0)), moves)


def _game(game: EnvConfig, num_games: int) -> VectorEnv:
    return worker.make_game(Config(env=game), num_games)


def report(strength: Strength) -> str:
    """The findings as lines for a person."""
    how = "greedy" if strength.greedy else "sampling"
    lines = [f"{strength.player}, {how}, seed {strength.seed}"]
    for simulations, result in strength.mcts.items():
        assert result.mean_score is not None
        lines.append(
            f"against MCTS of {simulations} simulations: "
            f"score {_share(result.mean_score, result.score_ci95)} in {result.games} matches, "
            f"{result.wins} won, {result.draws} drawn, {result.losses} lost"
        )
    if strength.moves:
        lines.append(f"\n{'moves of':13}{'positions':17}{'N':>5}  {'keep the outcome':22}best by score")
        lines += [
            f"{_mover(row.mover, strength):13}{row.where:17}{row.positions:5}  "
            f"{_share(row.keeps_outcome, row.keeps_outcome_ci95):22}{_share(row.best, row.best_ci95)}"
            for row in strength.moves
        ]
        lines.append(f"\n{strength.distinct_positions} of the positions are distinct")
    return "\n".join(lines)


def _mover(name: str, strength: Strength) -> str:
    return "player" if name == strength.player else name


def _share(mean: float | None, interval: tuple[float, float] | None) -> str:
    if mean is None or interval is None:
        return "-"
    return f"{mean:.3f} ({interval[0]:.3f}, {interval[1]:.3f})"


def main(argv: Sequence[str] | None = None) -> int:
    """`connect_four_strength ARGV`; returns the exit code."""
    return guarded(_run, list(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    for name, divisor in (("games", 2), ("positions", 4)):
        number = getattr(options, name)
        if number % divisor:
            near = math.ceil(number / divisor) * divisor
            raise UserError(f"--{name} {number} must be a multiple of {divisor}, such as {near}")
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is not the result
        strength = measure(
            options.player,
            games=options.games,
            mcts=options.mcts,
            positions=options.positions,
            seed=options.seed,
            greedy=options.greedy,
        )
    print(json.dumps(asdict(strength), allow_nan=False) if options.json else report(strength))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.connect_four_strength",
        description="How well PLAYER plays Connect Four: its score against OpenSpiel's MCTS, and how many of "
        "its moves are perfect by the solver BitBully.",
    )
    parser.add_argument("player", metavar="PLAYER", help=f"{contestants.FORMS.rpartition(' or ')[0]}")
    parser.add_argument(
        "--games", metavar="N", type=whole(2), default=200, help="matches against each MCTS (default: 200)"
    )
    parser.add_argument(
        "--mcts",
        metavar="N",
        type=whole(1),
        nargs="*",
        default=[100, 1000],
        help="simulations for each move of MCTS, of one opponent each; none: no matches (default: 100 1000)",
    )
    parser.add_argument(
        "--positions",
        metavar="N",
        type=whole(0),
        default=2000,
        help="decisions given to the solver, half each from matches against bot:one_ply and against itself "
        "(which samples, even with --greedy), one of each match; 0: none (default: 2000)",
    )
    parser.add_argument("--seed", metavar="S", type=whole(0), default=0, help="the same seed gives the same")
    parser.add_argument(
        "--greedy", action="store_true", help="policies take their likeliest action instead of sampling"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def whole(low: int) -> Callable[[str], int]:
    """argparse's type of integers of at least `low`."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low:
            raise ValueError(text)
        return value

    parse.__name__ = f"whole number >= {low}"  # argparse names it: "invalid ... value: '0'"
    return parse


if __name__ == "__main__":
    sys.exit(main())
