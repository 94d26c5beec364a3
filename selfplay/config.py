"""The configuration of a run: typed, frozen, validated once here and trusted everywhere else.

A file in `configs/` or anywhere else is TOML with the sections below. TOML has no null, so that the
text "none" stands for None where a key allows it.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from selfplay.config_problems import NONE, allowed, divisors, explain, listed, nearest, shown
from selfplay.errors import ConfigError
from selfplay.league_config import LeagueConfig
from selfplay.sections import (
    Count,
    NonNegative,
    OptionalCount,
    OptionalPositive,
    Positive,
    Section,
    Unit,
    integral,
    none,
)

__all__ = [
    "CONFIGS", "CheckpointConfig", "Config", "EnvConfig", "LeagueConfig", "PPOConfig", "PolicyConfig",
    "RolloutConfig", "StopConfig", "bundled_names", "check_lanes", "dump", "find", "is_python_game", "leaves",
    "load", "num_cores", "read", "resolve", "resolve_num_workers",
]  # fmt: skip

CONFIGS = Path(__file__).parents[1] / "configs"
AUTO = "auto"
PYTHON_GAMES = ("pettingzoo", "openspiel", "gymnasium", "rllib")
"""Sources of games that are Python objects, one for each match."""
FEWEST_OBJECTS, MOST_OBJECTS = 32, 256
"""Of them at once, under "auto"."""


class EnvConfig(Section):
    """The game."""

    id: Annotated[str, Field(min_length=1)] = Field(
        description="game: a native name (`selfplay envs` lists them) or python:PACKAGE.MODULE:FACTORY"
    )
    kwargs: dict[str, Any] = Field(default={}, description="arguments of the game's constructor")
    train_kwargs: dict[str, Any] = Field(
        default={}, description="the same in training only, over kwargs; play and ratings go without"
    )

    @field_validator("kwargs", "train_kwargs")
    @classmethod
    def _finite(cls, kwargs: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name, value in kwargs.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"env.{info.field_name}.{name}={value} is not allowed; it must be finite")
        return kwargs

    max_failures: Annotated[int, Field(ge=0), BeforeValidator(integral)] = Field(
        default=100,
        description="times that the game's own code may raise (its matches are dropped) before the run ends",
    )


class PolicyConfig(Section):
    """The network."""

    per: Literal["group", "role", "team", "seat"] = Field(
        default="group",
        description="seats that share a policy: all with equal spaces (group), or of those only such as have "
        "one role (the seat's name without its number), one team, or each its own (seat)",
    )
    encoder: list[Count] = Field(default=[128], description="widths of the encoder's hidden layers")
    cnn: Literal["small", "deep"] = Field(
        default="small", description="encoder of image observations: three convolutions, or residual blocks"
    )
    normalize: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="running normalisation of float observations; auto: of those not bound to within ±1",
    )
    previous: bool = Field(default=False, description="the seat's previous action and reward as inputs")
    core: Literal["lstm", "lstm_layer_norm", "gru", "none"] = Field(
        default="lstm", description="memory: an LSTM, with layer norm, a GRU, or none (feed-forward)"
    )
    hidden_size: Count = Field(default=128, description="width of the core's state")
    num_layers: Count = Field(default=1, description="core layers on top of each other")
    critic: Literal["shared", "separate", "privileged"] = Field(
        default="shared",
        description="where values come from: the policy's own network, a separate one, or a separate one "
        "that sees the game's full state too",
    )
    autoregressive: bool = Field(
        default=False, description="each part of an action depends on the parts chosen before it"
    )
    uses: dict[str, dict[str, list[int]]] = Field(
        default={},
        description="action leaf -> {primary leaf -> choices that use it}: elsewhere it is not learned from",
    )
    points: dict[str, str] = Field(
        default={}, description="action leaf -> the observed entity set that its choices point to"
    )
    parts: dict[str, dict[str, Any]] = Field(
        default={}, description="part of the seats -> those of these keys that differ for its policy"
    )

    @field_validator("parts")
    @classmethod
    def _parts_are_networks(cls, parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, keys in parts.items():
            _check_part(name, keys)
        return parts

    def of(self, part: str) -> PolicyConfig:
        """The network of one part of the seats."""
        return PolicyConfig.model_validate(self.model_dump() | self.parts.get(part, {}) | {"parts": {}})


def _check_part(name: str, keys: dict[str, Any]) -> None:
    """Refuse what a part's network cannot have."""
    own = [key for key in PolicyConfig.model_fields if key not in ("per", "parts")]
    for key, value in keys.items():
        if key not in own:
            raise ValueError(
                f"policy.parts.{name}: unknown key {key}{nearest(key, own)}; a part may have {', '.join(own)}"
            )
        try:
            PolicyConfig.model_validate({key: value})
        except ValidationError as error:
            schema = PolicyConfig.model_json_schema()["properties"][key]
            raise ValueError(
                f"policy.parts.{name}.{key}={shown(value)} is not allowed; it must be {allowed(schema)}"
            ) from error


