"""Games made of Python objects: rows and actions by hand, what is refused, what is dropped, what is saved."""

from __future__ import annotations

from array import array as packed

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from envs.conformance import check
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.random_play import random_actions
from envs.rows import ActionReader, MaskWriter, RowWriter, empty_mask, empty_rows
from envs.seats import role
from envs.vector import GameError

OBS = Dict(x=Box(-9.0, 9.0, (2,)), n=Discrete(9))
MOVE = Discrete(3, start=2)


class Race(Match):
    """Two seats add 2, 3 or 4 in turn, at most 3 when it is late; past 8 the adder loses and the other wins.

    A third seat watches, is paid 0.5 for each move, and leaves, truncated, after the third.
    """

    made = 0

    def __init__(self):
        type(self).made += 1
        self.closed = False

    def reset(self, seed):
        self.total, self.turn, self.moves = seed % 3, 0, 0
        self.actions = []
        return self.moment({})

    def step(self, actions):
        self.actions.append(actions)
        self.total += int(actions[self.turn])
        self.turn = 1 - self.turn
        self.moves += 1
        return self.moment({2: 0.5} if self.moves <= 3 else {})

    def moment(self, reward):
        lost = self.total > 8
        if lost:
            reward = reward | {self.turn: 1, 1 - self.turn: -1}
        leaves = [2] if self.moves == 3 and not lost else []
        ended = [0, 1, 2] if lost else []
        acts = [] if lost else [self.turn]
        obs = {"x": np.array([self.total, -self.total], np.float64), "n": min(self.total, 8)}
        mask = np.array([True, True, self.moves < 2])
        views, masks = dict.fromkeys([*acts, *leaves], obs), dict.fromkeys(acts, mask)
        return Moment(acts, views, masks, reward, ended, leaves)

    def render(self):
        return f"total {self.total}"

    def close(self):
        self.closed = True


RACERS = [Seat("racer_0", OBS, MOVE, True), Seat("racer_1", OBS, MOVE, True)]
SEATS = [*RACERS, Seat("watcher", OBS, Discrete(1))]


def race(num_games: int, match: type[Match] = Race, **kwargs) -> PythonGames:
    return PythonGames("race", match, num_games, SEATS, (0, 1, 2), **kwargs)


def start(env: PythonGames, seeds: list[int]) -> None:
    env.restart(np.arange(len(seeds)), np.array(seeds, np.uint64))


def moves(env: PythonGames, *values: int) -> tuple[dict[str, np.ndarray], ...]:
    """Every racer of match b plays values[b]; the watcher's row is nonsense."""
    racers = np.repeat(np.array(values)[:, None], 2, axis=1)
    return {"": racers}, {"": np.full((env.num_games, 1), -1)}


def test_it_conforms_saved_as_seed_and_actions():
    check(race, num_steps=60)


def test_groups_are_of_equal_spaces_and_called_after_their_role():
    env = race(2)
    assert [(group.name, group.seats) for group in env.groups] == [("racer", (0, 1)), ("watcher", (2,))]
    assert env.seat_names == ("racer_0", "racer_1", "watcher")
    assert [*env.groups[0].mask] == [""]
    assert env.groups[1].mask == {}
    odd = PythonGames("x", Race, 1, [Seat("a_0", OBS, MOVE), Seat("b_0", OBS, MOVE)], (0, 1))
    assert [group.name for group in odd.groups] == ["seat"]
    same = [Seat("p_0", OBS, MOVE), Seat("p_1", OBS, Discrete(2))]
    assert [group.name for group in PythonGames("x", Race, 1, same, (0, 1)).groups] == ["p_0", "p_1"]
    names = ("adversary_12", "eve", "_1", "first_0_3")
    assert [role(name) for name in names] == ["adversary", "eve", "_1", "first_0"]


