"""Mistakes of the user: reported as one clear line, exit code 2, never a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can mend; the message says what and how."""


class ConfigError(UserError):
    """A key or a value of the configuration: names the key, the value and what is allowed."""


class CheckpointError(UserError):
    """A checkpoint that cannot be used: names it, the cause and the newest good one."""
