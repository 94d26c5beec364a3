"""`selfplay league-sim`: matchmakers on games whose answer is known, in seconds.

A learner takes small steps of improvement against the opponents that a matchmaker draws from its past
selves. Scores between players are exact; only the start and the draws are random. S seeds are played side by
side, D numbers make a policy, N past selves, K opponents drawn, T iterations.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from selfplay.cli import guarded
from selfplay.errors import UserError
from selfplay.league import matchmaking, nash, quality
from selfplay.league.matchmaking import Field
from selfplay.options import Parser

NUM_SEEDS = 5
ITERATIONS = 500
SNAPSHOT_EVERY = 10  # iterations
NUM_OPPONENTS = 16  # drawn in an iteration
MATCHES = 10  # with each that is drawn, for the quality scores
QUALITY_LR = 0.01
TAIL = 10  # the mean of the last 1 / TAIL of the iterations is reported

WITHOUT_SCORES = ("latest", "uniform", "nash")
"""Matchmakers that ask nothing of the learner: their answer holds until somebody joins."""

RPS = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
RPS_STEP, RPS_ENTROPY = 0.5, 0.15
DISC_STEP, DISC_DECAY = 0.2, 0.3
SKILL_STEP = 0.1


@dataclass(frozen=True, slots=True)
class Game:
    """A symmetric zero-sum game between policies [D], and how a policy is improved in it."""

    measure: str  # what `distance` is
    start: Callable[[np.random.Generator], np.ndarray]  # -> [D]
    advantage: Callable[[np.ndarray, np.ndarray], np.ndarray]  # [S, D] over [S, N, D] -> [S, N], in [-1, 1]
    improved: Callable[[np.ndarray, np.ndarray], np.ndarray]  # [S, D] against [S, K, D] -> [S, D]
    distance: Callable[[np.ndarray], np.ndarray]  # [S, D] policies, or means of mixtures of them -> [S]


def _rps_start(rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.ones(3))


def _rps_advantage(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.einsum("sd,snd->sn", ones @ RPS, others)


def _rps_improved(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A step of mirror ascent on the payoff and an entropy bonus.

    log p <- (1 - step * entropy) log p + step * (A q),  up to a constant, q the mean of the others
    """
    logits = (1 - RPS_STEP * RPS_ENTROPY) * np.log(ones) + RPS_STEP * others.mean(axis=1) @ RPS.T
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def _rps_distance(ones: np.ndarray) -> np.ndarray:
    """What the best response wins; 0 for a third each, 1 for a pure strategy."""
    return np.max(ones @ RPS.T, axis=1)


