"""The replay check: quiet over everything that a rollout meets, loud at every bug that makes it wrong."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.connect_four import ConnectFour
from policies.heads import CategoricalHead
from policies.lstm import LSTM
from policies.policy import Policy
from selfplay import replay
from selfplay.config import Config
from selfplay.fragments import concatenate
from selfplay.lanes import Lanes
from selfplay.part_play import PartPlay
from selfplay.players import PolicyPlayer
from selfplay.replay import ReplayError, check_replay, replay_difference
from selfplay.rollout import Matches
from tests.playing import alone, make_rollout
from tests.selfplay.test_rollout import (
    draw_lineups,
    first_is_never_noticed,
    make_policy,
    opponents,
    states_shared_by_seats,
    step_while_waiting,
    zero_while_waiting,
)
from tests.toy_games import TOYS

GAMES = {**TOYS, "connect_four": ConnectFour}
MARGIN = 20  # correct code stays as many times below TOLERANCE, and bugs lie as many above; half of it
# where the policy is untrained, hence near uniform, as at the start of a run


def collect(game, *, collects=4, length=6, games=5, seed=0, bold=True, num_layers=1):
    """One policy's fragments against changing opponents: resets, waits, masks, truncations; all lanes."""
    env = GAMES[game](games)
    policy = make_policy(env, bold=bold, num_layers=num_layers, hidden_size=16)
    rollout = make_rollout(env, PolicyPlayer(policy), length=length, seed=seed)
    rng = np.random.default_rng(seed)
    others, fragments = opponents(env, hidden_size=16), []
    for names in (["old", "random"], ["plain"], ["wide", "older"], ["random", "old"]) * (collects // 4):
        rollout.assign(draw_lineups(names, len(env.teams), rng), alone(others))
        fragments.append(rollout.collect()[0][0])
    return policy, concatenate(fragments)


@functools.cache
def sound(game, bold):
    return collect(game, bold=bold)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("game", GAMES)
def test_ratio_is_one(game, num_layers):
    policy, fragment = collect(game, num_layers=num_layers)
    difference = check_replay(policy, fragment, 0)
    print(f"{game}: {difference}")
    assert max(difference) * MARGIN < replay.TOLERANCE
    # The policy is bold enough for a wrong state to show: it prefers some actions, and not always the same.
    assert fragment.logp.std() > 0.15
    assert fragment.value.std() > 0.05


@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_ratio_is_one_at_any_length(length):
    policy, fragment = collect("turns", length=length)
    assert max(check_replay(policy, fragment, 0)) * MARGIN < replay.TOLERANCE


def test_only_lanes_of_the_version_asked_for_are_compared():
    policy, fragment = collect("turns")
    assert replay_difference(policy, fragment, 5) is None
    version = fragment.version.copy()
    version[-1, 1:] = 1  # lane 0 alone is all of version 0; the others may hold anything
    logp = fragment.logp.copy()
    logp[:, 1:] = np.nan
    assert max(check_replay(policy, replace(fragment, version=version, logp=logp), 0)) < replay.TOLERANCE
    with pytest.raises(ReplayError):
        check_replay(policy, replace(fragment, logp=logp), 0)


@pytest.mark.parametrize("field", ["logp", "value"])
@pytest.mark.parametrize("wrong", [0.01, -0.01, np.nan, np.inf])
def test_one_wrong_number_is_refused(field, wrong):
    policy, fragment = collect("brawl")
    array = getattr(fragment, field).copy()
    array[3, 2] += wrong * (1 + abs(array[3, 2])) if field == "value" else wrong
    with pytest.raises(ReplayError, match="replaying the fragments of version 0"):
        check_replay(policy, replace(fragment, **{field: array}), 0)


# Bugs. First those of what is recorded or learned from: the fragment itself is made wrong.


def lanes_shuffled_between_obs_and_state(f):
    return replace(f, initial_state=np.roll(f.initial_state, 1, axis=2))


def layers_or_halves_of_the_state_swapped(f):
    return replace(f, initial_state=np.ascontiguousarray(f.initial_state[:, ::-1]))


def no_state(f):
    return replace(f, initial_state=np.zeros_like(f.initial_state))


def no_reset(f):
    return replace(f, is_first=np.zeros_like(f.is_first))


def reset_one_step_late(f):
    late = np.zeros_like(f.is_first)
    late[1:] = f.is_first[:-1]
    return replace(f, is_first=late)


def reset_one_step_early(f):
    """By the flags of endings, as if they opened an episode."""
    return replace(f, is_first=f.terminated | f.truncated)


def reset_everywhere(f):
    return replace(f, is_first=np.ones_like(f.is_first))


def mask_of_the_decision_before(f):
    return replace(f, mask={path: np.roll(leaf, 1, axis=0) for path, leaf in f.mask.items()})


def mask_ignored(f):
    return replace(f, mask={path: np.ones_like(leaf) for path, leaf in f.mask.items()})


def actions_of_other_lanes(f):
    return replace(f, action={path: np.roll(leaf, 1, axis=1) for path, leaf in f.action.items()})


def view_after_the_action(f):
    """An observation that the game went on writing to."""
    return replace(f, obs={path: np.roll(leaf, -1, axis=0) for path, leaf in f.obs.items()})


def a_hole_in_every_lane(f):
    """A row of padding in the middle: nothing is decided there, but the state is stepped."""
    middle = f.is_first.shape[0] // 2

    def hole(array, axis):
        if axis != 1:
            return array
        padded = np.insert(array, middle, np.zeros_like(array[0]), axis=0)
        return padded[: len(array)]

    given = f.map(hole)

    def fill(name):  # what padding would hold if the numbers of its row were right
        array = getattr(given, name).copy()
        array[middle] = np.nan
        return array

    return replace(given, logp=fill("logp"), value=fill("value"))


FRAGMENTS = [
    (lanes_shuffled_between_obs_and_state, "turns"),
    (layers_or_halves_of_the_state_swapped, "brawl"),
    (no_state, "brawl"),
    (no_reset, "memory"),
    (no_reset, "connect_four"),
    (reset_one_step_late, "turns"),
    (reset_one_step_late, "connect_four"),
    (reset_one_step_early, "turns"),
    (reset_one_step_early, "connect_four"),
    (reset_everywhere, "memory"),
    (mask_of_the_decision_before, "brawl"),
    (mask_ignored, "turns"),
    (mask_ignored, "brawl"),
    (actions_of_other_lanes, "brawl"),
    (view_after_the_action, "connect_four"),
]


@pytest.mark.parametrize("bold", [True, False], ids=["bold", "untrained"])
@pytest.mark.parametrize(("bug", "game"), FRAGMENTS, ids=[f"{b.__name__}-{g}" for b, g in FRAGMENTS])
def test_wrong_fragments_are_refused(bug, game, bold):
    """With bold weights, and with the near-uniform ones with which a run begins."""
    policy, fragment = sound(game, bold)
    wrong = bug(fragment)
    difference = replay_difference(policy, wrong, 0)
    print(f"{bug.__name__} in {game}: {difference}")
    assert max(difference) > (MARGIN if bold else MARGIN / 2) * replay.TOLERANCE
    with pytest.raises(ReplayError):
        check_replay(policy, wrong, 0)


def test_a_hole_changes_the_state_of_what_follows():
    policy, fragment = collect("turns")
    wrong = a_hole_in_every_lane(fragment)
    middle = len(wrong.logp) // 2
    state = torch.from_numpy(wrong.initial_state)
    obs = {path: torch.from_numpy(leaf) for path, leaf in wrong.obs.items()}
    value = policy.unroll(obs, torch.from_numpy(wrong.is_first), state).value.numpy()
    gap = np.abs(value - wrong.value)
    assert gap[:middle].max() * MARGIN < replay.TOLERANCE
    after = ~wrong.is_first[middle + 1]
    assert np.median(gap[middle + 1][after]) > replay.TOLERANCE
    with pytest.raises(ReplayError):
        check_replay(policy, wrong, 0)


# Then those of acting, planted in the code that runs.


def never_reset_while_acting():
    original = PolicyPlayer.act

    def act(self, obs, mask, is_first, state, rng):
        return original(self, obs, mask, np.zeros_like(is_first), state, rng)

    return [(PolicyPlayer, "act", act)]


def reset_late_while_acting():
    """The state is zeroed before a match's second decision of a seat, not its first."""
    original = PartPlay.act

    def act(self, to_act, *rest):
        if not hasattr(self, "late"):
            self.late = np.zeros_like(self.is_first)
        acting = np.flatnonzero(to_act[:, self.part.seats])
        first = self.is_first.copy()
        late = np.flatnonzero(self.late)
        for stored in self.states.values():
            stored[:, :, late] = 0.0
        self.late[acting] = first[acting]
        original(self, to_act, *rest)

    return [*never_reset_while_acting(), (PartPlay, "act", act)]


def reset_early_while_acting():
    """The state is zeroed for the last decision that a fragment has room for."""
    original = PolicyPlayer.act
    count = {"calls": 0}

    def act(self, obs, mask, is_first, state, rng):
        count["calls"] += 1
        return original(self, obs, mask, is_first | (count["calls"] % 3 == 0), state, rng)

    return [(PolicyPlayer, "act", act)]


def initial_state_of_after_the_step():
    last = {}
    act, record = PolicyPlayer.act, Lanes.record

    def remember(self, *args):
        last["state"] = act(self, *args)
        return last["state"]

    def late(self, opened, *decided):
        later = (opened.place < self.columns) & ~self.flags[0].reshape(-1)[opened.place]
        after = last["state"].state[:, :, later]
        self.initial_state[opened.place[later]] = after.transpose(2, 0, 1, 3)
        record(self, opened, *decided)

    return [(PolicyPlayer, "act", remember), (Lanes, "record", late)]


def padding_in_the_state_handed_on():
    """The state of the next fragment comes from an unroll over padding, not from what was played."""
    original = Lanes.record

    def record(self, opened, *decided):
        handed_on = opened.place[(opened.place < self.columns) & (opened.before >= 0)]
        self.initial_state[handed_on] *= 0.5
        original(self, opened, *decided)

    return [(Lanes, "record", record)]


def lanes_shuffled_by_take():
    original = Lanes.take

    def take(self, number):
        return lanes_shuffled_between_obs_and_state(original(self, number))

    return [(Lanes, "take", take)]


def somebody_else_plays_a_while():
    """An opponent sits in MAIN's seat for one step in three, with the state that it finds there."""
    original = PartPlay.act
    count = {"calls": 0}

    def act(self, to_act, lineup, seated, players, *rest):
        count["calls"] += 1
        if count["calls"] % 3 == 0 and "old" in players:
            (old,) = (k for k, name in seated.items() if name == "old")
            lineup = np.where(lineup == 0, old, lineup)
        original(self, to_act, lineup, seated, players, *rest)

    return [(PartPlay, "act", act)]


def mask_ignored_while_learning():
    def evaluate(self, x, mask, action):
        log_probs = x.flat.log_softmax(-1)
        return log_probs.gather(-1, action[""][..., None])[..., 0], -(log_probs.exp() * log_probs).sum(-1)

    return [(CategoricalHead, "evaluate", evaluate)]


def resets_ignored_while_learning():
    original = LSTM.forward

    def forward(self, x, is_first, state):
        return original(self, x, is_first if len(x) == 1 else torch.zeros_like(is_first), state)

    return [(LSTM, "forward", forward)]


def learning_in_the_order_of_lanes():
    """[T, N] flattened as [N, T] and back: the classic of a wrong reshape."""
    original = Policy.unroll

    def unroll(self, obs, is_first, state):
        length, lanes = is_first.shape
        obs = {
            path: leaf.transpose(0, 1).reshape(length, lanes, *leaf.shape[2:]) for path, leaf in obs.items()
        }
        return original(self, obs, is_first, state)

    return [(Policy, "unroll", unroll)]


def other_weights():
    """The policy that acts is not the one that learns."""
    original = PolicyPlayer.__init__

    def init(self, policy, **kwargs):
        original(self, policy, **kwargs)
        import copy

        self.policy = copy.deepcopy(policy)
        self.policy.output_weight.data *= 1.3

    return [(PolicyPlayer, "__init__", init)]


ACTING = [
    (never_reset_while_acting, "bandit"),
    (never_reset_while_acting, "connect_four"),
    (first_is_never_noticed, "turns"),
    (reset_late_while_acting, "turns"),
    (reset_late_while_acting, "connect_four"),
    (reset_early_while_acting, "turns"),
    (step_while_waiting, "turns"),
    (step_while_waiting, "connect_four"),
    (zero_while_waiting, "turns"),
    (zero_while_waiting, "connect_four"),
    (states_shared_by_seats, "brawl"),
    (initial_state_of_after_the_step, "brawl"),
    (initial_state_of_after_the_step, "connect_four"),
    (padding_in_the_state_handed_on, "connect_four"),
    (lanes_shuffled_by_take, "turns"),
    (somebody_else_plays_a_while, "connect_four"),
    (mask_ignored_while_learning, "turns"),
    (resets_ignored_while_learning, "memory"),
    (learning_in_the_order_of_lanes, "brawl"),
    (other_weights, "connect_four"),
]


@pytest.mark.parametrize("bold", [True, False], ids=["bold", "untrained"])
@pytest.mark.parametrize(("plant", "game"), ACTING, ids=[f"{p.__name__}-{g}" for p, g in ACTING])
def test_bugs_of_acting_and_learning_are_refused(monkeypatch, plant, game, bold):
    for owner, name, value in plant():
        monkeypatch.setattr(owner, name, value)
    if (plant, game) == (first_is_never_noticed, "turns"):
        # Where nothing is ever first, nobody takes on the columns of matches that ended.
        with pytest.raises(AssertionError, match="more slowly"):
            collect(game, bold=bold)
        return
    policy, fragment = collect(game, bold=bold)
    difference = replay_difference(policy, fragment, 0)
    print(f"{plant.__name__} in {game}: {difference}")
    assert max(difference) > (MARGIN if bold else MARGIN / 2) * replay.TOLERANCE
    with pytest.raises(ReplayError):
        check_replay(policy, fragment, 0)


@pytest.mark.parametrize("plant", [never_reset_while_acting, zero_while_waiting, lanes_shuffled_by_take])
def test_training_refuses_to_start(monkeypatch, run_dir, plant):
    from selfplay.train import run

    for owner, name, value in plant():
        monkeypatch.setattr(owner, name, value)
    table = {
        "env": {"id": "connect_four"},
        "policy": {"encoder": [8], "hidden_size": 8},
        "rollout": {"num_games": 8, "num_workers": 0, "fragment_length": 8},
        "league": {"rating_games": 2},
        "stop": {"iterations": 2},
        "device": "cpu",
    }
    with pytest.raises(ReplayError):
        run(Config.model_validate(table), run_dir, resume=False)
    assert not (run_dir / "metrics.jsonl").exists()


def test_matches_is_what_is_patched():
    """The plants above replace what runs: each of these names exists."""
    for plant in {plant for plant, _ in ACTING}:
        assert all(hasattr(owner, name) for owner, name, _ in plant())
    assert hasattr(Matches, "_open")
