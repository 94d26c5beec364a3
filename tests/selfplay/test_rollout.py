"""Rollouts of toy games against the slow recorder, and the bugs of recurrent rollouts planted.

`Recorder.collect` checks every lane, match result and player by itself; see tests/slow_recorder.py.
"""

import dataclasses

import numpy as np
import pytest
import torch

from envs.bots import random_bot
from envs.conformance import check
from envs.connect_four import ConnectFour
from envs.registry import make
from policies import gemm
from policies.policy import Policy, PolicySpec
from selfplay.fragments import concatenate
from selfplay.lanes import Lanes
from selfplay.matches import MAIN, Lineups, joined
from selfplay.part_play import PartPlay
from selfplay.players import BotPlayer, PolicyPlayer
from selfplay.rollout import Matches
from tests.playing import alone, make_matches, make_rollout
from tests.slow_recorder import Recorder
from tests.toy_games import TOYS, turns


def make_policy(env, seed=0, *, core="lstm", num_layers=1, hidden_size=9, bold=True):
    """bold: policy weights so large that a wrong state shows in every probability."""
    group = env.groups[0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = Policy(
            group.observation_space,
            group.action_space,
            PolicySpec((11,), core=core, hidden_size=hidden_size, num_layers=num_layers, normalize="off"),
        )
    if bold:
        with torch.no_grad():
            policy.output_weight[:-1] *= 300
            policy.output_weight[-1] *= 3
            for weight in (*policy.encoder.weight, *getattr(policy.core, "input_weight", ())):
                weight *= 2.5
            policy.output_bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))
    return policy.requires_grad_(False)


def opponents(env, **kwargs):
    """Past selves of the learner's shape, one of another shape, one without memory, a bot."""
    return {
        "old": PolicyPlayer(make_policy(env, 1, **kwargs)),
        "older": PolicyPlayer(make_policy(env, 2, **kwargs)),
        "wide": PolicyPlayer(make_policy(env, 3, hidden_size=14)),
        "plain": PolicyPlayer(make_policy(env, 4, core="none")),
        "random": BotPlayer(random_bot(env.groups[0].action_space)),
    }


def draw_lineups(names, seats, rng, rows=13):
    """MAIN in about half of all seats, somewhere in the table at least once."""
    players = (MAIN, *names)
    table = np.where(rng.random((rows, seats)) < 0.5, 0, rng.integers(0, len(players), (rows, seats)))
    table[0, 0] = 0
    return Lineups(players, table.astype(np.int32))


def play(make_env, *, length=5, games=5, collects=5, seed=0, core="lstm", num_layers=1):
    """A rollout under watch whose weights and opponents change from one collect to the next."""
    env = make_env(games)
    recorder = Recorder(env, make_policy(env, core=core, num_layers=num_layers), length=length, seed=seed)
    recorder.add(opponents(env, core=core, num_layers=num_layers))
    rng = np.random.default_rng(seed)
    names = list(recorder.opponents)
    for version in range(collects):
        weights = make_policy(env, 100 + version, core=core, num_layers=num_layers).state_dict()
        recorder.rollout.load([{name: x.numpy() for name, x in weights.items()}], version)
        chosen = rng.choice(names, 2, replace=False).tolist()
        recorder.collect(draw_lineups(chosen, len(env.teams), rng))
    return recorder


@pytest.mark.parametrize("game", TOYS)
def test_toy_games_conform(game):
    check(TOYS[game], num_steps=50)


@pytest.mark.parametrize("length", [1, 2, 5, 16])
@pytest.mark.parametrize("game", TOYS)
def test_lanes_and_results_are_what_was_played(game, length):
    recorder = play(TOYS[game], length=length)
    assert recorder.lanes == 5 * recorder.env.to_act.size
    seeds = [seed for results in recorder.results for seed in results.seed.tolist()]
    assert len(set(seeds)) == len(seeds) == len(recorder.env.finished) > 0


@pytest.mark.parametrize(("core", "num_layers"), [("lstm", 2), ("none", 1)])
def test_other_cores(core, num_layers):
    play(TOYS["turns"], core=core, num_layers=num_layers)


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (3, 4))])
@pytest.mark.parametrize("game", ["brawl", "turns"])
def test_long_plays_of_the_hard_games(game, seed):
    play(TOYS[game], length=7, games=3, collects=12, seed=seed)


