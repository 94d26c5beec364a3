"""`selfplay export`: a run's players as RLModules, and RLlib's own PPO with and against them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ray.rllib")
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from selfplay import cli, contestants, worker
from selfplay.errors import UserError
from selfplay.rllib import export
from selfplay.rllib.environment import GameEnv


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of Connect Four."""
    path = tmp_path_factory.mktemp("run") / "run"
    argv = ["connect_four", "--run-dir", str(path), "--rollout.num-workers", "0"]
    argv += ["--rollout.num-games", "64", "--policy.encoder", "16", "--policy.hidden-size", "16"]
    argv += ["--stop.iterations", "2", "--league.rating-games", "8", "--league.snapshot-iterations", "1"]
    assert cli.train_command(argv) == 0
    return path


def player_of(text):
    """A player as `play` seats it."""
    found = contestants.find(text)
    env = worker.make_game(found.config, 1)
    parts = contestants.common_parts([found], env)
    (player,) = contestants.seat(found, env, parts, greedy=True)
    return player


@pytest.mark.parametrize("name", ["", ":main-000001"])
def test_a_player_and_its_module_play_the_same_match(run, tmp_path, name, capsys):
    """Greedily, on our environment, each agent with its own recurrent state."""
    text, folder = f"{run}{name}", tmp_path / "module"
    assert export.main([text, "--to", "rllib", "--output", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    module, player = RLModule.from_checkpoint(folder), player_of(text)
    assert module.model_config["max_seq_len"] == 16
    env = GameEnv({"game": "connect_four"})
    obs, _ = env.reset(seed=0)
    layers, vectors, width = player.state_shape
    ours = {agent: np.full((layers, vectors, 1, width), 3, np.float32) for agent in env.agents}
    theirs = {agent: {"state": torch.from_numpy(module.get_initial_state()["state"])[None]} for agent in ours}
    first, over, decisions = dict.fromkeys(ours, True), False, 0
    while not over:
        ((agent, view),) = obs.items()
        seen, mask = view["observations"], view["action_mask"].astype(bool)
        decision = player.act(
            {"": seen[None]},
            {"": mask[None]},
            np.array([first[agent]]),
            ours[agent],
            np.random.default_rng(0),
        )
        batch = {
            Columns.OBS: {key: torch.from_numpy(part)[None, None] for key, part in view.items()},
            Columns.STATE_IN: theirs[agent],
        }
        out = module.forward_inference(batch)
        distribution = module.get_inference_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
        action = int(distribution.to_deterministic().sample()[0, 0])
        assert action == decision.action[""][0]
        assert float(distribution.logp(torch.tensor([[action]]))) == pytest.approx(decision.logp[0], abs=1e-5)
        assert module.compute_values(batch).item() == pytest.approx(decision.value[0], abs=1e-5)
        ours[agent], theirs[agent], first[agent] = decision.state, out[Columns.STATE_OUT], False
        obs, _, terminated, truncated, _ = env.step({agent: action})
        over, decisions = terminated["__all__"] or truncated["__all__"], decisions + 1
    assert decisions >= 7


def test_mistakes_are_one_line(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    wrong = {
        ("random", str(tmp_path / "new")): "random has no policy to export",
        (str(run), str(tmp_path / "full")): "already exists; name a new folder",
        (f"{run}:nobody", str(tmp_path / "new")): "has no player 'nobody'",
    }
    for (player, folder), message in wrong.items():
        with pytest.raises(UserError, match=message):
            export.main([player, "--to", "rllib", "--output", folder])
    with pytest.raises(UserError, match="--to onnx is not allowed"):
        export.main([str(run), "--to", "onnx", "--output", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_every_policy_of_a_player_is_a_folder(tmp_path, capsys):
    """A game whose seats have spaces of their own."""
    argv = [
        "default",
        "--env.id",
        "signalling",
        "--run-dir",
        str(tmp_path / "run"),
        "--league.rating-games",
        "2",
    ]
    argv += ["--rollout.num-workers", "0", "--rollout.num-games", "16", "--stop.iterations", "1"]
    argv += ["--policy.hidden-size", "8", "--policy.core", "gru"]
    assert cli.train_command(argv) == 0
    capsys.readouterr()
    argv = ["export", str(tmp_path / "run"), "--to", "rllib", "--output", str(tmp_path / "modules")]
    assert cli.main(argv) == 0
    folders = capsys.readouterr().out.split()
    env = GameEnv({"game": "signalling"})
    spaces = [(env.observation_spaces[agent], env.action_spaces[agent]) for agent in env.agents]
    modules = [RLModule.from_checkpoint(folder) for folder in folders]
    assert [(module.observation_space, module.action_space) for module in modules] == spaces
    weights = contestants.find(str(tmp_path / "run")).weights
    name = next(name for name in weights if name.endswith("output_weight") and Path(folders[1]).name in name)
    assert np.array_equal(modules[1].get_state()["policy.output_weight"], weights[name])


@pytest.mark.ray
@pytest.mark.slow
def test_ppo_trains_on_from_it_and_plays_against_it(run, tmp_path, cluster):
    """The learner goes on from our weights; the frozen opponent stays as it is; both remember."""
    folder = export.export(str(run), tmp_path / "module")[0]
    exported = RLModule.from_checkpoint(folder)
    weights = exported.get_state()
    config = (
        PPOConfig()
        .environment(GameEnv, env_config={"game": "connect_four"})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8, batch_mode="complete_episodes")
        .training(train_batch_size_per_learner=512, minibatch_size=None, num_epochs=1, lr=1e-3)
        .multi_agent(
            policies={"main", "frozen"},
            policies_to_train=["main"],
            policy_mapping_fn=lambda agent, episode, **kwargs: (
                "main" if (sum(episode.id_.encode()) + int(agent[-1])) % 2 else "frozen"
            ),
        )
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(
                rl_module_specs={name: RLModuleSpec.from_module(exported) for name in ("main", "frozen")}
            )
        )
    )
    algorithm = config.build_algo()
    try:
        for name in ("main", "frozen"):
            algorithm.restore_from_path(folder, component=f"learner_group/learner/rl_module/{name}")
            _same(algorithm.get_module(name).get_state(), weights)
        result = algorithm.train()
        # One update: before it the learner's distribution, unrolled from stored states over padded
        # sequences, must be the one that acted.
        main = result["learners"]["main"]
        assert abs(main["mean_kl_loss"]) < 1e-6
        assert np.isfinite(main["total_loss"])
        assert "total_loss" not in result["learners"]["frozen"]
        _same(algorithm.get_module("frozen").get_state(), weights)
        after = algorithm.get_module("main").get_state()
        assert not np.array_equal(after["policy.output_weight"], weights["policy.output_weight"])
        assert not np.array_equal(
            after["policy.core.hidden_weight.0"], weights["policy.core.hidden_weight.0"]
        )
        assert np.isfinite(algorithm.train()["learners"]["main"]["total_loss"])
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_the_pages_example_runs(run, tmp_path, cluster):
    page = (Path(__file__).parents[2] / "docs" / "rllib.md").read_text(encoding="utf-8")
    source = next(
        block for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "PPO" in block
    )
    folder = export.export(str(run), tmp_path / "module")[0]
    source = source.replace("/absolute/path/exported", str(folder)).replace(
        '.env_runners(batch_mode="complete_episodes")',
        '.env_runners(batch_mode="complete_episodes", num_env_runners=0)'
        ".training(train_batch_size_per_learner=128, minibatch_size=128, num_epochs=1)",
    )
    names: dict = {}
    exec(compile(source, "rllib.md", "exec"), names)
    try:
        frozen = names["algorithm"].get_module("frozen").get_state()
        _same(frozen, RLModule.from_checkpoint(folder).get_state())
    finally:
        names["algorithm"].stop()


def _same(one, two):
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
