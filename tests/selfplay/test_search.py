"""Search: positions with one right move, backups and beliefs by hand, and that nothing hidden is known."""

import sys
import types

import numpy as np
import pytest
import torch

from envs.connect_four import ConnectFour
from envs.kuhn_poker import KuhnPoker
from envs.matrix_game import MatrixGame
from envs.phantom_tic_tac_toe import PhantomTicTacToe
from envs.registry import make
from envs.tic_tac_toe import TicTacToe
from policies.policy import Policy, PolicySpec
from selfplay.evaluate import evaluate
from selfplay.players import PolicyPlayer
from selfplay.search import belief as belief_module
from selfplay.search import player as player_module
from selfplay.search.belief import UNLIKELY, Belief, Beliefs, systematic
from selfplay.search.minds import seen
from selfplay.search.player import Searcher, picked
from selfplay.search.seating import seat_by_seat
from selfplay.search.tree import Search, _Step, drawn
from selfplay.search.worlds import Simulator, take
from tests.selfplay.test_play import HighestNumber, make_run, played, refused

SLOTS = 64


def make_policy(env, *, seed=0, flat=False, **spec):
    """A policy with random weights; flat: uniform priors and value 0."""
    group = env.groups[0]
    torch.manual_seed(seed)
    options = {"encoder": (16,), "hidden_size": 8} | spec
    private = getattr(env, "privileged_space", None)
    policy = Policy(group.observation_space, group.action_space, PolicySpec(**options), private)
    with torch.no_grad():
        policy.output_weight *= 0 if flat else 30
        policy.output_bias *= 0
    return policy


def make_searcher(game, policy, simulations, *, gamma=1.0, greedy=True, slots=SLOTS):
    """Both seats' searching players of one policy."""
    env = game(slots)
    player = PolicyPlayer(policy)
    simulator = Simulator(env, [player] * len(env.teams))
    return Searcher(simulator, simulations, [gamma] * len(env.teams), greedy=greedy)


def history(env, moves, seat, seed=0):
    """What `seat` has seen and played after these moves on slot 0, at its next decision."""
    env.restart(np.array([0]), np.array([seed], np.uint64))
    known, group = Belief(), env.groups[0]
    for move in [*moves, None]:
        if env.to_act[0, seat]:
            rows = [
                {path: leaf[0, seat][None] for path, leaf in tree.items()} for tree in (group.obs, group.mask)
            ]
            known.seen += seen(*rows)
            if move is not None:
                known.played.append(move)
        if move is not None:
            env.step(({"": np.full(env.to_act.shape, move, np.int64)},))
    assert len(known.seen) == len(known.played) + 1
    return known


def visits_after(game, moves, seat, simulations, *, seed=0, gamma=1.0):
    """How often each move is tried in this position, with uniform priors and value 0."""
    searcher = make_searcher(game, make_policy(game(1), flat=True), simulations, gamma=gamma)
    known = history(game(1), moves, seat)
    rngs = [np.random.default_rng(seed)]
    Beliefs(searcher.sim, seat).update([known], rngs)
    visits, prior = Search(searcher.sim, seat, [known.worlds], simulations, searcher.gamma, rngs).run()
    assert visits.sum() == simulations
    np.testing.assert_allclose(prior[0][prior[0] > 0], 1 / (prior[0] > 0).sum())
    return visits[0]


# Positions with one right move


@pytest.mark.parametrize(
    ("game", "moves", "right"),
    [
        (TicTacToe, [0, 3, 1, 4], {2}),  # wins in the top row, before the other does in the middle
        (TicTacToe, [0, 4, 1], {2}),  # blocks the top row
        (TicTacToe, [4, 0, 8, 2], {1}),  # blocks the top row, as first player
        (ConnectFour, [3, 0, 3, 0, 3, 0], {3}),  # the fourth in the column wins
        (ConnectFour, [3, 0, 3, 0, 3], {3}),  # and is blocked
        (ConnectFour, [2, 2, 3, 3], {1, 4}),  # three open on both sides: wins two moves later
    ],
)
def test_the_forced_move_is_found_without_a_policy(game, moves, right):
    visits = visits_after(game, moves, len(moves) % 2, 300)
    assert visits.argmax() in right
    assert visits[list(right)].sum() > visits.sum() / 2


