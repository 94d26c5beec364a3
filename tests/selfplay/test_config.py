import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay import config
from selfplay.errors import ConfigError

ENV = {"env": {"id": "connect_four"}}


def refusal(table, overrides=None):
    with pytest.raises(ConfigError) as caught:
        config.resolve(table, overrides or {}, source="run.toml")
    return str(caught.value)


def test_a_bare_name_is_a_bundled_file():
    assert config.load("connect_four") == config.load(config.CONFIGS / "connect_four.toml")
    assert config.load("connect_four").env.id == "connect_four"


@pytest.mark.parametrize("name", [name for name in config.bundled_names() if name != "default"])
def test_every_bundled_file_is_sound(name):
    config.load(name)


def test_the_default_file_serves_any_game_and_names_the_missing_one():
    assert config.load("default", {"env.id": "openspiel:kuhn_poker"}).env.id == "openspiel:kuhn_poker"
    with pytest.raises(ConfigError, match=r"default\.toml: env\.id is missing; .* --env\.id"):
        config.load("default")


def test_a_path_is_read_and_overrides_win(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('seed = 3\n[env]\nid = "kuhn"\nkwargs = {rows = 6}\n[ppo]\nlr = 1e-3\n')
    loaded = config.load(path, {"ppo.lr": 2e-3, "env.kwargs.columns": 7, "stop.iterations": 5})
    assert (loaded.seed, loaded.ppo.lr, loaded.stop.iterations) == (3, 2e-3, 5)
    assert loaded.env.kwargs == {"rows": 6, "columns": 7}


def test_a_name_that_is_nothing_gets_the_nearest_one():
    with pytest.raises(ConfigError, match=r"'conect_four'.*nearest: connect_four"):
        config.load("conect_four")


def test_files_that_cannot_be_read_are_named(tmp_path):
    torn = tmp_path / "torn.toml"
    torn.write_text("[ppo\nlr = 1")
    with pytest.raises(ConfigError, match=r"torn\.toml is not valid TOML: .*line 1"):
        config.load(torn)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml is not valid TOML"):
        config.load(binary)
    with pytest.raises(ConfigError, match="no config"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ppo": {"num_minibatch": 4}}, "unknown key ppo.num_minibatch; nearest: ppo.num_minibatches"),
        ({"ppo": {"lrr": 4}}, "unknown key ppo.lrr; nearest: ppo.lr"),
        ({"rollout": {"lr": 4}}, "unknown key rollout.lr; nearest: ppo.lr"),
        ({"lr": 4}, "unknown key lr; nearest: ppo.lr"),
        ({"pp0": {"lr": 4}}, "unknown key pp0; nearest: ppo"),
        ({"sed": 4}, "unknown key sed; nearest: seed"),
        ({"stop": {"xyzzy": 4}}, "unknown key stop.xyzzy; stop has agent_steps, seconds, iterations"),
        ({"xyzzy": 4}, "unknown key xyzzy; there are env, policy,"),
    ],
)
def test_an_unknown_key_gets_file_section_and_nearest_spelling(table, message):
    assert refusal(ENV | table).startswith(f"run.toml: {message}")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ppo.gamma", 1.5, "ppo.gamma=1.5 is not allowed; it must be a number >= 0 and <= 1"),
        ("ppo.lr", 0.0, "ppo.lr=0.0 is not allowed; it must be a number > 0"),
        ("ppo.lr", "fast", "ppo.lr='fast' is not allowed; it must be a number > 0"),
        ("ppo.lr", True, "ppo.lr=true is not allowed; it must be a number > 0"),
        ("ppo.epochs", 0, "ppo.epochs=0 is not allowed; it must be an integer >= 1"),
        ("ppo.epochs", True, "ppo.epochs=true is not allowed; it must be an integer >= 1"),
        ("ppo.epochs", 1.5, "ppo.epochs=1.5 is not allowed; it must be an integer >= 1"),
        ("ppo.dual_clip", 1, "ppo.dual_clip=1 is not allowed; it must be a number > 1 or none"),
        ("ppo.autocast", 1, "ppo.autocast=1 is not allowed; it must be true or false"),
        ("ppo.advantage", "gea", "ppo.advantage='gea' is not allowed; it must be one of gae, vtrace"),
        (
            "policy.core",
            "rnn",
            "policy.core='rnn' is not allowed; it must be one of lstm, lstm_layer_norm, gru, none",
        ),
        ("policy.encoder", [64, 0], "policy.encoder[1]=0 is not allowed; it must be an integer >= 1"),
        ("policy.encoder", 64, "policy.encoder=64 is not allowed; it must be a list, each an integer >= 1"),
        (
            "rollout.num_workers",
            -1,
            "rollout.num_workers=-1 is not allowed; it must be an integer >= 0 or auto",
        ),
        ("rollout.num_workers", "all", "rollout.num_workers='all' is not allowed; it must be"),
        ("stop.seconds", float("inf"), "stop.seconds=inf is not allowed; it must be a number > 0 or none"),
        ("stop.agent_steps", float("nan"), "stop.agent_steps=nan is not allowed; it must be an integer"),
        ("seed", -1, "seed=-1 is not allowed; it must be an integer >= 0 and < 2^63"),
        ("device", "gpu", "device='gpu' is not allowed; it must be one of auto, cpu, cuda"),
        ("env.id", "", "env.id='' is not allowed; it must be non-empty text"),
        ("league.anchors", [3], "league.anchors[0]=3 is not allowed; it must be text"),
        ("env.kwargs", 3, "env.kwargs=3 is not allowed; it must be a table of keys"),
    ],
)
def test_an_impossible_value_names_key_value_and_what_is_allowed(key, value, message):
    *section, name = key.split(".")
    table = {section[0]: ENV.get(section[0], {}) | {name: value}} if section else {name: value}
    assert refusal(ENV | table).startswith(f"run.toml: {message}")
    assert refusal(ENV, {key: value}).startswith(f"--{key.replace('_', '-')}: {message}")


