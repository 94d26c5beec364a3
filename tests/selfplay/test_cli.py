import json
import subprocess
import sys
import types

import pytest

from envs.vector import GameError
from selfplay import cli, config, options
from selfplay.errors import UserError
from selfplay.run_directory import RunDirectory


@pytest.fixture
def trained(monkeypatch):
    """Calls of selfplay.train.run, which trains nothing."""
    calls = []

    def run(config, run_dir, resume):
        calls.append((config, run_dir, resume))
        return 0

    module = types.ModuleType("selfplay.train")
    module.run = run
    monkeypatch.setitem(sys.modules, "selfplay.train", module)
    monkeypatch.setattr("selfplay.train", module, raising=False)
    return calls


def refused(capsys, *argv):
    """The one line that a mistake prints."""
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def test_train_gives_configuration_and_folder(trained, tmp_path):
    argv = ["train", "connect_four", "--run-dir", str(tmp_path / "run"), "--rollout.num-workers", "2"]
    argv += ["--stop.agent-steps", "6e6", "--seed=7", "--ppo.autocast", "true", "--ppo.dual-clip", "none"]
    argv += ["--policy.encoder", "64", "32", "--league.anchors", "bot:one_ply", "bot:minimax"]
    assert cli.main(argv) == 0
    [(setting, path, resume)] = trained
    assert (path, resume) == (tmp_path / "run", False)
    assert (setting.rollout.num_workers, setting.stop.agent_steps, setting.seed) == (2, 6_000_000, 7)
    assert (setting.ppo.autocast, setting.ppo.dual_clip) == (True, None)
    assert setting.policy.encoder == [64, 32]
    assert setting.league.anchors == ["bot:one_ply", "bot:minimax"]


def test_values_of_options_are_what_they_look_like(trained):
    argv = ["--policy.encoder", "[64, 32]", "--rollout.num_workers", "auto", "--env.id", "123"]
    argv += ["--stop.seconds", "90", "--league.anchors"]
    assert cli.train_command(["connect_four", *argv]) == 0
    [(setting, _, _)] = trained
    assert setting.policy.encoder == [64, 32]
    assert setting.rollout.num_workers == "auto"
    assert setting.env.id == "123"
    assert setting.stop.seconds == 90.0
    assert setting.league.anchors == []


def test_arguments_of_the_game_are_read_as_toml(trained):
    argv = ["--env.kwargs.opening-plies", "4", "--env.kwargs.wrap=true", "--env.kwargs.map", "4x4"]
    argv += ["--env.kwargs.sizes", "[1, 2]", "--env.kwargs.offset", "-3", "--env.kwargs.name", '"7"']
    assert cli.main(["train", "default", "--env.id", "any", *argv]) == 0
    [(setting, _, _)] = trained
    assert setting.env.kwargs == {
        "opening_plies": 4, "wrap": True, "map": "4x4", "sizes": [1, 2], "offset": -3, "name": "7"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "prefix"),
    [(["connect_four"], "connect_four-"), (["default", "--env.id", "openspiel:go(size=5)"], "openspiel-go-")],
)
def test_a_new_run_is_named_after_its_configuration_or_game(trained, argv, prefix):
    assert cli.main(["train", *argv]) == 0
    [(_, path, _)] = trained
    assert path.parent.name == "runs"
    assert path.name.startswith(prefix)


def test_resume_keeps_the_configuration_but_for_its_end(trained, tmp_path):
    setting = config.load("connect_four", {"seed": 5})
    RunDirectory.create(tmp_path / "run", setting)
    argv = ["--resume", str(tmp_path / "run"), "--stop.agent-steps", "100", "--checkpoint.keep", "9"]
    assert cli.main(["train", *argv]) == 0
    [(resumed, path, resume)] = trained
    assert (path, resume) == (tmp_path / "run", True)
    assert resumed.stop.agent_steps == 100
    assert resumed.checkpoint.keep == 9
    assert resumed.model_copy(update={"stop": setting.stop, "checkpoint": setting.checkpoint}) == setting