class RolloutConfig(Section):
    """How matches are played."""

    num_workers: Annotated[int, Field(ge=0), BeforeValidator(integral)] | Literal["auto"] = Field(
        default="auto",
        description="processes that play; 0: in the driver's process; auto: the most that this "
        "machine has cores for and that divide num_games",
    )
    num_games: Count = Field(
        default=1024,
        description="matches played at once, all workers together; left out or auto: 1024, or where every "
        "match is a Python object (pettingzoo, openspiel, gymnasium, rllib) 512 by the seats: 256, 128, 64 "
        "or 32",
    )
    fragment_length: Count = Field(
        default=16, description="decisions of a lane in one batch, and the LSTM's backpropagation length"
    )

    staleness: Annotated[int, Field(ge=0, le=1), BeforeValidator(integral)] | Literal["auto"] = Field(
        default="auto",
        description="versions that the weights that play may be behind: 0: play and learning take turns; "
        "1: the next batch is played during learning, and data/staleness held at 1 in the mean; auto: "
        "whichever a trial in the run finds faster, in one process 0",
    )

    inference: Literal["worker", "node"] = Field(
        default="worker",
        description="who decides: each worker with a network of its own, or one server for all workers of a "
        "machine, on a GPU of its own where device is cuda",
    )

    @model_validator(mode="after")
    def _workers_share_games(self) -> RolloutConfig:
        workers = self.num_workers
        if self.inference == "node" and workers == 0:
            raise ValueError(
                'rollout.inference="node" but rollout.num_workers=0: one process needs no server; '
                "give --rollout.inference worker, or workers"
            )
        if isinstance(workers, int) and workers and self.num_games % workers:
            raise ValueError(
                f"rollout.num_workers={workers} does not divide rollout.num_games={self.num_games}; "
                f"these do: {listed([0, *divisors(self.num_games)])}"
            )
        return self


class PPOConfig(Section):
    """How the policy learns."""

    gamma: Unit = Field(default=0.99, description="discount per decision")
    gae_lambda: Unit = Field(default=0.95, description="lambda of generalised advantage estimation")
    clip: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="PPO clips the probability ratio to 1 ± this"
    )
    dual_clip: Annotated[Annotated[float, Field(gt=1)] | None, BeforeValidator(none)] = Field(
        default=3.0, description="bound of the ratio where the advantage is negative; none: off"
    )
    epochs: Count = Field(default=1, description="passes over each batch")
    num_minibatches: Count = Field(
        default=4, description="parts that a batch's lanes are split into; must divide the lanes"
    )
    lr: Positive = Field(default=5e-4, description="Adam's learning rate at the start")
    lr_final: NonNegative = Field(default=5e-5, description="learning rate after anneal_steps")
    entropy: NonNegative = Field(default=0.03, description="entropy bonus at the start")
    entropy_final: NonNegative = Field(default=0.01, description="entropy bonus after anneal_steps")
    anneal_steps: OptionalCount = Field(
        default=None,
        description="agent steps over which lr and entropy go linearly from first to final; "
        "none: as long as the run is set to take when it begins, constant if that is open",
    )
    value_coef: NonNegative = Field(default=0.5, description="weight of the value loss")
    max_grad_norm: OptionalPositive = Field(
        default=0.5, description="clip of the gradient's global norm; none: off"
    )
    grad_clip_sigma: OptionalPositive = Field(
        default=None, description="clip of each parameter's gradient at ± this many sqrt(Adam's v); none: off"
    )
    normalize_advantage: bool = Field(default=True, description="advantages to mean 0, deviation 1")
    normalize_value: bool = Field(default=False, description="value targets to running mean 0, deviation 1")
    normalize_reward: bool = Field(
        default=False, description="divide rewards by the running deviation of the return"
    )
    advantage: Literal["gae", "vtrace"] = Field(
        default="gae", description="advantage estimator; vtrace corrects for stale data"
    )
    magnet_coef: NonNegative = Field(
        default=0.0, description="weight of the KL divergence to the magnet policy; 0: off"
    )
    magnet_iterations: Count = Field(
        default=100, description="iterations between moves of the magnet to the current policy"
    )
    autocast: bool = Field(default=False, description="learn in bfloat16; on CUDA, or on a CPU with AMX")