def test_a_value_where_a_section_belongs():
    assert refusal(ENV | {"ppo": 3}) == "run.toml: ppo=3 is not allowed; it must be a table of keys"


def test_several_mistakes_are_a_line_each():
    lines = refusal(ENV | {"ppo": {"gamma": 2, "lrr": 1}, "seed": -1}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("run.toml: ") for line in lines)


def test_workers_must_divide_the_games():
    message = refusal(ENV | {"rollout": {"num_games": 12, "num_workers": 5}})
    assert message == (
        "run.toml: rollout.num_workers=5 does not divide rollout.num_games=12; these do: 0, 1, 2, 3, 4, 6, 12"
    )
    assert config.resolve(ENV | {"rollout": {"num_games": 12, "num_workers": 0}}, {}, source="")


@pytest.mark.parametrize(("games", "cores", "workers"), [(1024, 6, 4), (12, 8, 6), (7, 4, 1), (7, 8, 7)])
def test_auto_workers_divide_the_games(monkeypatch, games, cores, workers):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    setting = config.resolve(ENV | {"rollout": {"num_games": games}}, {}, source="")
    assert config.resolve_num_workers(setting) == workers
    assert config.resolve_num_workers(config.load("connect_four", {"rollout.num_workers": 2})) == 2


@pytest.mark.parametrize(
    ("game", "kwargs", "num_games"),
    [
        ("connect_four", {}, 1024),
        ("gymnasium:CartPole-v1", {}, 256),
        ("openspiel:kuhn_poker", {}, 256),
        ("openspiel:kuhn_poker(players=5)", {}, 64),
        ("pettingzoo:mpe2.simple_tag_v3", {}, 128),
        ("pettingzoo:mpe2.simple_spread_v3", {"N": 40}, 32),
        ("pettingzoo:nonsense", {}, 256),
        ("openspiel:kuhn_poker", {"nonsense": 5}, 256),
    ],
)
def test_auto_games_are_as_many_as_have_so_many_seats(game, kwargs, num_games):
    for rollout in ({}, {"num_games": "auto"}):
        table = {"env": {"id": game, "kwargs": kwargs}, "rollout": rollout}
        assert config.resolve(table, {}, source="").rollout.num_games == num_games
    assert config.resolve(table, {"rollout.num_games": 6}, source="").rollout.num_games == 6