def test_a_wrong_sign_would_not_find_it(monkeypatch):
    back_up = Search._back_up
    monkeypatch.setattr(
        Search,
        "_back_up",
        lambda self, path, to_come: back_up(
            self, [step._replace(reward=-step.reward) for step in path], -to_come
        ),
    )
    assert visits_after(ConnectFour, [3, 0, 3, 0, 3, 0], 0, 300).argmax() != 3


def test_moves_at_once_come_to_the_dominant_one():
    def prisoners(num_games):
        return MatrixGame(num_games, row_payoff=[[3, 0], [5, 1]], column_payoff=[[3, 5], [0, 1]], rounds=1)

    visits = visits_after(prisoners, [], 0, 300)
    assert visits[1] > 250


def test_moves_at_once_answer_the_policy():
    """Matching pennies, but heads against heads pays 3: against half and half heads is worth more."""

    def pennies(num_games):
        return MatrixGame(num_games, row_payoff=[[3, -1], [-1, 1]], rounds=1)

    assert visits_after(pennies, [], 0, 400)[0] > 300


# Backups


def test_backup_by_hand():
    """Seats 0, 1, 0 decide; paid (1, -1), (0, 2), (4, -4); gamma 1/2; at the leaf seat 1 expects 8."""
    searcher = make_searcher(TicTacToe, make_policy(TicTacToe(1), flat=True), 1, gamma=0.5)
    known = history(TicTacToe(1), [], 0)
    rngs = [np.random.default_rng(0)]
    Beliefs(searcher.sim, 0).update([known], rngs)
    search = Search(searcher.sim, 0, [known.worlds], 1, searcher.gamma, rngs)
    minds = searcher.sim.minds
    to_come = np.zeros((1, 2))
    search._expect(to_come, np.array([0]), np.array([1]), np.array([8.0]))
    assert to_come.tolist() == [[-8.0, 4.0]]
    one = np.zeros(1, np.int64)
    path = [
        _Step(one, one + seat, one + ids, one + 3, one == 0, np.array([reward]))
        for seat, ids, reward in [(0, 5, [1.0, -1.0]), (1, 6, [0.0, 2.0]), (0, 7, [4.0, -4.0])]
    ]
    search._back_up(path, to_come)
    # Seat 0: last decision 4 - 8 = -4; first 1 + 0 + (-4) / 2 = -1. Seat 1: 2 - 4 + 8 / 2 = 2.
    assert minds.total[[5, 6, 7], 3].tolist() == [-1.0, 2.0, -4.0]
    assert minds.visits[[5, 6, 7], 3].tolist() == [1, 1, 1]
    assert (search.low.tolist(), search.high.tolist()) == ([[-4.0, 2.0]], [[-1.0, 2.0]])


def test_without_an_opposite_a_waiting_seat_expects_what_is_left_of_its_last_value():
    searcher = make_searcher(TicTacToe, make_policy(TicTacToe(1), flat=True), 1, gamma=0.5)
    searcher.sim.two_sided = False
    search = Search.__new__(Search)
    search.sim, search.gamma = searcher.sim, np.array([0.5, 0.5])
    to_come = np.array([[3.0, 0.0]])
    search._expect(to_come, np.array([0]), np.array([1]), np.array([8.0]))
    assert to_come.tolist() == [[3.0, 4.0]]


def test_picks_by_visits():
    visits, prior = np.array([[1.0, 3.0, 0.0], [2.0, 2.0, 0.0]]), np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]])
    assert picked(visits, prior, None).tolist() == [1, 1]
    assert [picked(visits, prior, np.full(2, u)).tolist() for u in (0.0, 0.3, 0.99)] == [
        [0, 0],
        [1, 0],
        [1, 1],
    ]


# Beliefs


