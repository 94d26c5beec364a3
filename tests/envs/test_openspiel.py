"""OpenSpiel's games by id: the protocol, and move by move what OpenSpiel itself says."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs import registry
from envs.conformance import check
from envs.random_play import random_actions, restart
from envs.vector import GameError

pyspiel = pytest.importorskip("pyspiel")
from envs.openspiel import load_game, observer  # noqa: E402 (they import pyspiel)
from envs.openspiel_games import OpenSpielGames  # noqa: E402

# Sequential, simultaneous, both by turns; with and without chance; zero-sum, not, and cooperative.
EVERY_KIND = [
    "kuhn_poker(players=3)",
    "leduc_poker",
    "matrix_rps",
    "goofspiel(num_cards=4)",
    "phantom_ttt",
    "backgammon",
    "tiny_hanabi",
    "oshi_zumo",
    "hearts",
    "catch",
    "coop_box_pushing",
    "markov_soccer",
    "pig",
    "snake",
    "negotiation",
    "stones_and_gems",
    "turn_based_simultaneous_game(game=goofspiel(num_cards=3))",
]


def make(game: str, num_games: int = 4, **kwargs) -> OpenSpielGames:
    return OpenSpielGames(f"openspiel:{game}", load_game("test", game), num_games, **kwargs)


@pytest.mark.parametrize("game", EVERY_KIND)
def test_games_of_every_kind_conform(game):
    check(lambda num_games: make(game, num_games), num_games=3, num_steps=25)


@pytest.mark.parametrize("kwargs", [{"observation": "information_state"}, {"privileged": True}])
def test_other_views_conform(kwargs):
    check(lambda num_games: make("leduc_poker", num_games, **kwargs), num_games=3, num_steps=25)


def tensor(state, seat: int) -> np.ndarray:
    """What a seat sees by default, from OpenSpiel's list of it."""
    if state.get_game().get_type().provides_observation_tensor:
        return np.float32(state.observation_tensor(seat))
    return np.float32(state.information_state_tensor(seat))


def splitmix(state: int) -> tuple[int, int]:
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    bits = state
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ bits >> shift) * factor % 2**64
    return state, bits ^ bits >> 31


class Reference:
    """One match by OpenSpiel's own plain calls, chance drawn by the words of the definition."""

    def __init__(self, game: str, seed: int) -> None:
        self.state = pyspiel.load_game(game).new_initial_state()
        self.seed = seed
        self.chance()

    def chance(self) -> None:
        while self.state.is_chance_node():
            self.seed, bits = splitmix(self.seed)
            actions, probabilities = zip(*self.state.chance_outcomes())
            place = np.searchsorted(np.cumsum(probabilities), (bits >> 11) / 2**53, side="right")
            self.state.apply_action(actions[min(place, len(actions) - 1)])

    def acting(self) -> list[int]:
        if self.state.is_terminal():
            return []
        if self.state.is_simultaneous_node():
            return [seat for seat in range(self.state.num_players()) if self.state.legal_actions(seat)]
        return [self.state.current_player()]

    def step(self, action: np.ndarray) -> None:
        seats = self.acting()
        if self.state.is_simultaneous_node():
            joint = [action[seat] if seat in seats else 0 for seat in range(len(action))]
            self.state.apply_actions(joint)
        else:
            self.state.apply_action(action[seats[0]])
        self.chance()


@pytest.mark.parametrize("game", [g for g in EVERY_KIND if g not in ("negotiation", "stones_and_gems")])
def test_every_move_is_as_openspiel_has_it(game):
    env, rng = make(game), np.random.default_rng(1)
    seeds = rng.integers(2**64, size=4, dtype=np.uint64)
    env.restart(np.arange(4), seeds)
    references = [Reference(game, int(seed)) for seed in seeds]
    paid = np.zeros_like(env.reward)
    (group,) = env.groups
    for _ in range(60):
        for k, reference in enumerate(references):
            state, seats = reference.state, reference.acting()
            assert np.flatnonzero(env.to_act[k]).tolist() == seats
            assert env.over[k] == state.is_terminal() == env.terminated[k].all()
            assert paid[k] == pytest.approx(state.returns(), abs=1e-4) or not state.is_terminal()
            for seat in seats:
                np.testing.assert_array_equal(group.obs[""][k, seat].ravel(), tensor(state, seat))
                np.testing.assert_array_equal(group.mask[""][k, seat], state.legal_actions_mask(seat))
        actions = random_actions(env, rng)
        for k, reference in enumerate(references):
            if not env.over[k]:
                reference.step(actions[0][""][k])
        env.step(actions)
        paid += env.reward