def test_the_toys_show_what_they_are_for():
    """Deaths while others go on, waits, seats that never act, rewards while waiting, truncations."""
    matches = {game: play(TOYS[game]).env.finished for game in ("brawl", "turns", "cutoff")}
    decisions = {game: [d for m in all_ for d in m.seats] for game, all_ in matches.items()}
    assert any(len({len(seat) for seat in match.seats}) > 1 for match in matches["brawl"])
    assert any(not seat for match in matches["turns"] for seat in match.seats)
    for game, ends in (
        ("brawl", "terminated truncated"),
        ("turns", "terminated truncated"),
        ("cutoff", "truncated"),
    ):
        for end in ends.split():
            assert any(getattr(d, end) for seat in decisions[game] for d in seat), (game, end)


class Gathering(PolicyPlayer):
    """Gets states brought and taken away, as all do who act in a way of their own."""

    def act(self, *rest):
        return super().act(*rest)


@pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")
@pytest.mark.parametrize("game", TOYS)
def test_states_that_go_on_in_place_make_no_difference(game):
    found = []
    for kind in (PolicyPlayer, Gathering):
        env = TOYS[game](5)
        players = {name: kind(make_policy(env, k)) for k, name in enumerate(("old", "older"), start=1)}
        rollout = make_rollout(env, kind(make_policy(env)), length=5)
        assert rollout.main[0].in_place == (kind is PolicyPlayer)
        lineups = draw_lineups(list(players), len(env.teams), np.random.default_rng(0))
        rollout.assign(lineups, alone(players))
        for version in range(6):
            rollout.load(
                [{name: x.numpy() for name, x in make_policy(env, 9 + version).state_dict().items()}], version
            )
            (fragment,), results = rollout.collect()
            found.append((fragment, results.returns))
    for (one, returns), (other, wanted) in zip(found[:6], found[6:], strict=True):
        np.testing.assert_array_equal(returns, wanted)
        for field in dataclasses.fields(one):
            np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name), field.name)


def test_first_matches_begin_one_after_the_other():
    env = ConnectFour(10)
    rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=4, seed=1)
    rollout.assign(Lineups((MAIN,), np.zeros((3, 2), np.int32)), {})
    begun = []
    for _ in range(5):
        rollout.matches.tick(rollout.lanes)
        begun.append(rollout.matches.length.tolist())
    assert begun == [  # 10 games over 4 ticks: 3, 5, 8, 10 of them
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [2, 2, 2, 1, 1, 0, 0, 0, 0, 0],
        [3, 3, 3, 2, 2, 1, 1, 1, 0, 0],
        [4, 4, 4, 3, 3, 2, 2, 2, 1, 1],
        [5, 5, 5, 4, 4, 3, 3, 3, 2, 2],
    ]
    opened = 0
    for _ in range(60):  # later matches begin as soon as one ended
        over = env.over.copy()
        rollout.matches.tick()
        assert rollout.matches.length[over].tolist() == [1] * over.sum()
        opened += over.sum()
    assert opened > 10


def ticks_of_batches(games, length, rounds, spread, number=12):
    """Ticks that each batch takes where MAIN plays in three quarters of the matches."""
    env = make("rock_paper_scissors", games, rounds=rounds)
    rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=length, spread=spread)
    table = np.array([[0, 0]] * 3 + [[1, 1]], np.int32)
    rollout.assign(
        Lineups((MAIN, "random"), table), {"random": (BotPlayer(random_bot(env.groups[0].action_space)),)}
    )
    ticks = [0]
    for _ in range(number):
        rollout.collect(lambda: ticks.append(ticks.pop() + 1))
        ticks.append(0)
    return ticks[1:-1]  # the first batch begins with nothing


@pytest.mark.parametrize(
    ("games", "length", "rounds", "spread"),
    [(64, 16, 25, {21, 22}), (20, 16, 25, {21, 22}), (16, 64, 100, {84, 88})],  # a third more than the length
)
def test_batches_take_alike_once_matches_began_one_after_the_other(games, length, rounds, spread):
    assert set(ticks_of_batches(games, length, rounds, 1)) == {length, 2 * length}
    assert set(ticks_of_batches(games, length, rounds, length)) == spread


class Burning(ConnectFour):
    """It fails as a whole in one step."""

    def step(self, actions):
        if self.burns:
            raise RuntimeError("fire")
        super().step(actions)