def test_a_match_by_hand():
    env = race(2)
    start(env, [0, 2])
    racers, watcher = env.groups
    assert env.to_act.tolist() == [[True, False, False]] * 2
    assert racers.obs["x"][:, 0].tolist() == [[0, 0], [2, -2]]
    assert racers.obs["n"][:, 0].tolist() == [0, 2]
    assert racers.obs["x"].dtype == np.float32
    assert racers.mask[""][:, 0].tolist() == [[True] * 3] * 2
    env.step(moves(env, 4, 4))  # totals 4, 6
    assert env.to_act.tolist() == [[False, True, False]] * 2
    assert env.reward.tolist() == [[0, 0, 0.5]] * 2
    env.step(moves(env, 4, 3))  # 8, and 9: seat 1 of match 1 loses
    assert env.reward.tolist() == [[0, 0, 0.5], [1, -1, 0.5]]
    assert env.terminated.tolist() == [[False] * 3, [True] * 3]
    assert env.over.tolist() == [False, True]
    assert racers.mask[""][0, 0].tolist() == [True, True, False]
    env.step(moves(env, 2, -5))  # seat 0 of match 0 loses at 10
    assert env.reward.tolist() == [[-1, 1, 0.5], [0, 0, 0]]
    assert env.terminated.tolist() == [[True] * 3] * 2
    assert [len(match.actions) for match in env._matches] == [3, 2]
    action = env._matches[0].actions[0][0]
    assert action == 4
    assert MOVE.contains(action)


def test_a_seat_ends_once_and_its_last_view_is_shown():
    env = race(1)
    start(env, [0])
    for move in (2, 2, 2):
        env.step(moves(env, move))
    assert env.truncated.tolist() == [[False, False, True]]
    assert env.groups[1].obs["n"][0, 0] == 6
    assert not env.over[0]
    env.step(moves(env, 3))  # 9: the watcher, named again, has ended before
    assert env.terminated.tolist() == [[True, True, False]]
    assert not env.truncated.any()
    assert env.over[0]


def test_objects_are_made_when_needed_and_used_again():
    Race.made = 0
    env = race(5)
    assert Race.made == 0
    assert env.render(3) == "not started"
    start(env, [0, 0])
    start(env, [1, 1])
    assert Race.made == 2
    assert env.render(0) == "total 1"
    first = env._matches[0]
    env.close()
    assert first.closed
    fresh = race(1, fresh=True)
    start(fresh, [0])
    former = fresh._matches[0]
    start(fresh, [1])
    assert former.closed
    assert fresh._matches[0] is not former


@pytest.mark.parametrize("value", [1, 5, -1])
def test_an_action_outside_its_space_is_refused_before_anything_changes(value):
    env = race(3)
    start(env, [0, 1, 2])
    before = env.state()
    message = rf"race, match 1, seat 0: action {value} is illegal; legal are \[2, 3, 4\]"
    with pytest.raises(GameError, match=message):
        env.step(moves(env, 2, value, 2))
    for name, array in env.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_masked_action_is_refused():
    env = race(1)
    start(env, [0])
    env.step(moves(env, 2))
    env.step(moves(env, 2))
    with pytest.raises(GameError, match=r"race, match 0, seat 0: action 4 is illegal; legal are \[2, 3\]"):
        env.step(moves(env, 4))
    with pytest.raises(GameError, match=r"race, group racer: the action must be int64 \(1, 2\), not float64"):
        env.step(({"": np.full((1, 2), 2.0)}, {"": np.zeros((1, 1), np.int64)}))


class Falls(Race):
    """Raises in the second move of matches from odd seeds; cannot begin from seed 7."""

    def reset(self, seed):
        self.falls = seed % 2 == 1
        if seed == 7:
            raise OSError("no\nroom")
        return super().reset(seed)

    def step(self, actions):
        if self.falls and self.moves == 1:
            raise KeyError("lost piece")
        return super().step(actions)


def test_a_match_that_raises_is_dropped_and_the_others_go_on():
    env = race(3, Falls)
    start(env, [0, 1, 2])
    env.step(moves(env, 2, 2, 2))
    broken = env._matches[1]
    env.step(moves(env, 2, 2, 2))
    assert env.dropped.tolist() == [False, True, False]
    assert env.over.tolist() == [False, True, False]
    assert not (env.terminated | env.truncated).any()
    assert env.reward.tolist() == [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.5]]
    assert env.cause.startswith("match 1: KeyError: 'lost piece' (test_python_games.py:")
    assert env.cause.endswith('raise KeyError("lost piece"))')
    assert broken.closed
    env.restart(np.array([1]), np.array([4], np.uint64))
    assert not env.dropped.any()
    assert env.to_act[1, 0]
    assert env._matches[1] is not broken


