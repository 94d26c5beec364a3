"""`selfplay tournament DIR...`: a round robin between players of runs and bots, with ratings.

Every match is a function of the seed, the identities of its two players and its number alone: how the work
is cut, in which order and where it is played change nothing. Results are kept as they come, so that a
tournament that was stopped goes on, and one that grows plays only what is missing.
"""

from selfplay.tournament.command import main

__all__ = ["main"]
