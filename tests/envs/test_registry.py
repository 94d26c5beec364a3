"""Game ids find their games, and a user's mistake is one clear line."""

from __future__ import annotations

import pytest

from envs.checks import Checked
from envs.connect_four import ConnectFour
from envs.registry import _SOURCES, make, native_games, register_source, source_forms
from envs.vector import GameError, VectorEnv

# Without the sources that other packages add: whether they are imported yet depends on the other tests.
OWN_SOURCES = {prefix: source for prefix, source in _SOURCES.items() if prefix != "rllib"}
KNOWN = ", ".join([*native_games(), *(form for form, _ in OWN_SOURCES.values())])

MODULE = """
from envs.connect_four import ConnectFour

def own_game(num_games, *, opening_plies, label="x"):
    return ConnectFour(num_games, opening_plies=opening_plies)

def any_kwargs(num_games, **kwargs):
    return ConnectFour(num_games, **kwargs)

def no_game(num_games):
    return object()

def no_arguments():
    return ConnectFour(1)

def exits(num_games):
    raise SystemExit("enough")

number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch) -> str:
    (tmp_path / "registry_example.py").write_text(MODULE)
    (tmp_path / "registry_broken.py").write_text("raise RuntimeError('no licence\\nfor this')")
    (tmp_path / "registry_leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    return "registry_example"


def test_native_games_are_made_by_id():
    for id, factory in native_games().items():
        env = make(id, 3)
        assert isinstance(env, VectorEnv)
        assert type(env) is factory
        assert (env.id, env.num_games) == (id, 3)


def test_own_factory(own_module):
    env = make(f"python:{own_module}:own_game", 3, opening_plies=2)
    assert isinstance(env, VectorEnv)
    assert isinstance(env, Checked)  # games from elsewhere are, ours are not
    assert isinstance(env._env, ConnectFour)
    assert env.num_games == 3
    make(f"python:{own_module}:any_kwargs", 2, opening_plies=2)


def test_other_packages_add_sources(monkeypatch):
    monkeypatch.setattr("envs.registry._SOURCES", dict(_SOURCES))
    make_larger = lambda id, rest: lambda num_games: ConnectFour(num_games + len(rest))  # noqa: E731
    register_source("own", "own:TEXT", make_larger)
    assert source_forms()[-1] == "own:TEXT"
    with pytest.raises(GameError, match="game 'own:ab': connect_four: num_games is 5, not 3 as asked"):
        make("own:ab", 3)
    assert make("own:", 3).num_games == 3


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        (
            "conect_four",
            {},
            f"unknown game 'conect_four' (did you mean 'connect_four'?); known are {KNOWN}",
        ),
        ("zzz", {}, f"unknown game 'zzz'; known are {KNOWN}"),
        (
            "pyton:a:b",
            {},
            f"unknown game 'pyton:a:b' (did you mean 'python'?); known are {KNOWN}",
        ),
        (
            "connect_four",
            {"opening_ply": 3},
            "game 'connect_four' has no kwarg 'opening_ply' (did you mean 'opening_plies'?); "
            "allowed are opening_plies",
        ),
        ("python:math", {}, "game 'python:math' must have the form python:package.module:factory"),
        (
            "python:no_such_module:f",
            {},
            "game 'python:no_such_module:f': cannot import no_such_module: "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            "python:registry_broken:f",
            {},
            "game 'python:registry_broken:f': cannot import registry_broken: "
            "RuntimeError: no licence for this",
        ),
        (
            "python:registry_example:own_gme",
            {},
            "game 'python:registry_example:own_gme': registry_example has no 'own_gme' "
            "(did you mean 'own_game'?)",
        ),
        (
            "python:registry_example:number",
            {},
            "game 'python:registry_example:number': number is not callable; "
            "it must be factory(num_games, **kwargs)",
        ),
        (
            "python:registry_example:own_game",
            {},
            "game 'python:registry_example:own_game' needs the kwarg 'opening_plies'; "
            "allowed are opening_plies, label",
        ),
        (
            "python:registry_example:exits",
            {},
            "game 'python:registry_example:exits': cannot be made: SystemExit: enough "
            '(registry_example.py:17: raise SystemExit("enough"))',
        ),
        (
            "python:registry_leaves:f",
            {},
            "game 'python:registry_leaves:f': cannot import registry_leaves: SystemExit: 3",
        ),
        (
            "python:registry_example:no_arguments",
            {},
            "game 'python:registry_example:no_arguments': its factory must take num_games",
        ),
    ],
)
def test_mistakes_are_one_clear_line(own_module, monkeypatch, id, kwargs, message):
    monkeypatch.setattr("envs.registry._SOURCES", OWN_SOURCES)
    with pytest.raises(ValueError) as caught:
        make(id, 2, **kwargs)
    assert str(caught.value) == message


def test_what_is_no_game_is_refused(own_module):
    with pytest.raises(ValueError, match=r"object is not a VectorEnv; it lacks action_names, bots, groups"):
        make(f"python:{own_module}:no_game", 2)