def test_mistakes_of_resume(trained, tmp_path, capsys):
    assert f"no run directory {tmp_path / 'absent'}" in refused(
        capsys, "train", "--resume", str(tmp_path / "absent")
    )
    assert "not a run directory" in refused(capsys, "train", "--resume", str(tmp_path))
    RunDirectory.create(tmp_path / "run", config.load("connect_four"))
    resume = ["train", "--resume", str(tmp_path / "run")]
    assert "--ppo.num-minibatches cannot change" in refused(capsys, *resume, "--ppo.num-minibatches", "2")
    assert "leave out --run-dir" in refused(capsys, *resume, "--run-dir", "x")
    assert "leave out connect_four" in refused(capsys, *resume, "connect_four")
    assert trained == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "Give CONFIG, a TOML file or one of "),
        (["train", "conect_four"], "nearest: connect_four"),
        (["train", "connect_four", "--stop.agent-step", "5"], "step; nearest: --stop.agent-steps"),
        (["train", "connect_four", "--stop.agent-step=5"], "nearest: --stop.agent-steps"),
        (["train", "connect_four", "--lr", "5"], "unknown option --lr; nearest: --ppo.lr"),
        (["train", "connect_four", "--rundir", "5"], "unknown option --rundir; nearest: --run-dir"),
        (["train", "connect_four", "--xyzzy"], "unknown option --xyzzy; selfplay train --help lists them"),
        (["train", "connect_four", "--seed"], "--seed: expected one argument"),
        (["train", "connect_four", "--seed", "ten"], "seed='ten' is not allowed; it must be an integer >= 0"),
        (["train", "connect_four", "--seed", "1.5"], "seed=1.5 is not allowed; it must be an integer >= 0"),
        (["train", "connect_four", "--ppo.autocast", "yes"], "ppo.autocast='yes' is not allowed"),
        (["train", "connect_four", "--stop.iterations", "0"], "stop.iterations=0 is not allowed"),
        (["train", "connect_four", "--policy.encoder", "8", "x"], "policy.encoder[1]='x' is not allowed"),
        (["train", "connect_four", "twice"], "unexpected argument 'twice'"),
        (["train", "connect_four", "--env.kwargs.rows"], "--env.kwargs.rows needs a value"),
        (["trian"], "unknown command 'trian'; nearest: train"),
        (["envs", "--jsn"], "unknown option --jsn; nearest: --json"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(trained, capsys, argv, message):
    assert message in refused(capsys, *argv)
    assert trained == []


def test_several_mistakes_are_a_line_each(capsys):
    assert cli.main(["train", "connect_four", "--seed", "x", "--ppo.gamma", "3"]) == 2
    assert [line[:7] for line in capsys.readouterr().err.splitlines()] == ["error: "] * 2


def test_help_explains_every_key(capsys):
    assert cli.main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for key, description, _, _ in config.leaves():
        option = f"--{key.replace('_', '-')}.KEY" if key in options.TABLES else f"--{key.replace('_', '-')} "
        assert option in text
        assert description.split(";")[0] in text
    assert "--run-dir DIR" in text
    assert "--resume DIR" in text
    assert "(must be given)" in text


def test_help_after_a_configuration_shows_its_values(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('seed = 71\n[env]\nid = "100%"\nkwargs = {rows = 6}\n[policy]\nencoder = [7, 9]\n')
    assert cli.main(["train", str(path), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for value in ("71", "100%", "rows = 6", "7 9", "0.99"):
        assert f"(default: {value})" in text


def test_usage_without_a_command(capsys):
    assert cli.main([]) == 0
    assert "train CONFIG" in capsys.readouterr().out


def test_envs_lists_the_native_games(capsys):
    assert cli.main(["envs", "--json"]) == 0
    assert "connect_four" in json.loads(capsys.readouterr().out)["games"]
    assert cli.main(["envs"]) == 0
    assert "connect_four\n" in capsys.readouterr().out


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("which"), 2),
        (GameError("which"), 2),
        (FileNotFoundError(2, "No such file", "which"), 1),
        (FileNotFoundError("no name"), 1),
        (ValueError("ours"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(0), 0),
        (SystemExit(2), 2),
        (SystemExit(None), 0),
    ],
)
def test_exit_codes(capsys, error, code):
    assert cli.guarded(raising(error)) == code
    text = capsys.readouterr().err
    assert ("Traceback" in text) == (code == 1)
    assert ("error: which\n" in text) == (code == 2 and "which" in str(error))


def test_another_command_may_take_the_keys_too():
    parser = options.ConfigParser(prog="selfplay bench")
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse(["connect_four", "--json", "--rollout.num-games", "64"])
    assert parsed.config == "connect_four"
    assert parsed.overrides == {"rollout.num_games": 64}
    assert parsed.options.json


def shell(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_process_ends_with_the_code_and_no_traceback():
    command = [sys.executable, "-m", "selfplay", "train", "connect_four", "--seeed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: unknown option --seeed; nearest: --seed\n"


def test_help_loads_neither_torch_nor_ray():
    heavy = "{'torch', 'ray', 'numba', 'gymnasium', 'tensorboard'}"
    code = (
        "import sys\nfrom selfplay import cli\n"
        f"cli.main(['--help'])\ncli.main(['train', '--help'])\nsys.exit(len({heavy} & set(sys.modules)))"
    )
    assert shell(code).returncode == 0
