"""The tests' own Ray cluster, for what RLlib and Tune do not do without one."""

from tests.engine.conftest import cluster  # noqa: F401
