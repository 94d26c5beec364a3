"""A decision in one call against `Policy.unroll` at T = 1.

Not to the bit: what is multiplied and added in one instruction is the compiler's choice.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies import gemm
from policies.compiled import Compiled
from policies.cores import CORES
from policies.lstm import LSTM
from policies.policy import Policy, PolicySpec
from selfplay.optim import flatten_
from selfplay.players import PolicyPlayer

pytestmark = pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")

OBSERVATIONS = {
    "within one": spaces.Box(-1, 1, (3, 4)),
    "normalised": spaces.Box(-9, 9, (5,)),
    "flags": spaces.MultiBinary((2, 6)),
    "small integers": spaces.Box(0, 1, (2, 3), np.int8),
    "two leaves": spaces.Dict(a=spaces.Box(-1, 1, (4,)), b=spaces.Box(-30, 30, (2,))),
    "one of them empty": spaces.Dict(a=spaces.Box(-9, 9, (4,)), b=spaces.Box(-9, 9, (0,))),
    "choices": spaces.Dict(a=spaces.Box(-1, 1, (4,)), b=spaces.Discrete(5)),
}
NETWORKS = {
    "usual": {"encoder": (16,), "hidden_size": 24},
    "no encoder": {"encoder": (), "hidden_size": 8},
    "deep": {"encoder": (16, 9), "hidden_size": 17, "num_layers": 3},
}


def make(observation=OBSERVATIONS["within one"], **network):
    torch.manual_seed(0)
    policy = Policy(observation, spaces.Discrete(7), PolicySpec(**(NETWORKS["usual"] | network)))
    with torch.no_grad():
        for param in policy.parameters():
            param.add_(torch.randn_like(param) * 0.1)
        policy.value_mean.fill_(0.3)
        policy.value_std.fill_(2.5)
    return policy


def rows(policy, number, seed=0):
    """obs, is_first, state"""
    rng = np.random.default_rng(seed)
    obs = {}
    for path, space in policy.inputs.items():
        space.seed(seed)
        obs[path] = np.stack([space.sample() for _ in range(number)])
    state = rng.standard_normal((*policy.state_shape[:2], number, policy.state_shape[2])).astype(np.float32)
    return obs, rng.random(number) < 0.3, state


@torch.no_grad()
def unrolled(policy, obs, is_first, state):
    """What the definition gives: [R, K] of the head, value [R], state."""
    inputs = {path: torch.as_tensor(leaf)[None] for path, leaf in obs.items()}
    out = policy.unroll(inputs, torch.from_numpy(is_first)[None], torch.from_numpy(state))
    return out.head.flat[0].numpy(), out.value[0].numpy(), out.state.numpy()


@torch.no_grad()
def stepped(policy, obs, is_first, state):
    assert policy.compiled.usable
    inputs = {path: torch.as_tensor(leaf) for path, leaf in obs.items()}
    out = policy.step(inputs, torch.from_numpy(is_first), torch.from_numpy(state))
    return out.head.flat.numpy(), out.value.numpy(), out.state.numpy()


def same(policy, number=6, seed=0):
    case = rows(policy, number, seed)
    equal(stepped(policy, *case), unrolled(policy, *case))


def equal(got, wanted):
    for own, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(own, other, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("number", [1, 2, 17, 130])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_networks(network, number):
    same(make(**NETWORKS[network]), number)


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=str)
def test_observations(observation):
    policy = make(OBSERVATIONS[observation])
    policy.observe({path: torch.as_tensor(leaf)[None] for path, leaf in rows(policy, 50, 1)[0].items()})
    same(policy)


def test_numbers_that_changed_or_moved_are_the_ones_used():
    policy = make()
    same(policy)
    policy.load_state_dict({k: x * 1.5 for k, x in policy.state_dict().items()})
    same(policy)
    flatten_(list(policy.parameters()))
    with torch.no_grad():
        policy.output_bias.add_(1.0)
    same(policy)


def test_moments_of_inputs_that_moved_are_the_ones_used():
    policy = make(OBSERVATIONS["normalised"])
    case = rows(policy, 6)
    before = stepped(policy, *case)
    other = pickle.loads(pickle.dumps(policy))
    policy.observe({"": 3.0 + torch.as_tensor(rows(policy, 50, 1)[0][""])[None]})
    after = stepped(policy, *case)
    equal(stepped(other, *case), before)  # a copy has moments of its own
    assert not np.allclose(after[0], before[0], atol=1e-3)
    policy.input.leaf[0].scale.plain = True  # torch's own functions, which look nothing up
    equal(after, unrolled(policy, *case))


def test_parameters_and_units_that_were_replaced_are_found():
    policy = make(OBSERVATIONS["normalised"])
    same(policy)
    policy.double()
    policy.float()
    policy.value_mean.fill_(9.0)
    policy.input.leaf[0].scale.moments.update(torch.full((2, 5), 7.0))
    same(policy)
    policy.value_std = policy.value_std * 3.0
    same(policy)
    policy.load_state_dict({k: x * 1.5 for k, x in policy.state_dict().items()}, assign=True)
    same(policy)


def test_rows_that_do_not_fit_are_refused():
    policy = make()
    obs, is_first, state = rows(policy, 6)
    for case in (
        ({"": obs[""][:, :2]}, is_first, state),
        ({"": obs[""][:5]}, is_first, state),
        (obs, is_first[:5], state),
        (obs, is_first, state[:, :, :5]),
        (obs, is_first, np.concatenate((state, state), axis=2)),
        (obs, is_first, state[..., :7]),
    ):
        with pytest.raises(AssertionError):
            policy.compiled.step(*case)


def test_a_copy_has_numbers_of_its_own():
    policy = make()
    same(policy)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        policy.output_bias.add_(1.0)
    same(other)
    case = rows(policy, 4)
    assert not np.array_equal(stepped(policy, *case)[0], stepped(other, *case)[0])


def test_state_in_any_layout_is_read_and_not_written():
    policy = make()
    obs, is_first, state = rows(policy, 6)
    wanted = unrolled(policy, obs, is_first, state)
    turned = np.asfortranarray(state)
    before = turned.copy()
    equal(stepped(policy, obs, is_first, turned), wanted)
    np.testing.assert_array_equal(turned, before)


def test_what_is_not_a_number_is_not_hidden():
    policy = make()
    obs, is_first, state = rows(policy, 3)
    obs[""][1] = np.nan
    flat, value, _ = stepped(policy, obs, is_first, state)
    assert np.isnan(flat[1]).all()
    assert np.isnan(value).tolist() == [False, True, False]


def test_it_is_not_for_gradients_nor_for_other_networks(monkeypatch):
    policy = make()
    obs, is_first, state = rows(policy, 4)
    inputs = {path: torch.as_tensor(leaf) for path, leaf in obs.items()}
    out = policy.step(inputs, torch.from_numpy(is_first), torch.from_numpy(state))
    assert out.value.requires_grad
    assert policy.compiled.usable
    policy.core.plain = True
    assert not policy.compiled.usable
    assert not make().double().compiled.usable
    assert make(core="gru").compiled is None
    monkeypatch.setitem(CORES, "another", type("Another", (LSTM,), {}))  # which may do something else
    assert make(core="another").compiled is None
    assert make(critic="separate").compiled is None


def test_the_callers_threads_are_left_as_they_were():
    before = gemm.set_num_threads(3)
    try:
        same(make())
        assert gemm.set_num_threads(3) == 3
    finally:
        gemm.set_num_threads(before)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("number", [1, 7, 300])
def test_states_go_on_where_they_lie(network, number):
    policy = make(**NETWORKS[network])
    obs, is_first, state = rows(policy, number)
    obs = {path: np.asarray(leaf) for path, leaf in obs.items()}
    wanted = unrolled(policy, obs, is_first, state)
    places = np.random.default_rng(3).permutation(number + 5)[:number]
    stored = np.full((*state.shape[:2], number + 5, state.shape[3]), 7.0, np.float32)
    stored[:, :, places] = state
    uniform = np.random.default_rng(4).random(number, dtype=np.float32)
    drawn = policy.compiled.draw(obs, None, is_first, stored, places, uniform)
    assert drawn.state is stored
    equal((drawn.value, stored[:, :, places]), wanted[1:])
    assert (np.delete(stored, places, axis=2) == 7.0).all()


def test_states_that_lie_elsewhere_are_refused():
    policy = make()
    obs, is_first, state = rows(policy, 6)
    uniform = np.zeros(6, np.float32)
    locked = state.copy()
    locked.flags.writeable = False
    for stored, places in (
        (state, np.arange(6) + 1),
        (state, np.arange(6) - 1),
        (np.asfortranarray(state), np.arange(6)),
        (state.astype(np.float64), np.arange(6)),
        (locked, np.arange(6)),
    ):
        with pytest.raises(AssertionError):
            policy.compiled.draw(obs, None, is_first, stored, places, uniform)


@pytest.mark.parametrize("masked", [True, False])
def test_a_player_decides_the_same_either_way(masked, monkeypatch):
    policy = make()
    obs, is_first, state = rows(policy, 40)
    mask = {"": np.random.default_rng(1).random((40, 7)) < 0.6} if masked else {}
    player = PolicyPlayer(policy)

    def decide():
        return player.act(obs, mask, is_first, state, np.random.default_rng(2))

    one = decide()
    monkeypatch.setattr(Compiled, "usable", False)
    other = decide()
    assert one.action[""].dtype == other.action[""].dtype
    np.testing.assert_array_equal(one.action[""], other.action[""])
    equal((one.logp, one.value, one.state), (other.logp, other.value, other.state))