def test_matches_begin_one_after_the_other_again_after_a_failure_and_from_a_state():
    def make(games=8):
        env = Burning(games)
        env.burns = False
        return env

    def begun(matches, ticks):
        found = []
        for _ in range(ticks):
            matches.tick()
            found.append(int((matches.length > 0).sum()))
        return found

    player = PolicyPlayer(make_policy(make()))
    lineups = Lineups((MAIN,), np.zeros((3, 2), np.int32))

    def fresh(seed):
        matches = make_matches(make(), seed, cyclic=True, spread=4)
        matches.remake, matches.max_failures = make, 1
        matches.assign(lineups, {MAIN: (player,)})
        return matches

    matches = fresh(0)
    assert begun(matches, 5) == [2, 4, 6, 8, 8]
    matches.env.burns = True
    matches.tick()
    matches.length[:] = 0
    assert begun(matches, 1) == [2]
    matches.results()
    other = fresh(1)
    assert other.set_state(*matches.state(), matches.players)
    arrays, meta = matches.state()
    assert begun(matches, 4) == begun(other, 4) == [4, 6, 8, 8]
    anew = fresh(2)  # of a game that cannot give its state
    assert not anew.set_state(arrays, meta | {"begun": 4, "env_has_state": False}, matches.players)
    assert begun(anew, 4) == [2, 4, 6, 8]


def test_everybody_takes_the_seats_of_the_lineup_and_no_other():
    env = ConnectFour(4)
    policy = make_policy(env)
    seen = []

    class Counting(BotPlayer):
        def act(self, obs, mask, is_first, state, rng):
            seen.append(len(is_first))
            return super().act(obs, mask, is_first, state, rng)

    rollout = make_rollout(env, PolicyPlayer(policy), length=4, seed=1, spread=1)
    bot = Counting(random_bot(env.groups[0].action_space))
    # Games 0 to 3 take rows 0 to 3: MAIN is first in 0 and 2, second in 1, nowhere in 3.
    table = np.array([[0, 1], [1, 0], [0, 1], [1, 1]], np.int32)
    rollout.assign(Lineups((MAIN, "bot"), table), {"bot": (bot,)})
    rollout.matches.tick(rollout.lanes)
    assert seen == [2]  # seat 0 of games 1 and 3
    assert np.flatnonzero(rollout.lanes[0].held >= 0).tolist() == [0, 4]
    rollout.matches.tick(rollout.lanes)
    assert seen == [2, 3]  # seat 1 of games 0, 2 and 3
    assert np.flatnonzero(rollout.lanes[0].held >= 0).tolist() == [0, 3, 4]


def greedy_matches(env, lineups, seed, players):
    matches = make_matches(env, seed, cyclic=False)
    matches.assign(lineups, alone(players))
    return matches.play_all()


@pytest.mark.parametrize("game", ["brawl", "turns"])
def test_play_all_plays_every_lineup_once_and_a_seed_gives_its_match_again(game):
    env = TOYS[game](3)
    seats = len(env.teams)
    players = {MAIN: make_policy(env), "old": make_policy(env, 1)}
    players = {name: PolicyPlayer(policy, greedy=True) for name, policy in players.items()}
    table = np.random.default_rng(0).integers(0, 2, (11, seats)).astype(np.int32)
    results = greedy_matches(env, Lineups((MAIN, "old"), table), 5, players)
    names = np.array(results.players)
    assert (names[results.lineup] == np.array([MAIN, "old"])[table]).all()
    assert results.row.tolist() == [*range(11)]

    for k in range(11):  # each match again, alone
        again = make_matches(TOYS[game](1), 99, cyclic=False)
        again.assign(
            Lineups(results.players, results.lineup[k : k + 1]), alone(players), results.seed[k : k + 1]
        )
        one = again.play_all()
        assert one.length.tolist() == [results.length[k]]
        np.testing.assert_allclose(one.returns[0], results.returns[k], atol=1e-6)


def test_fewer_lineups_than_games_leave_games_idle():
    env = ConnectFour(8)
    bot = BotPlayer(random_bot(env.groups[0].action_space))
    results = greedy_matches(
        env, Lineups(("a", "b"), np.array([[0, 1], [1, 0]], np.int32)), 0, {"a": bot, "b": bot, MAIN: bot}
    )
    assert len(results.seed) == 2
    assert (results.returns.sum(axis=1) == 0).all()


