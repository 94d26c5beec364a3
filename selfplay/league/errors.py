"""What the league reports to the user."""

from __future__ import annotations

from selfplay.errors import UserError


class LeagueError(UserError):
    """The league's files or results cannot be used: names the file or the player, and the remedy."""