def test_a_match_that_cannot_begin_is_dropped():
    env = race(2, Falls)
    start(env, [7, 0])
    assert env.dropped.tolist() == env.over.tolist() == [True, False]
    assert "OSError: no room (test_python_games.py" in env.cause
    assert "\n" not in env.cause
    env.step(moves(env, 2, 2))
    assert env.dropped.tolist() == [True, False]


def shows(obs=None, mask=None, acts=(0,), **kwargs) -> type[Match]:
    """A game that shows this, whatever is done."""

    class Shows(Race):
        def moment(self, reward):
            good = {"x": np.zeros(2), "n": 0}
            views = {0: good if obs is None else obs, 2: good}
            return Moment(acts, views, {0: [True] * 3 if mask is None else mask}, **kwargs)

    return Shows


@pytest.mark.parametrize(
    ("match", "message"),
    [
        (
            shows({"x": np.zeros(3), "n": 0}),
            r"match 0, seat 0: obs 'x' is float64 \(3,\), not float32 \(2,\)",
        ),
        (shows({"x": np.zeros(2)}), r"match 0, seat 0: obs has the keys \['x'\], not \['x', 'n'\]"),
        (shows({"x": np.zeros(2), "n": 0, "y": 1}), r"obs has the keys \['x', 'n', 'y'\], not \['x', 'n'\]"),
        (shows(np.zeros(2)), r"obs has the keys none \(ndarray\), not"),
        (shows({"x": np.zeros(2), "n": 1.5}), r"obs 'n' is float64 \(\), which int64 cannot hold: 1.5"),
        (shows({"x": ["a", "b"], "n": 0}), r"obs 'x' is \['a', 'b'\], not float32 \(2,\): could not convert"),
        (shows({"x": [[1], [1, 2]], "n": 0}), r"obs 'x' is .*inhomogeneous"),
        (shows(mask=np.ones(4, bool)), r"match 0, seat 0: mask is bool \(4,\), not bool \(3,\)"),
        (shows(mask=[0.5, 1, 1]), r"mask is float64 \(3,\), which bool cannot hold"),
        (shows(acts=(0, 9)), r"match 0: to_act is \(0, 9\); allowed are seats from 0 to 2"),
        (shows(acts=(0, -1)), r"match 0: to_act is \(0, -1\); allowed are seats"),
        (shows(acts=0), "match 0: to_act is 0; allowed are seats from 0 to 2"),
        (shows(reward={3: 1.0}), r"match 0: reward is \{3: 1.0\}; allowed are seats from 0 to 2"),
        (shows(truncated=("red",)), r"match 0: truncated is \('red',\); allowed are seats from 0 to 2"),
        (shows(reward={0: 1e39}), r"match 0, seat 0: the reward is 1e\+39; allowed are finite numbers"),
        (shows(acts=()), "match 0: nobody is to act in a match in play"),
        (shows(acts=(1,)), "match 0, seat 1: it has no observation"),
        (shows(acts=(0,), terminated=(0,)), "match 0, seat 0: is to act after its episode ended"),
    ],
)
def test_what_does_not_fit_is_a_game_error(match, message):
    env = race(1, match)
    with pytest.raises(GameError, match=message) as caught:
        start(env, [0])
    assert str(caught.value).startswith("race, match 0")


def test_what_is_no_moment_is_a_game_error():
    class Nothing(Race):
        def reset(self, seed):
            return None

    with pytest.raises(GameError, match="race, match 0: reset and step must return a Moment, not None"):
        start(race(1, Nothing), [0])