@pytest.mark.parametrize("game", [TicTacToe, ConnectFour])
def test_without_hidden_information_only_the_true_position_is_left(game):
    moves, seat = [3, 0, 4, 2, 6], 1
    env = game(1)
    known = history(env, moves, seat)
    simulator = make_searcher(game, make_policy(game(1)), 1).sim
    beliefs = Beliefs(simulator, seat)
    beliefs.update([known], [np.random.default_rng(0)])
    assert len(known.worlds["weight"]) == 1
    for name, leaf in env.state().items():
        np.testing.assert_array_equal(known.worlds[f"env:{name}"], leaf, err_msg=name)


def test_where_no_world_agrees_the_policy_is_left_alone():
    """The second view is one that no match shows: the worlds of the first lead nowhere."""
    known = history(TicTacToe(1), [3, 0, 4], 1)
    known.seen[-1] = b"no such view"
    Beliefs(make_searcher(TicTacToe, make_policy(TicTacToe(1)), 1).sim, 1).update(
        [known], [np.random.default_rng(0)]
    )
    assert known.lost
    assert known.worlds is None


def test_worlds_are_as_likely_as_the_rules_and_the_policy_say(monkeypatch):
    """Kuhn: seat 1 holds the queen and sees a bet. Jack or king, as probable as each bets."""
    monkeypatch.setattr(belief_module, "NUM_WORLDS", 8192)
    env, policy = KuhnPoker(1), make_policy(KuhnPoker(1), seed=3)
    with torch.no_grad():
        policy.output_weight *= 10
    seed = next(seed for seed in range(99) if _cards(env, seed) == (2, 1))
    known = history(env, [1], 1, seed)
    simulator = make_searcher(KuhnPoker, policy, 1).sim
    Beliefs(simulator, 1).update([known], [np.random.default_rng(0)])
    bets = []
    for card in (0, 2):
        _cards(env, next(seed for seed in range(99) if _cards(env, seed) == (card, 1)))
        obs = {"": torch.from_numpy(env.groups[0].obs[""][:, 0].copy())}
        out = policy.step(obs, torch.ones(1, dtype=torch.bool), torch.zeros(1, 2, 1, 8))
        bets.append((1 - UNLIKELY) * out.head.flat.softmax(-1)[0, 1].item() + UNLIKELY / 2)
    cards, weight = known.worlds["env:card"][:, 0], known.worlds["weight"]
    assert set(cards.tolist()) == {0, 2}
    share = weight[cards == 0].sum()
    assert share == pytest.approx(bets[0] / sum(bets), abs=0.03)
    assert abs(share - 0.5) > 0.05  # else it would not tell


def _cards(env, seed):
    env.restart(np.array([0]), np.array([seed], np.uint64))
    return tuple(env.state()["card"][0].tolist())


def test_hidden_tries_stay_possible():
    """Phantom tic-tac-toe: after one move each, the other's mark is on any of the eight other cells."""
    known = history(PhantomTicTacToe(1), [4, 0], 0)
    simulator = make_searcher(PhantomTicTacToe, make_policy(PhantomTicTacToe(1), flat=True), 1).sim
    Beliefs(simulator, 0).update([known], [np.random.default_rng(0)])
    marks = known.worlds["env:marks"][:, 1]
    # It may also have tried the centre first, and so know that it is taken: two worlds for each cell.
    assert sorted(set(marks.tolist())) == [1 << cell for cell in range(9) if cell != 4]
    assert len(marks) == 16


def test_what_the_seats_remember_is_what_the_policies_remember():
    """The states that a world holds of both seats are those of a real match, first decision to last."""
    game, policy = TicTacToe, make_policy(TicTacToe(1), seed=1)
    env, states, seat = game(1), [np.zeros((1, 2, 1, 8), np.float32)] * 2, 1
    moves = [4, 0, 8, 2, 1]
    player = PolicyPlayer(policy)
    env.restart(np.array([0]), np.zeros(1, np.uint64))
    for number, move in enumerate(moves):
        group, acting = env.groups[0], number % 2
        views = [{"": leaf[""][:, acting].copy()} for leaf in (group.obs, group.mask)]
        states[acting] = player.act(
            *views, np.array([number < 2]), states[acting], np.random.default_rng(0)
        ).state
        env.step(({"": np.full((1, 2), move, np.int64)},))
    known = history(game(1), moves, seat)
    simulator = make_searcher(game, policy, 1).sim
    Beliefs(simulator, seat).update([known], [np.random.default_rng(0)])
    for own in range(2):
        (number,) = known.worlds["info"][:, own]
        np.testing.assert_allclose(simulator.minds.states[1, 2, 8][number], states[own][:, :, 0], atol=1e-6)
    assert np.abs(states[0] - states[1]).max() > 0.01


