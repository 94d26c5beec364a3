"""Past selves, whom to meet next, and how strong everyone is."""

from selfplay.league.errors import LeagueError
from selfplay.league.league import League
from selfplay.league.ratings import Rating
from selfplay.league.store import Player, Store

__all__ = ["League", "LeagueError", "Player", "Rating", "Store"]