def _disc_start(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return 0.5 * np.array([np.cos(angle), np.sin(angle)])


def _turned(points: np.ndarray) -> np.ndarray:
    """Points [..., 2], a right angle ahead: what wins most against them."""
    return np.stack([-points[..., 1], points[..., 0]], axis=-1)


def _disc_advantage(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """v over w: v . turned(w). Source: the disc game of Balduzzi et al. 2019, arXiv:1901.08106."""
    return np.einsum("sd,snd->sn", ones, _turned(others))


def _disc_improved(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A step up the gradient with decay towards the middle, kept in the unit disc."""
    points = (1 - DISC_STEP * DISC_DECAY) * ones + DISC_STEP * _turned(others.mean(axis=1))
    return points / np.maximum(1.0, np.linalg.norm(points, axis=1, keepdims=True))


def _disc_distance(ones: np.ndarray) -> np.ndarray:
    """What the best response wins: the distance from the middle."""
    return np.linalg.norm(ones, axis=1)


def _skill_start(rng: np.random.Generator) -> np.ndarray:
    return 0.1 * rng.normal(size=1)


def _skill_advantage(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """2 P - 1 for P(win) = 1 / (1 + exp(other - one))."""
    return np.tanh((ones - others[..., 0]) / 2)


def _skill_improved(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A step up the gradient P (1 - P): little is learned from who is far weaker, or far stronger."""
    win = (1 + _skill_advantage(ones, others)) / 2
    return ones + SKILL_STEP * np.mean(win * (1 - win), axis=1, keepdims=True)


def _skill(ones: np.ndarray) -> np.ndarray:
    return ones[:, 0]


GAMES: Mapping[str, Game] = {
    "rock_paper_scissors": Game("exploitability", _rps_start, _rps_advantage, _rps_improved, _rps_distance),
    "disc": Game("exploitability", _disc_start, _disc_advantage, _disc_improved, _disc_distance),
    "transitive": Game("skill", _skill_start, _skill_advantage, _skill_improved, _skill),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a simulation needs beside its game and its matchmaker."""

    iterations: int = ITERATIONS
    seed: int = 0
    window: float = 0.0
    power: float = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one matchmaker did in one game, by seed."""

    game: str
    matchmaker: str
    measure: str
    curve: np.ndarray  # [T, S] the learner's measure after each iteration
    learner: np.ndarray  # [S] its mean over the last tenth
    pool: np.ndarray  # [S] measure of the Nash mixture of the past selves at the end


class _Pools:
    """The past selves of every seed: policies [S, N, D], scores among them [S, N, N], qualities."""

    def __init__(self, first: np.ndarray) -> None:
        self.policy = first[:, None]
        self.payoff = np.full((len(first), 1, 1), 0.5)
        self.quality = [np.zeros(1) for _ in first]

    def add(self, policy: np.ndarray, score: np.ndarray) -> None:
        """policy [S, D] joins; score [S, N] against those who are there."""
        even = np.full((len(policy), 1, 1), 0.5)
        self.payoff = np.block([[self.payoff, 1 - score[:, :, None]], [score[:, None], even]])
        self.policy = np.concatenate([self.policy, policy[:, None]], axis=1)
        self.quality = [np.append(known, quality.joining(known)) for known in self.quality]

    def field(self, seed: int, score: np.ndarray) -> Field:
        """What the matchmaker of one seed sees; score [N]."""
        return Field(score, self.quality[seed], self.payoff[seed], ("main",) * len(score))


def simulate(name: str, matchmaker: str, settings: Settings) -> Result:
    """Play a game's learner against what a matchmaker draws, for all seeds."""
    game = GAMES[name]
    sequences = np.random.SeedSequence(settings.seed).spawn(NUM_SEEDS)
    generators = [np.random.default_rng(sequence) for sequence in sequences]
    policy = np.stack([game.start(rng) for rng in generators])
    pools = _Pools(policy)
    curve = np.zeros((settings.iterations, NUM_SEEDS))
    choice: list[tuple[float, np.ndarray]] = []
    for iteration in range(settings.iterations):
        score = (1 + game.advantage(policy, pools.policy)) / 2
        if iteration % SNAPSHOT_EVERY == 0 or matchmaker not in WITHOUT_SCORES:
            fields = [pools.field(seed, score[seed]) for seed in range(NUM_SEEDS)]
            choice = [_choice(matchmaker, field, settings) for field in fields]
        drawn = np.stack([_draw(*choice[seed], generators[seed]) for seed in range(NUM_SEEDS)])
        if matchmaker == "quality":
            pools.quality = [_after(*seed) for seed in zip(pools.quality, drawn, score)]
        met = np.take_along_axis(pools.policy, np.maximum(drawn, 0)[..., None], axis=1)
        policy = game.improved(policy, np.where(drawn[..., None] < 0, policy[:, None], met))
        curve[iteration] = game.distance(policy)
        if (iteration + 1) % SNAPSHOT_EVERY == 0:
            pools.add(policy, (1 + game.advantage(policy, pools.policy)) / 2)
    mixture = np.stack([nash.meta_strategy(payoff) for payoff in pools.payoff])
    pool = game.distance(np.einsum("sn,snd->sd", mixture, pools.policy))
    learner = curve[-max(settings.iterations // TAIL, 1) :].mean(axis=0)
    return Result(name, matchmaker, game.measure, curve, learner, pool)


def _choice(matchmaker: str, field: Field, settings: Settings) -> tuple[float, np.ndarray]:
    """Share of self-play and probabilities [N] of the past selves."""
    if matchmaker == matchmaking.ALPHASTAR:
        return matchmaking.main_agent(field)
    return 0.0, matchmaking.probabilities(matchmaker, field, window=settings.window, power=settings.power)


def _draw(self_play: float, probability: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices [K] of past selves, -1 for the learner itself."""
    chance = np.concatenate([[self_play], (1 - self_play) * probability])
    # The last bound is left out: rounding may leave it below a draw.
    return np.searchsorted(np.cumsum(chance)[:-1], rng.random(NUM_OPPONENTS), side="right") - 1


def _after(known: np.ndarray, drawn: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Qualities [N] after the expected wins over those drawn [K]."""
    wins = np.bincount(drawn, minlength=len(known)) * score * MATCHES
    return quality.after_wins(known, wins, lr=QUALITY_LR)


def main(argv: Sequence[str] | None = None) -> int:
    """`selfplay league-sim ARGV`; returns the exit code."""
    return guarded(_league_sim, list(sys.argv[1:] if argv is None else argv))


def _league_sim(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    games = _known(options.game, tuple(GAMES), "game")
    matchmakers = _known(options.matchmaker, matchmaking.NAMES, "matchmaker")
    settings = Settings(options.iterations, options.seed, options.window, options.power)
    _check(settings)
    if options.plot is not None:
        _need_matplotlib()
    results = [simulate(game, matchmaker, settings) for game in games for matchmaker in matchmakers]
    if options.plot is not None:
        plot(results, options.plot)
    print(json.dumps(_as_json(results, settings), allow_nan=False) if options.json else text(results))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="selfplay league-sim",
        description="Matchmakers on games whose answer is known: which of them converge? Exploitability is "
        "what a best response wins, 0 at best; skill is better the higher.",
    )
    parser.add_argument("--game", nargs="+", metavar="NAME", help=f"some of {', '.join(GAMES)} (all)")
    parser.add_argument(
        "--matchmaker", nargs="+", metavar="NAME", help=f"some of {', '.join(matchmaking.NAMES)} (all)"
    )
    parser.add_argument(
        "--iterations", type=int, default=ITERATIONS, metavar="N", help=f"steps of learning ({ITERATIONS})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the five runs of each (0)")
    parser.add_argument("--window", type=float, default=0.0, metavar="X", help="of uniform, as league.window")
    parser.add_argument(
        "--power", type=float, default=1.0, metavar="X", help="of pfsp_hard, as league.pfsp_power"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the curves, a .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _known(given: list[str] | None, names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The names asked for, each once; all of them without."""
    for name in given or ():
        if name not in names:
            raise UserError(f"--{what}: no {what} {name!r}; there are {', '.join(names)}")
    return tuple(dict.fromkeys(given)) if given else names


def _check(settings: Settings) -> None:
    if settings.iterations < 1:
        raise UserError(f"--iterations {settings.iterations}: must be at least 1")
    if settings.seed < 0:
        raise UserError(f"--seed {settings.seed}: must not be negative")
    if not 0 <= settings.window <= 1:
        raise UserError(f"--window {settings.window}: must be between 0 and 1")
    if not 0 < settings.power < np.inf:
        raise UserError(f"--power {settings.power}: must be positive")


def text(results: Sequence[Result]) -> str:
    """A table for people: means over the seeds and their standard deviations."""
    lines = []
    for game in dict.fromkeys(result.game for result in results):
        rows = [result for result in results if result.game == game]
        lines += ["", f"{game:<24}{rows[0].measure + ' of the learner':>30}{'of the pool (Nash)':>24}"]
        for row in rows:
            learner, pool = (f"{ends.mean():.3f} ± {ends.std():.3f}" for ends in (row.learner, row.pool))
            lines.append(f"  {row.matchmaker:<22}{learner:>30}{pool:>24}")
    return "\n".join(lines[1:])


def _as_json(results: Sequence[Result], settings: Settings) -> dict[str, object]:
    rows = [
        {
            "game": result.game,
            "matchmaker": result.matchmaker,
            "measure": result.measure,
            "learner": result.learner.tolist(),
            "learner_mean": float(result.learner.mean()),
            "learner_std": float(result.learner.std()),
            "pool": result.pool.tolist(),
            "pool_mean": float(result.pool.mean()),
            "pool_std": float(result.pool.std()),
        }
        for result in results
    ]
    return {**asdict(settings), "num_seeds": NUM_SEEDS, "results": rows}


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install matplotlib") from error


def plot(results: Sequence[Result], path: str) -> None:
    """One panel for a game: every matchmaker's mean over the seeds, and the range of the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    games = list(dict.fromkeys(result.game for result in results))
    figure = Figure(figsize=(4.6 * len(games), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = dict(zip(games, figure.subplots(1, len(games), squeeze=False)[0]))
    colors = {name: f"C{k}" for k, name in enumerate(matchmaking.NAMES)}
    for result in results:
        panel, color = axes[result.game], colors[result.matchmaker]
        smooth = _smoothed(result.curve)
        steps = np.arange(len(smooth)) + len(result.curve) - len(smooth) + 1
        style = "--" if result.matchmaker == "latest" else "-"  # it may lie on that of nash
        panel.plot(
            steps,
            smooth.mean(axis=1),
            style,
            color=color,
            label=result.matchmaker,
            zorder=2 + (style == "--"),
        )
        panel.fill_between(steps, smooth.min(axis=1), smooth.max(axis=1), color=color, alpha=0.15, lw=0)
        panel.set(title=result.game.replace("_", " "), xlabel="iteration", ylabel=result.measure)
        if result.measure == "exploitability":
            panel.set_yscale("log")
    handles, labels = axes[games[0]].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:  # ValueError: a format that matplotlib does not write
        raise UserError(f"--plot {path}: {error}") from error


def _smoothed(curve: np.ndarray) -> np.ndarray:
    """Means of 20 iterations, or of all where there are fewer; [T, S] -> [T - 19, S]."""
    width = min(20, len(curve))
    total = np.cumsum(np.concatenate([np.zeros((1, curve.shape[1])), curve]), axis=0)
    return (total[width:] - total[:-width]) / width