def test_minibatches_must_divide_the_lanes():
    setting = config.load("connect_four", {"rollout.num_games": 6, "ppo.num_minibatches": 5})
    with pytest.raises(ConfigError) as caught:
        config.check_lanes(setting, 2)
    assert str(caught.value) == (
        "ppo.num_minibatches=5 does not divide the 12 lanes of a batch (rollout.num_games=6); "
        "these do: 1, 2, 3, 4, 6, 12"
    )
    config.check_lanes(config.load("connect_four", {"rollout.num_games": 6, "ppo.num_minibatches": 4}), 2)


def test_long_lists_of_divisors_are_cut():
    setting = config.load("connect_four", {"rollout.num_games": 5040, "ppo.num_minibatches": 11})
    with pytest.raises(ConfigError, match=r", \.\.\., 5040$"):
        config.check_lanes(setting, 1)


def test_whole_floats_are_integers():
    setting = config.load("connect_four", {"stop.agent_steps": 6e6})
    assert setting.stop.agent_steps == 6_000_000
    assert isinstance(setting.stop.agent_steps, int)


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        config.load("connect_four").seed = 1


def test_every_key_is_described():
    for key, description, _, allowed in config.leaves():
        assert len(description) > 10, key
        assert allowed, key


def test_dump_leaves_out_none_unless_it_differs_from_the_default():
    text = config.dump(config.load("connect_four", {"ppo.dual_clip": "none", "stop.agent_steps": "none"}))
    table = tomllib.loads(text)
    assert table["ppo"]["dual_clip"] == "none"
    assert "agent_steps" not in table.get("stop", {})
    assert "anneal_steps" not in table["ppo"]


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
OPTIONAL = st.none() | st.floats(1e-6, 1e6)


@given(
    kwargs=st.dictionaries(st.text(min_size=1), SCALARS | st.lists(SCALARS, max_size=3), max_size=4),
    encoder=st.lists(st.integers(1, 4096), max_size=3),
    lr=st.floats(0, 1, exclude_min=True),
    dual_clip=st.none() | st.floats(1, 100, exclude_min=True),
    max_grad_norm=OPTIONAL,
    grad_clip_sigma=OPTIONAL,
    agent_steps=st.none() | st.integers(1, 2**62),
    anchors=st.lists(st.text(), max_size=3),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_dumped_loads_back_equal(
    kwargs, encoder, lr, dual_clip, max_grad_norm, grad_clip_sigma, agent_steps, anchors, seed
):
    ppo = config.PPOConfig(
        lr=lr, dual_clip=dual_clip, max_grad_norm=max_grad_norm, grad_clip_sigma=grad_clip_sigma
    )
    setting = config.Config(
        env=config.EnvConfig(id="any", kwargs=kwargs),
        policy=config.PolicyConfig(encoder=encoder),
        ppo=ppo,
        league=config.LeagueConfig(anchors=anchors),
        stop=config.StopConfig(agent_steps=agent_steps),
        seed=seed,
    )
    text = config.dump(setting)
    assert config.resolve(tomllib.loads(text), {}, source="dump") == setting
    assert not re.search(r"= None", text) or "None" in str([kwargs, anchors])


def test_every_learner_needs_a_worker():
    message = refusal(ENV | {"num_learners": 3, "rollout": {"num_workers": 2}})
    assert message == (
        "run.toml: num_learners=3, but rollout.num_workers=2: every learner takes the batches of workers of "
        "its own; give --num-learners 2, or more workers"
    )
    assert "give --num-learners 1" in refusal(ENV | {"num_learners": 2, "rollout": {"num_workers": 0}})
    assert config.resolve(ENV | {"num_learners": 2}, {}, source="").num_learners == 2