def test_equal_seeds_give_equal_fragments():
    fragments = []
    for seed in (3, 3, 4):
        env = turns(4)
        rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=5, seed=seed)
        rollout.assign(Lineups((MAIN,), np.zeros((1, 3), np.int32)), {})
        fragments.append([rollout.collect()[0][0] for _ in range(3)])
    for one, same, other in zip(*fragments, strict=True):
        assert np.array_equal(one.logp, same.logp)
        assert np.array_equal(one.obs["noise"], same.obs["noise"])
        assert not np.array_equal(one.logp, other.logp)


def in_order(results, players):
    """The same results with the players in this order."""
    place = np.array([players.index(name) for name in results.players])
    return dataclasses.replace(results, players=tuple(players), lineup=place[results.lineup])


@pytest.mark.parametrize("pieces", [2, 3, 6])
@pytest.mark.parametrize("game", ["brawl", "turns", "connect_four", "rock_paper_scissors"])
def test_a_batch_in_pieces_is_the_batch(game, pieces):
    """In the last game all lanes are complete at the same time."""
    make_env = TOYS.get(game, lambda games: make(game, games))
    players = alone(opponents(make_env(1)))

    def new():
        env = make_env(6)
        rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=5, seed=3)
        table = draw_lineups(["old", "wide"], len(env.teams), np.random.default_rng(8))
        rollout.assign(table, players)
        return rollout

    whole, divided = new(), new()
    for _ in range(4):
        (fragment,), results = whole.collect()
        parts = [divided.collect(pieces=pieces) for _ in range(pieces)]
        assert {part.num_lanes for (part,), _ in parts} == {fragment.num_lanes // pieces}
        found = joined([each for _, each in parts])
        players = sorted(results.players)
        assert_equal_collects(
            [((fragment,), in_order(results, players))],
            [((concatenate([part for (part,), _ in parts]),), in_order(found, players))],
        )
    assert whole.state()[1] == divided.state()[1]


# Going on from a state.


def collect_on(rollout, lineups, count):
    rollout.assign(lineups, {})
    return [rollout.collect() for _ in range(count)]


def assert_equal_collects(ones, others):
    for (fragments, results), (others_fragments, other_results) in zip(ones, others, strict=True):
        for one, two in zip(fragments, others_fragments, strict=True):
            for name in one.__slots__:
                left, right = getattr(one, name), getattr(two, name)
                for path in left if isinstance(left, dict) else [None]:
                    a, b = (left, right) if path is None else (left[path], right[path])
                    assert a.dtype == b.dtype
                    assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name
        assert results.players == other_results.players
        for name in ("lineup", "returns", "length", "seed"):
            assert np.array_equal(getattr(results, name), getattr(other_results, name)), name


@pytest.mark.parametrize("game", ["brawl", "turns", "connect_four"])
def test_going_on_from_a_state_in_another_rollout(game):
    make_env = TOYS.get(game, ConnectFour)
    players = alone(opponents(make_env(1)))
    rng = np.random.default_rng(8)
    seats = len(make_env(1).teams)
    first, second = (draw_lineups(names, seats, rng) for names in (["old", "wide"], ["plain", "old"]))

    def new(seed):
        env = make_env(5)
        rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=5, seed=seed)
        rollout.assign(first, players)
        return rollout

    one, other, third = new(0), new(77), new(78)
    for rollout in (one, other):  # the other has a past of its own
        for _ in range(3):
            rollout.collect()
    arrays, meta = one.state()
    for rollout in (other, third):
        assert rollout.set_state({k: v.copy() for k, v in arrays.items()}, meta, players)
    one_on = [one.collect(), *collect_on(one, second_with(second, players, one), 3)]
    for rollout in (other, third):
        on = [rollout.collect(), *collect_on(rollout, second_with(second, players, rollout), 3)]
        assert_equal_collects(one_on, on)


def second_with(lineups, players, rollout):
    """The lineups, with players that the rollout does not know yet brought beforehand."""
    rollout.assign(lineups, players)
    return lineups