def test_evenly_spaced_draws():
    assert systematic(np.array([1.0, 2.0, 1.0]), 4, 0.5).tolist() == [1, 2, 1]
    assert systematic(np.array([0.9, 0.1]), 5, 0.4).tolist() == [5, 0]
    counts = np.bincount(drawn(np.array([0.25, 0.75]), 8, np.random.default_rng(0)), minlength=2)
    assert counts.tolist() == [2, 6]


# Nothing hidden is known


def decide(searcher, env, seat, seed, monkeypatch):
    """How often each choice is tried at the first decision of `seat` in slot 0, others passing before."""
    tried = []
    monkeypatch.setattr(
        player_module, "picked", lambda visits, *rest: (tried.append(visits), picked(visits, *rest))[1]
    )
    env.restart(np.array([0]), np.array([seed], np.uint64))
    while not env.to_act[0, seat]:
        env.step(({"": np.zeros((1, 2), np.int64)},))
    player = searcher.players[seat]
    group = env.groups[0]
    obs, mask = (
        {path: leaf[:, seat].copy() for path, leaf in tree.items()} for tree in (group.obs, group.mask)
    )
    if player.extras:
        obs["@state"] = env.privileged[""].copy()
    state = np.zeros((*player.state_shape[:2], 1, player.state_shape[2]), np.float32)
    before = env.state()
    player.act(obs, mask, np.ones(1, bool), state, np.random.default_rng(7))
    for name, leaf in env.state().items():
        np.testing.assert_array_equal(leaf, before[name], err_msg="the match itself is left alone")
    return tried[0]


def tried_at_equal_views(monkeypatch, seat, critic="privileged"):
    """Kuhn, holding the queen, where the other holds the jack and where it holds the king."""
    env = KuhnPoker(1)
    policy = make_policy(env, seed=2, critic=critic)
    cards = [(1, 0), (1, 2)] if seat == 0 else [(0, 1), (2, 1)]
    seeds = [next(seed for seed in range(99) if _cards(env, seed) == each) for each in cards]
    return [decide(make_searcher(KuhnPoker, policy, 60), env, seat, seed, monkeypatch) for seed in seeds]


@pytest.mark.parametrize("critic", ["shared", "privileged"])
@pytest.mark.parametrize("seat", [0, 1])
def test_a_decision_does_not_depend_on_what_is_hidden(seat, critic, monkeypatch):
    first, second = tried_at_equal_views(monkeypatch, seat, critic)
    np.testing.assert_array_equal(first, second)


def test_it_would_if_a_critics_view_told_which_worlds_agree(monkeypatch):
    def leaking(obs, mask):
        return seen({path.lstrip("@"): leaf for path, leaf in obs.items()}, mask)

    for module in (belief_module, player_module):
        monkeypatch.setattr(module, "seen", leaking)
    first, second = tried_at_equal_views(monkeypatch, 1)
    assert (first != second).any()


def test_it_would_if_the_true_match_were_copied(monkeypatch):
    update = Beliefs.update
    true = []

    def peeking(self, beliefs, rngs):
        update(self, beliefs, rngs)
        for known in beliefs:
            known.worlds = take(known.worlds, known.worlds["env:card"][:, 0] == true[0])
            known.worlds["weight"] = known.worlds["weight"] / known.worlds["weight"].sum()

    monkeypatch.setattr(Beliefs, "update", peeking)
    env, policy = KuhnPoker(1), make_policy(KuhnPoker(1), seed=2)
    tried = []
    for card in (0, 2):
        true[:] = [card]
        seed = next(seed for seed in range(99) if _cards(env, seed) == (card, 1))
        tried.append(decide(make_searcher(KuhnPoker, policy, 60), env, 1, seed, monkeypatch))
    assert (tried[0] != tried[1]).any()


# Whole matches


def seated(game, policy, simulations, **options):
    return tuple(make_searcher(game, policy, simulations, **options).players)


