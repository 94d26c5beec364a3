"""Critics of their own: what they share with the actor (nothing), what they see, where their value row is."""

import pytest
import torch
from gymnasium import spaces

from policies.policy import Policy, PolicySpec

OBS = spaces.Dict({"a": spaces.Box(-9, 9, (3,)), "b": spaces.Discrete(4)})
STATE = spaces.Dict({"all": spaces.Box(-9, 9, (5,)), "turn": spaces.Discrete(2)})
ACTION = spaces.Discrete(6)
CORES = ["lstm", "lstm_layer_norm", "gru", "none"]
T, N = 4, 3


def make(critic, core="lstm", num_layers=1):
    torch.manual_seed(0)
    spec = PolicySpec((24,), core, 7, num_layers, critic=critic)
    policy = Policy(OBS, ACTION, spec, STATE)
    with torch.no_grad():
        policy.output_weight[: policy.head.num_inputs] *= 100
    return policy


def draw(policy):
    """obs, is_first, state"""
    torch.manual_seed(1)
    obs = {"a": torch.randn(T, N, 3), "b": torch.randint(0, 4, (T, N))}
    if policy.privileged:
        obs |= {"@state/all": torch.randn(T, N, 5), "@state/turn": torch.randint(0, 2, (T, N))}
    layers, vectors, width = policy.state_shape
    is_first = torch.rand(T, N) < 0.3
    is_first[0, 0] = False
    return obs, is_first, torch.randn(layers, vectors, N, width)


def of_critic(name):
    return name.startswith("critic.")


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("critic", ["separate", "privileged"])
def test_losses_stay_on_their_side(critic, core):
    policy = make(critic, core)
    out = policy.unroll(*draw(policy))
    named = dict(policy.named_parameters())
    for loss, critics in ((out.head.flat.square().sum(), False), (out.value.square().sum(), True)):
        grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
        for name, grad in zip(named, grads, strict=True):
            reached = grad is not None and bool((grad != 0).any())
            assert reached == (of_critic(name) == critics), name


def test_a_shared_critic_shares():
    policy = make("shared")
    out = policy.unroll(*draw(policy))
    for loss in (out.head.flat.square().sum(), out.value.square().sum()):
        grads = torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True)
        assert all((grad != 0).any() for grad in grads)


@pytest.mark.parametrize("core", CORES)
def test_the_state_of_the_game_moves_the_value_and_not_the_policy(core):
    policy = make("privileged", core)
    obs, is_first, state = draw(policy)
    out = policy.unroll(obs, is_first, state)
    other = policy.unroll(obs | {"@state/all": torch.randn(T, N, 5)}, is_first, state)
    assert torch.equal(out.head.flat, other.head.flat)
    own = len(out.state) // 2
    assert torch.equal(out.state[:own], other.state[:own])
    assert ((out.value - other.value).abs() > 1e-5).all()
    assert core == "none" or ((out.state[own:] - other.state[own:]).abs() > 1e-6).any()


@pytest.mark.parametrize("core", CORES)
def test_without_the_state_of_the_game_it_plays_alike_and_values_nothing(core):
    policy = make("privileged", core)
    policy.value_mean.fill_(3.0)
    obs, is_first, state = draw(policy)
    out = policy.unroll(obs, is_first, state)
    blind = policy.unroll({path: obs[path] for path in ("a", "b")}, is_first, state)
    assert torch.equal(blind.head.flat, out.head.flat)
    assert (blind.value == 0).all()
    assert blind.state.shape == state.shape
    own = len(state) // 2
    assert torch.equal(blind.state[:own], out.state[:own])
    assert torch.equal(blind.state[own:], state[own:])


def test_half_of_the_state_of_the_game_is_an_error():
    policy = make("privileged")
    obs, is_first, state = draw(policy)
    del obs["@state/turn"]
    with pytest.raises(KeyError):
        policy.unroll(obs, is_first, state)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("critic", ["separate", "privileged"])
def test_the_critics_memory_is_its_own_and_reset_with_the_actors(critic, core):
    policy = make(critic, core, num_layers=2)
    obs, is_first, state = draw(policy)
    layers = policy.core.state_shape[0]
    assert policy.state_shape[0] == 2 * layers
    out = policy.unroll(obs, is_first, state)
    if layers:
        moved = state.clone()
        moved[layers:] += 1
        other = policy.unroll(obs, is_first, moved)
        assert torch.equal(other.head.flat, out.head.flat)
        assert ((other.value - out.value)[0, ~is_first[0]].abs() > 1e-6).all()
    is_first[2] = True
    whole = policy.unroll(obs, is_first, state)
    fresh = policy.unroll({k: x[2:] for k, x in obs.items()}, is_first[2:], torch.full_like(state, 1e5))
    torch.testing.assert_close(whole.value[2:], fresh.value, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.head.flat[2:], fresh.head.flat, rtol=0, atol=1e-5)


@pytest.mark.parametrize("critic", ["shared", "separate", "privileged"])
def test_the_value_layer_is_what_makes_the_value(critic):
    """Rescaled as PopArt does, with value_mean and value_std moved, the values stay."""
    policy = make(critic)
    case = draw(policy)
    before = policy.unroll(*case)
    weight, bias = policy.value_layer()
    assert weight.shape == (1, 7)
    assert bias.shape == (1,)
    weight.mul_(1 / 4)
    bias.mul_(1 / 4).sub_(10 / 4)
    policy.value_mean.fill_(10.0)
    policy.value_std.fill_(4.0)
    after = policy.unroll(*case)
    torch.testing.assert_close(after.value, before.value, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.head.flat, before.head.flat)
    weight.zero_()
    bias.zero_()
    assert (policy.unroll(*case).value == 10).all()


def test_observe_moves_the_moments_of_both():
    policy = make("privileged")
    obs, *_ = draw(policy)
    policy.observe(obs)
    moments = {name: x for name, x in policy.state_dict().items() if name.endswith("moments.mean")}
    assert set(moments) == {
        "input.leaf.0.scale.moments.mean",
        "critic.input.leaf.0.scale.moments.mean",
        "critic.input.leaf.2.scale.moments.mean",
    }
    torch.testing.assert_close(
        moments["critic.input.leaf.2.scale.moments.mean"].float(), obs["@state/all"].mean((0, 1))
    )
    # In play there is no state of the game to observe, and the actor's moments are the same.
    actor = make("privileged")
    actor.observe({path: obs[path] for path in ("a", "b")})
    assert torch.equal(actor.input.leaf[0].scale.moments.mean, moments["input.leaf.0.scale.moments.mean"])
    assert actor.critic.input.leaf[0].scale.moments.count == 0


def test_a_privileged_critic_without_a_state_is_refused():
    with pytest.raises(ValueError, match="needs a game that shows its whole state"):
        Policy(OBS, ACTION, PolicySpec(critic="privileged"))


def test_the_actor_is_the_same_network_whatever_the_critic():
    names = {name: p.shape for name, p in make("separate").named_parameters() if not of_critic(name)}
    shared = {name: p.shape for name, p in make("shared").named_parameters()}
    assert set(names) == set(shared)
    assert names["output_weight"] == (6, 7)
    assert shared["output_weight"] == (7, 7)