def test_a_state_that_was_given_is_not_written_by_going_on():
    def make():
        policy = make_policy(turns(1))
        return make_rollout(turns(4), PolicyPlayer(policy), length=5, seed=0)

    rollout, lineups = make(), Lineups((MAIN,), np.zeros((1, 3), np.int32))
    collect_on(rollout, lineups, 2)
    arrays, meta = rollout.state()
    kept = {name: array.copy() for name, array in arrays.items()}
    other = make()
    other.assign(lineups, {})
    other.set_state(arrays, meta, {})
    other.collect()
    rollout.collect()
    changed = [
        name
        for name in kept
        if not np.array_equal(kept[name], arrays[name], equal_nan=kept[name].dtype.kind == "f")
    ]
    assert not changed


@pytest.mark.parametrize("game", ["memory", "cutoff"])
def test_a_game_without_state_begins_anew_and_says_so(game):
    env = TOYS[game](4)
    lineups = Lineups((MAIN,), np.zeros((1, len(env.teams)), np.int32))
    rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=5, seed=0)
    collect_on(rollout, lineups, 2)
    arrays, meta = rollout.state()
    recorder = Recorder(TOYS[game](4), make_policy(env), length=5, seed=3)
    assert not recorder.rollout.set_state(arrays, meta, {})
    recorder.collect(lineups)  # whole matches from their first decision on: checked
    recorder.collect(lineups)


# Bugs, planted one at a time: the recorder must see each of them.


def patch_settle(change):
    original = Lanes.settle

    def settle(self, reward, terminated, truncated, final_value):
        original(self, *change(self, reward, terminated, truncated, final_value))

    return Lanes, "settle", settle


def drop_rewards_of_waiting_seats():
    """Only the seat that has just acted is paid."""
    acted = {}
    original = PartPlay.act

    def act(self, to_act, *rest):
        acted["now"] = to_act.copy()
        original(self, to_act, *rest)

    return [
        (PartPlay, "act", act),
        patch_settle(
            lambda lanes, r, te, tr, v: (np.where(acted["now"], r, 0).astype(np.float32), te, tr, v)
        ),
    ]


def truncation_is_termination():
    return [patch_settle(lambda lanes, r, te, tr, v: (r, te | tr, np.zeros_like(tr), v))]


def truncation_is_not_valued():
    return [patch_settle(lambda lanes, r, te, tr, v: (r, te, tr, np.zeros_like(v)))]


def truncation_is_valued_in_the_next_match():
    """The value of a view where the state is zero, not of the one reached."""

    def value(self, obs, is_first, state):
        return PolicyPlayer.value(self, obs, np.ones_like(is_first), state)

    from tests.slow_recorder import _SpiedMain

    return [(_SpiedMain, "value", value)]


def bootstrapping_through_termination():
    return [patch_settle(lambda lanes, r, te, tr, v: (r, np.zeros_like(te), te | tr, v))]


def padding_changes_the_state_handed_on():
    """A lane that is full is followed by a decision on nothing, and the state goes on from there."""
    original = PartPlay.act

    def act(self, to_act, lineup, seated, players, rng, recorded):
        original(self, to_act, lineup, seated, players, rng, recorded)
        _, lanes, _ = recorded
        held = np.flatnonzero(lanes.held >= 0)
        full = held[lanes.cursor[lanes.held[held]] == lanes.length]
        (main,) = players[MAIN]
        if not len(full):
            return
        stored = self.state_of(main)
        obs = {path: torch.from_numpy(np.nan_to_num(x)) * 0 for path, x in self.views(full, ())[0].items()}
        entering = torch.from_numpy(stored[:, :, full])
        out = main.policy.step(obs, torch.zeros(len(full), dtype=torch.bool), entering)
        stored[:, :, full] = out.state.detach()

    return [(PartPlay, "act", act)]


def waiting_seats(play, to_act):
    return np.flatnonzero(~to_act[:, play.part.seats].reshape(-1))


def zero_while_waiting():
    original = PartPlay.act

    def act(self, to_act, *rest):
        original(self, to_act, *rest)
        for stored in self.states.values():
            stored[:, :, waiting_seats(self, to_act)] = 0.0

    return [(PartPlay, "act", act)]


def step_while_waiting():
    original = PartPlay.act

    def act(self, to_act, lineup, seated, players, rng, recorded):
        original(self, to_act, lineup, seated, players, rng, recorded)
        rows = waiting_seats(self, to_act)
        (main,) = players[MAIN]
        stored = self.state_of(main)
        obs = {path: torch.from_numpy(np.nan_to_num(x)) for path, x in self.views(rows, ())[0].items()}
        entering = torch.from_numpy(stored[:, :, rows])
        out = main.policy.step(obs, torch.zeros(len(rows), dtype=torch.bool), entering)
        stored[:, :, rows] = out.state.detach()

    return [(PartPlay, "act", act)]


