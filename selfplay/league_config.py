"""The section [league] of a configuration."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfplay.config_problems import nearest, shown
from selfplay.sections import Count, NonNegativeCount, Positive, Section, Unit

PLAIN = ("quality", "latest", "uniform", "pfsp_hard", "pfsp_variance", "nash")
"""Matchmakers that a mix may hold."""

Held = Literal["team", "role", "seat"]
"""What one player holds in a match: a whole team, the seats of one role in it, or one seat."""


class LeagueConfig(Section):
    """Whom the policy plays."""

    self_play: Unit = Field(
        default=0.8, description="share of matches against the current self; alphastar has a share of its own"
    )
    matchmaker: Literal[
        "quality", "latest", "uniform", "pfsp_hard", "pfsp_variance", "nash", "alphastar", "mix"
    ] = Field(
        default="quality",
        description="which past selves are met: those that were hard to beat (quality, OpenAI Five), the "
        "newest, any of a window, by their present win rate (pfsp), by a Nash equilibrium of all, as "
        "AlphaStar's main agents, or as league.mix says",
    )
    mix: dict[str, Any] = Field(
        default={}, description="matchmaker -> its weight, where league.matchmaker is mix"
    )
    window: Unit = Field(
        default=0.0, description="uniform: past selves that joined before this share of them are not met"
    )
    pfsp_power: Positive = Field(
        default=1.0,
        description="pfsp_hard: exponent p of (1 - win rate)^p; higher: the hardest more often; "
        "alphastar has its own, 2",
    )
    lineup: Held = Field(
        default="team",
        description="what the learner holds in a match with past selves: a team; or the seats of one role in "
        "a team, or one seat, with past selves as its team mates too",
    )
    opponents: Count = Field(
        default=2, description="different past selves drawn for each worker and iteration"
    )
    snapshot_iterations: Count = Field(default=20, description="iterations between snapshots of the policy")
    pool_size: Count = Field(
        default=500,
        description="past selves that may be met; beyond it the one that is beaten most surely leaves, and "
        "stays in the league's files",
    )
    quality_lr: Positive = Field(
        default=0.01, description="step of the opponents' quality scores (OpenAI Five)"
    )
    payoff_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.99, description="weight of a match in the present win rate, with each later one of the pair"
    )
    winners: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="whether the better return wins a match: off: only mean returns are kept, nobody is "
        "rated; auto: on in zero-sum games",
    )
    rating_games: Count = Field(
        default=64, description="matches of a snapshot against each anchor, at most; see rating_share"
    )
    rating_share: Unit = Field(
        default=0.02,
        description="decisions of rating matches, as a share of those learned from since the last snapshot: "
        "where matches are long or snapshots frequent they play fewer than rating_games, but 16 at least",
    )
    anchors: list[str] = Field(
        default=[],
        description='fixed opponents that ratings are measured against, such as "bot:one_ply"; '
        "random always belongs",
    )
    main_exploiters: NonNegativeCount = Field(
        default=0,
        description="learners beside the main one that are after its present weaknesses (AlphaStar)",
    )
    league_exploiters: NonNegativeCount = Field(
        default=0, description="learners beside the main one that are after weaknesses of all past selves"
    )
    exploiter_iterations: Count = Field(
        default=200, description="iterations after which an exploiter is frozen, and may begin anew"
    )
    exploiter_win_rate: Unit = Field(
        default=0.7, description="an exploiter that wins more is frozen after half of exploiter_iterations"
    )
    exploiter_reset: Unit = Field(
        default=0.25,
        description="probability that a frozen league exploiter begins anew; main ones always do",
    )
    evaluators: NonNegativeCount = Field(
        default=0,
        description="rollouts set aside for matches of frozen players whose payoff is known least; nobody "
        "learns from them",
    )
    evaluation_games: Count = Field(default=64, description="matches of each evaluator in an iteration")

    @model_validator(mode="after")
    def _somebody_holds_the_rest(self) -> LeagueConfig:
        if self.lineup != "team" and self.self_play == 1 and self.matchmaker != "alphastar":
            raise ValueError(
                f'league.lineup="{self.lineup}", but league.self_play=1: no match has a past self in it; '
                "give a smaller share, as in --league.self-play 0.5"
            )
        return self

    @model_validator(mode="after")
    def _mix_is_of_matchmakers(self) -> LeagueConfig:
        for name, weight in self.mix.items():
            if name not in PLAIN:
                raise ValueError(
                    f"league.mix: no {name}{nearest(name, [*PLAIN])}; there are {', '.join(PLAIN)}"
                )
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                raise ValueError(f"league.mix.{name}={shown(weight)} is not allowed; it must be a number > 0")
        if (self.matchmaker == "mix") != bool(self.mix):
            raise ValueError(
                f'league.matchmaker="{self.matchmaker}", but league.mix={shown(self.mix)}: give weights, '
                "as in --league.mix.quality 0.5 --league.mix.uniform 0.5, with the matchmaker mix only"
            )
        return self