class StopConfig(Section):
    """When the run ends: at whichever comes first; without any it runs until it is stopped."""

    agent_steps: OptionalCount = Field(
        default=None, description="end after this many agent steps, of all resumptions together"
    )
    seconds: OptionalPositive = Field(
        default=None, description="end after this many seconds of training, of all resumptions together"
    )
    iterations: OptionalCount = Field(
        default=None, description="end after this many iterations, of all resumptions together"
    )


class CheckpointConfig(Section):
    """When the run is saved; also at its end."""

    seconds: OptionalPositive = Field(default=60.0, description="save every so many seconds; none: off")
    iterations: OptionalCount = Field(default=None, description="save every so many iterations; none: off")
    keep: Count = Field(default=3, description="newest checkpoints that are kept")


class Config(Section):
    """One run."""

    env: EnvConfig
    policy: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
    ppo: PPOConfig = PPOConfig()
    league: LeagueConfig = LeagueConfig()
    stop: StopConfig = StopConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(integral)] = Field(
        default=0, description="seed of every draw of the run"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the policy learns; auto: cuda if there is one"
    )
    num_learners: Count | Literal["auto"] = Field(
        default="auto",
        description="processes that learn, each from its share of every batch, on a GPU of its own "
        "where device is cuda; no more than rollout workers; auto: one on a GPU, among several machines or "
        "where every match is a Python object, else as many as workers, up to 8",
    )

    @model_validator(mode="after")
    def _learners_share_workers(self) -> Config:
        workers, learners = self.rollout.num_workers, self.num_learners
        if isinstance(workers, int) and isinstance(learners, int) and learners > max(workers, 1):
            raise ValueError(
                f"num_learners={self.num_learners}, but rollout.num_workers={workers}: every learner takes "
                f"the batches of workers of its own; give --num-learners {max(workers, 1)}, or more workers"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fit_num_games(cls, table: Any) -> Any:
        """rollout.num_games with "auto" made a number."""
        rollout, env = (table.get(key) for key in ("rollout", "env")) if isinstance(table, dict) else (0, 0)
        if not isinstance(rollout, dict | None) or (rollout or {}).get("num_games", AUTO) != AUTO:
            return table
        id, kwargs = (env.get("id"), env.get("kwargs")) if isinstance(env, dict) else (None, None)
        num_games = _num_objects(str(id), kwargs) if is_python_game(str(id)) else 1024
        return table | {"rollout": (rollout or {}) | {"num_games": num_games}}


def load(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a file, or in `configs/` by its bare name, changed by `overrides`.

    overrides: value by dotted key ("ppo.lr", "env.kwargs.rows"). Raises ConfigError.
    """
    path = find(name_or_path)
    return resolve(read(path), overrides or {}, source=str(path))


def find(name_or_path: str | Path) -> Path:
    """The file that a bare name in `configs/`, or a path, means."""
    text = str(name_or_path)
    bundled = CONFIGS / f"{text}.toml"
    if Path(text).name == text and not text.endswith(".toml") and bundled.is_file():
        return bundled
    path = Path(text)
    if path.is_file():
        return path
    names = bundled_names()
    raise ConfigError(
        f"no config {text!r}: neither a file nor a name in configs/"
        f"{nearest(text, names)}; names: {', '.join(names)}"
    )


def bundled_names() -> list[str]:
    """Bare names of the files in `configs/`."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def read(path: Path) -> dict[str, Any]:
    """What a TOML file holds, not yet validated."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def resolve(table: Mapping[str, Any], overrides: Mapping[str, Any], *, source: str) -> Config:
    """Validate a table changed by overrides; `source` names the table in errors."""
    merged = _merge(table, overrides)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        schema = Config.model_json_schema()
        lines = dict.fromkeys(explain(problem, source, overrides, schema) for problem in error.errors())
        raise ConfigError("\n".join(lines)) from error


def dump(config: Config) -> str:
    """TOML that loads back equal; a None that is the default is left out."""
    table: dict[str, Any] = {}
    for key, value in config.model_dump().items():
        table[key] = _writable(type(config).model_fields[key].annotation, value)
    scalars = {key: value for key, value in table.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    return tomli_w.dumps(scalars | sections)


def leaves() -> Iterator[tuple[str, str, Any, str]]:
    """Every key: (dotted key, description, default or None where it must be given, what is allowed)."""
    definitions = Config.model_json_schema()["$defs"]
    for name, field in Config.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, Section)):
            schema = Config.model_json_schema()["properties"][name]
            yield name, field.description or "", field.default, allowed(schema)
            continue
        for key, leaf in model.model_fields.items():
            default = None if leaf.is_required() else leaf.default
            schema = definitions[model.__name__]["properties"][key]
            yield f"{name}.{key}", leaf.description or "", default, allowed(schema)


def is_python_game(env_id: str) -> bool:
    """Whether its matches are Python objects: slow to play, so that learning is a small part of the time."""
    return env_id.partition(":")[0] in PYTHON_GAMES


def _num_objects(env_id: str, kwargs: Any) -> int:
    """Matches at once, each a Python object, that have 512 seats together, or some fewer: what a tick and an
    iteration cost beside the game is shared by as many decisions, whatever the game.
    """
    import selfplay.rllib  # noqa: F401 (makes its games known by id)
    from envs.registry import make
    from envs.vector import GameError

    try:
        seats = len(make(env_id, 1, **(kwargs if isinstance(kwargs, dict) else {})).teams)
    except (ValueError, GameError):
        return MOST_OBJECTS  # whoever plays it says what is wrong
    fitting = min(max(512 // seats, FEWEST_OBJECTS), MOST_OBJECTS)
    return 1 << fitting.bit_length() - 1  # workers and minibatches divide a power of two


def resolve_num_workers(config: Config) -> int:
    """rollout.num_workers with "auto" made a number."""
    workers = config.rollout.num_workers
    if isinstance(workers, int):
        return workers
    return max(n for n in range(1, num_cores() + 1) if config.rollout.num_games % n == 0)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_lanes(config: Config, num_seats: int) -> None:
    """Refuse minibatches that do not divide the lanes of a batch: num_games x seats of a group."""
    games, parts = config.rollout.num_games, config.ppo.num_minibatches
    lanes = games * num_seats
    if lanes % parts:
        raise ConfigError(
            f"ppo.num_minibatches={parts} does not divide the {lanes} lanes of a batch "
            f"(rollout.num_games={games}); these do: {listed(divisors(lanes))}"
        )


def _merge(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for dotted, value in overrides.items():
        *sections, key = dotted.split(".")
        target = merged
        for section in sections:
            target[section] = dict(target[section]) if isinstance(target.get(section), dict) else {}
            target = target[section]
        target[key] = value
    return merged


def _writable(annotation: Any, value: Any) -> Any:
    if not (isinstance(annotation, type) and issubclass(annotation, Section)):
        return value
    fields = annotation.model_fields
    return {
        key: NONE if leaf is None else leaf
        for key, leaf in value.items()
        if leaf is not None or fields[key].default is not None
    }