def first_is_never_noticed():
    original = Matches._open

    def open_(self):
        before = [play.is_first.copy() for play in self.parts]
        original(self)
        for play, first in zip(self.parts, before, strict=True):
            play.is_first[:] = first

    return [(Matches, "_open", open_)]


def opponents_change_in_mid_match():
    """New lineups are seated at once, in matches under way too."""
    original = Matches.assign

    def assign(self, lineups, players):
        under_way = self.lineup[:, 0] >= 0
        original(self, lineups, players)
        self.lineup[under_way] = np.resize(self.table, self.lineup.shape)[under_way]

    return [(Matches, "assign", assign)]


def opponents_are_recorded():
    """Not only MAIN's rows, but those of other policies too."""

    class Anybody(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            return other in (MAIN, "old", "older")

    original = PartPlay.act

    def act(self, *args):
        *rest, (name, lanes, version) = args
        original(self, *rest, (Anybody(name), lanes, version))

    return [(PartPlay, "act", act)]


def results_twice():
    original = Matches._finish

    def finish(self, lanes):
        original(self, lanes)
        self.finished.append(self.finished[-1])

    return [(Matches, "_finish", finish)]


def lineups_from_the_first_again():
    original = Matches._open

    def open_(self):
        self.next_lineup = 0
        original(self)

    return [(Matches, "_open", open_)]


def players_are_kept():
    original = Matches.assign

    def assign(self, lineups, players):
        before = dict(self.players), dict(self.ids)
        original(self, lineups, players)
        self.players = before[0] | self.players
        self.ids = before[1] | self.ids

    return [(Matches, "assign", assign)]


def states_shared_by_seats():
    original = PartPlay.act

    def act(self, to_act, *rest):
        original(self, to_act, *rest)
        for stored in self.states.values():
            stored[:] = np.roll(stored, 1, axis=2)

    return [(PartPlay, "act", act)]


def next_value_of_another_seat():
    original = Lanes.record

    def record(self, opened, obs, mask, action, logp, value):
        original(self, opened, obs, mask, action, logp, value)
        known = opened.before >= 0
        self.scalars.reshape(4, -1)[3, opened.before[known]] = np.roll(value, 1)[known]

    return [(Lanes, "record", record)]


def version_of_the_lane_not_of_the_decision():
    original = Lanes.take

    def take(self, number):
        fragment = original(self, number)
        fragment.version[:] = fragment.version[-1]
        return fragment

    return [(Lanes, "take", take)]


PLANTED = [
    (drop_rewards_of_waiting_seats, "turns", "reward"),
    (truncation_is_termination, "cutoff", "terminated"),
    (truncation_is_termination, "brawl", "terminated"),
    (truncation_is_not_valued, "turns", "next_value"),
    (truncation_is_valued_in_the_next_match, "cutoff", "next_value"),
    (bootstrapping_through_termination, "turns", "terminated"),
    (padding_changes_the_state_handed_on, "turns", "state moved"),
    (zero_while_waiting, "turns", "state moved"),
    (step_while_waiting, "turns", "state moved"),
    (first_is_never_noticed, "turns", "is_first"),
    (first_is_never_noticed, "bandit", "is_first"),
    (opponents_change_in_mid_match, "brawl", "is asked for|another seat"),
    (opponents_are_recorded, "turns", "never saw"),
    (results_twice, "bandit", "which matches ended"),
    (lineups_from_the_first_again, "turns", "is asked for"),
    (players_are_kept, "turns", "players are kept"),
    (states_shared_by_seats, "brawl", "state moved"),
    (next_value_of_another_seat, "brawl", "next_value"),
    (version_of_the_lane_not_of_the_decision, "turns", "version"),
]


@pytest.mark.parametrize(
    ("plant", "game", "message"), PLANTED, ids=[f"{plant.__name__}-{game}" for plant, game, _ in PLANTED]
)
def test_planted_bugs_are_seen(monkeypatch, plant, game, message):
    for owner, name, value in plant():
        monkeypatch.setattr(owner, name, value)
    with pytest.raises(AssertionError, match=message):
        play(TOYS[game], collects=8)