@pytest.mark.parametrize(
    ("seats", "teams", "message"),
    [
        ([], [], "own: there are no seats; a game needs one at least"),
        ([("a", Discrete(2), Discrete(2))], [0], r"own: seats\[0\] is \('a', .*; it must be a Seat"),
        ([Seat(0, Discrete(2), Discrete(2))], [0], r"own: seats\[0\] is Seat\(name=0, .*whose name is text"),
        (
            [Seat("a", Discrete(2), Discrete(2))],
            [0, 1],
            r"own: teams \(0, 1\) must be a number for each of the 1",
        ),
        ([Seat("a", Discrete(2), Box(0, 1, (0,)))], [0], "own, seat 'a', action: .* which holds nothing"),
        ([Seat("a", Box(0, 1, (2, 0)), Discrete(2))], [0], "own, seat 'a', observation: .* holds nothing"),
    ],
)
def test_seats_that_cannot_be_are_refused(seats, teams, message):
    with pytest.raises(ValueError, match=message):
        PythonGames("own", Race, 1, seats, teams)


def test_a_match_that_exits_is_dropped():
    class Exits(Race):
        def step(self, actions):
            raise SystemExit("enough")

    env = race(1, Exits)
    start(env, [0])
    env.step(moves(env, 2))
    assert env.dropped.all()
    assert "SystemExit: enough (test_python_games.py" in env.cause


