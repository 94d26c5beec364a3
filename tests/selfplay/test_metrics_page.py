"""docs/metrics.md explains the metrics that a run writes: all of them, and no others."""

import re
from pathlib import Path

from selfplay import config, train
from selfplay.run_directory import RunDirectory

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_names_what_a_run_writes(tmp_path):
    few = {
        "rollout.num_workers": 0, "rollout.num_games": 16, "league.rating_games": 4,
        "league.snapshot_iterations": 1, "stop.iterations": 6,
    }  # fmt: skip
    assert train.run(config.load("connect_four", few), tmp_path / "run", resume=False) == 0
    written = set().union(*RunDirectory.open(tmp_path / "run").metrics())
    written = {re.sub("^league/win_rate/.*", "league/win_rate/NAME", name) for name in written}
    explained = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), flags=re.MULTILINE))
    assert explained == written