def test_rewards_of_every_step_are_paid_at_that_step():
    env, rng = make("coop_box_pushing"), np.random.default_rng(0)
    restart(env, np.arange(4), rng)
    before = np.zeros((4, 2))
    nonzero = 0
    for _ in range(20):
        env.step(random_actions(env, rng))
        now = np.array([match.state.returns() for match in env._matches])
        np.testing.assert_allclose(env.reward, now - before, atol=1e-5)
        nonzero += np.count_nonzero(env.reward)
        before = now
    assert nonzero > 0


def test_chance_is_uniform_where_openspiel_says_so():
    """6 deals of two of three cards: chi-square with 5 degrees of freedom below its 99.9% point."""
    env = make("kuhn_poker", 6000)
    restart(env, np.arange(6000), np.random.default_rng(0))
    deals, counts = np.unique([str(match.state) for match in env._matches], return_counts=True)
    assert len(deals) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5


def test_sampled_chance_comes_from_the_seed():
    env = make("negotiation", 3)
    env.restart(np.arange(3), np.array([5, 5, 6], np.uint64))
    first = env.groups[0].obs[""][:, 0]
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any()


def test_seats_and_teams():
    poker, hanabi, prisoners = make("kuhn_poker(players=3)"), make("tiny_hanabi"), make("matrix_pd")
    assert (poker.teams, poker.zero_sum) == ((0, 1, 2), True)
    assert (hanabi.teams, hanabi.zero_sum) == ((0, 0), False)
    assert (prisoners.teams, prisoners.zero_sum) == ((0, 1), False)
    assert poker.seat_names == ("player_0", "player_1", "player_2")


def test_the_view_is_chosen():
    kuhn = make("kuhn_poker")
    assert kuhn.groups[0].observation_space.shape == (7,)
    assert make("kuhn_poker", observation="information_state").groups[0].observation_space.shape == (11,)
    hearts = make("hearts").groups[0].observation_space  # it has no observation tensor
    assert hearts.shape == tuple(pyspiel.load_game("hearts").information_state_tensor_shape())
    board = make("connect_four").groups[0]
    assert board.observation_space == Box(-np.inf, np.inf, (3, 6, 7))
    assert board.action_space == Discrete(7)
    with pytest.raises(ValueError, match="observation='information_state' must be one of 'auto', 'observ"):
        make("connect_four", observation="information_state")


def test_the_observer_shows_what_the_seat_sees():
    game, env = load_game("test", "leduc_poker"), make("leduc_poker")
    restart(env, np.arange(4), np.random.default_rng(2))
    seen = observer("test", game)(env._matches[2].state, 0)
    np.testing.assert_array_equal(seen, env.groups[0].obs[""][2, 0])


def test_privileged_is_what_all_seats_see():
    env, rng = make("leduc_poker", privileged=True), np.random.default_rng(3)
    restart(env, np.arange(4), rng)
    env.step(random_actions(env, rng))
    for k, match in enumerate(env._matches):
        seen = [match.state.observation_tensor(seat) for seat in range(2)]
        np.testing.assert_array_equal(env.privileged[""][k], np.float32(np.concatenate(seen)))
    assert not hasattr(make("leduc_poker"), "privileged")


class Raises:
    def apply_action(self, action):
        raise pyspiel.SpielError("a rule is broken\nat line 3")


def test_a_match_in_which_openspiel_raises_is_dropped_and_no_other():
    env, plain = make("leduc_poker"), make("leduc_poker")
    for game in (env, plain):
        restart(game, np.arange(4), np.random.default_rng(4))
    env._matches[1].state = Raises()
    actions = random_actions(plain, np.random.default_rng(4))
    for game in (env, plain):
        game.step(actions)
    assert env.dropped.tolist() == [False, True, False, False]
    assert env.over[1]
    for shown in (env.to_act, env.terminated, env.reward):
        assert not shown[1].any()
    assert env.cause == "match 1: SpielError: a rule is broken at line 3"
    np.testing.assert_array_equal(env.to_act[[0, 2, 3]], plain.to_act[[0, 2, 3]])
    again = make("leduc_poker")
    again.set_state(env.state())
    assert again.dropped.tolist() == env.dropped.tolist()
    env.restart(np.array([1]), np.array([9], np.uint64))
    assert not env.dropped.any()
    assert env.to_act[1].any()