def play_matches(game, slots, games, simulations, *, greedy=False, **spec):
    env = game(slots)
    policy = make_policy(env, seed=5, **spec)
    plain = (PolicyPlayer(policy),) * 2
    own = seated(game, policy, simulations, greedy=greedy)
    return evaluate(env, seat_by_seat(env), [own, plain], games=games, seed=3), own[0].searcher


@pytest.mark.parametrize(
    ("game", "spec"),
    [
        (TicTacToe, {"core": "none"}),
        (TicTacToe, {"previous": True}),
        (PhantomTicTacToe, {"core": "gru"}),
        (KuhnPoker, {"critic": "separate"}),
    ],
)
def test_matches_are_the_same_again_and_alone(game, spec):
    first, searcher = play_matches(game, 4, 4, 6, **spec)
    assert searcher.decisions >= 4
    assert searcher.unsearched == 0
    assert play_matches(game, 4, 4, 6, **spec)[0] == first
    assert play_matches(game, 1, 4, 6, **spec)[0] == first  # whatever is played beside them


def test_beliefs_are_let_go_and_thoughts_forgotten(monkeypatch):
    first, kept = play_matches(TicTacToe, 2, 8, 6)
    monkeypatch.setattr(player_module, "MOST_THOUGHTS", 10)
    again, searcher = play_matches(TicTacToe, 2, 8, 6)
    assert again == first
    assert searcher.sim.minds.size < 30 < kept.sim.minds.size
    assert all(len(player.beliefs) <= 2 for player in searcher.players)


def test_games_from_elsewhere_whose_state_is_their_history():
    pytest.importorskip("pyspiel")

    def leduc(num_games):
        return make("openspiel:leduc_poker", num_games)

    first, searcher = play_matches(leduc, 2, 4, 8)
    assert searcher.decisions >= 4
    assert searcher.unsearched == 0
    assert play_matches(leduc, 2, 4, 8)[0] == first


def test_it_wins_more_than_the_policy_alone():
    result, _ = play_matches(TicTacToe, 20, 20, 24, greedy=True, flat=True)
    assert result.score_ci95[0] > 0.6


def test_where_no_world_agrees_the_policy_plays(monkeypatch):
    monkeypatch.setattr(belief_module, "ROUNDS", 1)

    def random_openings(num_games):
        return ConnectFour(num_games, opening_plies=30)

    def nondeterministic(num_games):
        env = random_openings(num_games)
        env.deterministic = False
        return env

    env = nondeterministic(2)
    policy = make_policy(env, seed=5)
    own = seated(nondeterministic, policy, 4, greedy=False)
    plain = (PolicyPlayer(policy),) * 2
    result = evaluate(env, seat_by_seat(env), [own, plain], games=2, seed=3)
    searcher = own[0].searcher
    assert searcher.unsearched > 0.5 * searcher.decisions
    alone = evaluate(nondeterministic(2), seat_by_seat(env), [plain, plain], games=2, seed=3)
    assert searcher.unsearched < searcher.decisions or result == alone


# On the command line


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def test_no_simulations_are_the_policy_itself(run, capsys):
    plain = played(capsys, run, "bot:one_ply", "--games", 4)
    assert played(capsys, run, "bot:one_ply", "--games", 4, "--search", 0) == plain


def test_search_is_an_option_of_play(run, capsys):
    once = played(capsys, run, "random", "--games", 4, "--search", 16, "--greedy")
    assert once == played(capsys, run, "random", "--games", 4, "--search", 16, "--greedy")
    assert once["games"] == 4


def test_who_cannot_search(run, tmp_path, monkeypatch, capsys):
    module = types.ModuleType("highest_number")
    module.make = HighestNumber
    monkeypatch.setitem(sys.modules, "highest_number", module)
    message = refused(capsys, "random", run, "--search", 8)
    assert "--search 8: it is A that searches, and random is no policy" in message
    path = make_run(tmp_path / "numbers", env={"id": "python:highest_number:make"})
    message = refused(capsys, path, path, path, "--games", 3, "--search", 8)
    assert "--search: python:highest_number:make cannot copy the state of its matches" in message