def test_values_that_lose_nothing_are_taken():
    env = race(1, shows({"x": [1, 2], "n": np.float64(3)}, mask=np.array([1, 0, 1], np.int8)))
    start(env, [0])
    assert env.groups[0].obs["x"][0, 0].tolist() == [1, 2]
    assert env.groups[0].obs["n"][0, 0] == 3
    assert env.groups[0].mask[""][0, 0].tolist() == [True, False, True]
    row = np.zeros((1, 2), np.int8)
    RowWriter(Box(-100, 100, (2,), np.int8), {"": row}, "obs").write(np.array([100, -7]), 0)
    assert row.tolist() == [[100, -7]]
    with pytest.raises(ValueError, match="which int8 cannot hold"):
        RowWriter(Box(-100, 100, (2,), np.int8), {"": row}, "obs").write(np.array([200, 0]), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4", np.int64, np.uint8, np.bool_])
def test_a_row_is_written_whatever_array_holds_its_values(dtype):
    """Vectors go by a memory view, all else by arrays; both write that row alone."""
    space = MultiBinary(3) if dtype is np.bool_ else Box(0, 1, (3,), dtype)
    values = np.array([1, 0, 1])
    own = values.astype(space.dtype)
    strided = np.repeat(own, 2)[::2]
    for given in (own, strided, own.reshape(1, 3)[0], values, values.tolist(), packed("b", [1, 0, 1])):
        rows = empty_rows(space, 2, 2)
        RowWriter(space, rows, "obs").write(given, 1)
        assert rows[""].tolist() == [[[0, 0, 0], [1, 0, 1]], [[0, 0, 0], [0, 0, 0]]]
    for wrong in (own[:2], own[None], np.repeat(own, 2), [[1], [0]], None, "101"):
        rows = empty_rows(space, 2, 2)
        with pytest.raises(ValueError, match="obs is"):
            RowWriter(space, rows, "obs").write(wrong, 1)
        assert not rows[""].any()


def test_nested_actions_are_read_and_checked_part_by_part():
    pair = Tuple((MultiDiscrete([2, 3]), Box(-1.0, 1.0, (2,))))
    space = Dict(a=pair, b=MultiBinary(2), c=Discrete(2, start=-1))
    mask = empty_mask(space, 1, 1)
    assert {path: leaf.shape[2] for path, leaf in mask.items()} == {"a/0": 5, "b": 4, "c": 2}
    dials = ([True, False], [False, True, True])
    legal = {"a": (dials, None), "b": [True, False, True, True], "c": [True, False]}
    MaskWriter(mask).write(legal, 0)
    reader, acts = ActionReader(space, mask), np.ones((1, 1), bool)
    rows = empty_rows(space, 1, 1)
    rows["a/0"][0, 0], rows["a/1"][0, 0], rows["b"][0, 0], rows["c"][0, 0] = [0, 2], [0.5, -1], [0, 1], -1
    assert reader.illegal(rows, acts) is None
    action = reader.action(rows, 0, 0)
    assert space.contains(action)
    assert action["a"][0].tolist() == [0, 2]
    action["a"][0][0] = 7  # the game's own copy
    assert rows["a/0"][0, 0, 0] == 0
    for path, value, allowed in [
        ("a/0", [1, 2], "[[0], [1, 2]]"),
        ("a/0", [0, 0], "[[0], [1, 2]]"),
        ("a/0", [0, 3], "[[0], [1, 2]]"),
        ("a/1", [0.0, 1.01], "Box"),
        ("a/1", [np.nan, 0.0], "Box"),
        ("b", [1, 1], "[[0], [0, 1]]"),
        ("c", 0, "[-1]"),
    ]:
        wrong = {key: leaf.copy() for key, leaf in rows.items()}
        wrong[path][0, 0] = value
        illegal = reader.illegal(wrong, acts)
        assert illegal is not None
        shown = wrong[path][0, 0].tolist()
        assert illegal.message.startswith(f"action {path!r} {shown} is illegal; legal are {allowed}")
        assert reader.illegal(wrong, ~acts) is None


def test_spaces_that_no_array_holds_are_refused():
    with pytest.raises(ValueError, match=r"x, seat 'a', observation: the space 't' is Text"):
        PythonGames("x", Race, 1, [Seat("a", Dict(t=Text(3)), MOVE)], (0,))
    with pytest.raises(ValueError, match="num_games=0 must be an integer of at least 1"):
        race(0)


class Saves(Race):
    """Gives its own state instead of being played again."""

    resets = 0

    def reset(self, seed):
        type(self).resets += 1
        return super().reset(seed)

    def save(self):
        return bytes([self.total, self.turn, self.moves])

    def load(self, saved):
        self.total, self.turn, self.moves = saved
        self.actions = []


def test_a_match_that_saves_itself_is_not_played_again():
    check(lambda num_games: race(num_games, Saves), num_steps=60)
    env, other = race(2, Saves), race(2, Saves)
    start(env, [0, 1])
    Saves.resets = 0
    other.set_state(env.state())
    assert Saves.resets == 0
    assert other.render(1) == "total 1"


class Unseeded(Race):
    starts = iter(range(100))

    def reset(self, seed):
        return super().reset(next(self.starts))


def test_a_match_that_does_not_come_out_the_same_is_dropped():
    env, other = race(3, Unseeded), race(3, Unseeded)
    start(env, [0, 0, 0])
    next(Unseeded.starts)  # 3 of 3: the next begin at 1, 2, 0 and not at 0, 1, 2
    other.set_state(env.state())
    assert other.dropped.all()
    assert other.over.all()
    assert not other.to_act.any()
    assert "the same seed and actions show something else" in other.cause


def test_states_that_do_not_fit_are_refused():
    env = race(2)
    start(env, [0, 0])
    with pytest.raises(GameError, match="must be"):
        race(3).set_state(env.state())
    with pytest.raises(GameError, match="the state must hold"):
        env.set_state({})


def test_the_whole_state_is_shown_where_it_is_asked_for():
    class Open(Race):
        def moment(self, reward):
            moment = super().moment(reward)
            moment.state = [self.total, self.turn]
            return moment

    env = race(2, Open, privileged_space=Box(0.0, 99.0, (2,)))
    start(env, [2, 1])
    shown = env.privileged[""]
    assert shown.tolist() == [[2, 0], [1, 0]]
    env.step(moves(env, 3, 4))
    assert shown.tolist() == [[5, 1], [5, 1]]
    with pytest.raises(GameError, match=r"race, match 0: state is None, not float32 \(2,\)|state is object"):
        start(race(1, privileged_space=Box(0.0, 99.0, (2,))), [0])


def test_random_play_ends_with_every_seat_ended_once():
    env = race(8)
    rng = np.random.default_rng(0)
    ends = np.zeros((8, 3), int)
    total = np.zeros((8, 3))
    start(env, [*range(8)])
    while not env.over.all():
        live = ~env.over  # those over before keep what they show
        env.step(random_actions(env, rng))
        ends[live] += env.terminated[live].astype(int) + env.truncated[live]
        total += env.reward
    assert (ends == 1).all()
    assert (total[:, 0] + total[:, 1] == 0).all()