def test_a_state_that_does_not_fit_is_refused():
    env = make("leduc_poker", 2)
    restart(env, np.arange(2), np.random.default_rng(0))
    env.step(random_actions(env, np.random.default_rng(0)))
    state = env.state()
    with pytest.raises(GameError, match=r"the state must hold \['dropped', 'history', 'length', "):
        env.set_state({name: array for name, array in state.items() if name != "seed"})
    with pytest.raises(GameError, match=r"state 'history' must be int64 \(2, 1\)"):
        env.set_state(state | {"history": state["history"].astype(np.int32)})
    with pytest.raises(GameError, match=r"state 'to_act' must be bool \(2, 2\)"):
        env.set_state(make("leduc_poker", 3).state())


class Legal:
    """A state whose legal actions are made up."""

    def __init__(self, state, actions):
        self.state = state
        self.actions = actions

    def __getattr__(self, name):
        return getattr(self.state, name)

    def legal_actions(self, seat):
        return self.actions


@pytest.mark.parametrize(
    ("legal", "cause"),
    [
        ([], "RuntimeError: nobody has a legal action in a match in play"),
        ([0, 3], "IndexError: legal action 3 of a game that says it has 3"),
    ],
)
def test_a_match_without_sound_legal_actions_is_dropped(legal, cause):
    env = make("leduc_poker", 2)
    restart(env, np.arange(2), np.random.default_rng(0))
    actions = random_actions(env, np.random.default_rng(0))
    env._matches[0].state = Legal(env._matches[0].state, legal)
    env._observe = lambda state, seat: 0
    env.step(actions)
    assert env.dropped.tolist() == [True, False]
    assert env.cause == f"match 0: {cause}"


def test_what_a_start_is_worth_is_paid_with_the_first_step(monkeypatch):
    env = make("coop_box_pushing", 1)
    restart(env, np.arange(1), np.random.default_rng(0))
    actions = random_actions(env, np.random.default_rng(0))
    env.step(actions)
    plain = env.reward.copy()

    class Worth(Legal):
        def returns(self):
            return [value + 5 for value in self.state.returns()]

        def legal_actions(self, seat):
            return self.state.legal_actions(seat)

    start = env._new_state
    observe = env._observe
    monkeypatch.setattr(env, "_new_state", lambda match: Worth(start(match), None))
    monkeypatch.setattr(env, "_observe", lambda state, seat: observe(state.state, seat))
    restart(env, np.arange(1), np.random.default_rng(0))
    assert not env.reward.any()
    env.step(actions)
    np.testing.assert_allclose(env.reward, plain + 5, atol=1e-5)


def test_words():
    env = make("leduc_poker", 1)
    assert env.render(0) == "not started"
    assert env.action_names(0) is None
    restart(env, np.arange(1), np.random.default_rng(0))
    assert env.action_names(0) == ["0", "Call", "Raise"]
    assert "Player: 0" in env.render(0)


def test_illegal_actions_are_named():
    env = make("leduc_poker", 2)
    restart(env, np.arange(2), np.random.default_rng(0))
    with pytest.raises(GameError, match=r"openspiel:leduc_poker, match 1, seat 0: action 0 .* \[1, 2\]"):
        env.step(({"": np.array([[1, -1], [0, -1]])},))


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("kuhn_pokr", r"OpenSpiel has no 'kuhn_pokr' \(did you mean 'kuhn_poker'\?\)"),
        ("kuhn_poker(players=99)", "OpenSpiel cannot make it: SpielError: .*num_players_ = 99"),
        ("kuhn_poker(playrs=2)", "Unknown parameter 'playrs'. Available parameters are: players"),
        ("misere", r"needs parameters, as in openspiel:misere\(\.\.\.\); it takes game"),
        ("mfg_crowd_modelling", "is a mean-field game"),
        ("liars_dice_ir", "neither an observation tensor nor an information state tensor"),
        ("crossword", "promises a tensor and gives none"),
        ("negotiation(rng_seed=3)", "leave out rng_seed"),
        ("misere(game=negotiation())", "takes no seed"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(game, message):
    with pytest.raises(ValueError, match=message) as refusal:
        registry.make(f"openspiel:{game}", 2)
    assert f"openspiel:{game}" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_the_registry_makes_them_and_checks_kwargs():
    env = registry.make("openspiel:kuhn_poker(players=2)", 3, observation="information_state")
    assert env.id == "openspiel:kuhn_poker(players=2)"
    assert env.openspiel == "kuhn_poker(players=2)"
    assert env.num_games == 3
    with pytest.raises(ValueError, match="has no kwarg 'observatoin'"):
        registry.make("openspiel:kuhn_poker", 3, observatoin="auto")
