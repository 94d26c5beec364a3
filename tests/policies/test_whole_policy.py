"""Policies with everything in them: what was sampled step by step is what a whole unroll evaluates."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies.cores import CORES
from policies.encoders import images
from policies.heads import HeadInput
from policies.policy import Policy, PolicySpec
from policies.spaces import PREVIOUS_ACTION, leaves, previous_rows

INF = np.inf
OBS = spaces.Dict(
    {
        "vector": spaces.Box(-INF, INF, (3,), np.float64),
        "clock": spaces.Box(0, 50, (), np.int64),
        "board": spaces.Box(0, 1, (3, 3, 2), bool),
        "camera": spaces.Box(0, 255, (9, 10, 3), np.uint8),
        "radar": spaces.Box(-INF, INF, (2, 8, 9)),
        "map": spaces.Box(0, 255, (12, 8), np.uint8),
        "parts": spaces.Tuple(
            (
                spaces.Discrete(100, start=-3),
                spaces.MultiDiscrete([[3, 2], [70, 4]]),
                spaces.Dict({"flags": spaces.MultiBinary((2, 2))}),
            )
        ),
        "units": spaces.Box(-9, 9, (4, 3)),
        "units_mask": spaces.MultiBinary(4),
    }
)
STATE = spaces.Tuple((spaces.Box(-INF, INF, (6,)), spaces.Discrete(3)))
COMPOSITE = spaces.Dict(
    {
        "kind": spaces.Discrete(3),
        "unit": spaces.Discrete(4),
        "where": spaces.Tuple((spaces.MultiDiscrete([3, 2], start=[1, 0]), spaces.MultiBinary(2))),
        "aim": spaces.Box(np.float32([-2, 0]), np.float32([2, 9])),
    }
)
SPECIAL = {"uses": {"unit": {"kind": [1, 2]}, "aim": {"kind": [2]}}, "points": {"unit": "units"}}
HEADS = {
    "categorical": (spaces.Discrete(5, start=2), {}),
    "multi": (spaces.MultiDiscrete([3, 4]), {}),
    "binary": (spaces.MultiBinary(3), {}),
    "box": (spaces.Box(-2, 3, (2,)), {}),
    "unbounded": (spaces.Box(-INF, INF, (2,)), {}),
    "composite": (COMPOSITE, SPECIAL),
    "autoregressive": (COMPOSITE, {**SPECIAL, "autoregressive": True}),
}
T, N = 6, 5


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """Drawing the first weights of three images' last layers would take most of the time."""
    monkeypatch.setattr(images, "IMAGE_SIZE", 8)


def make(head, core="lstm", critic="shared", **kwargs):
    """A policy so bold that a wrong input shows in every probability."""
    action_space, special = HEADS[head]
    torch.manual_seed(0)
    spec = PolicySpec((16,), core, 9, 2, critic=critic, previous=True, **{**special, **kwargs})
    policy = Policy(OBS, action_space, spec, STATE)
    with torch.no_grad():
        policy.output_weight[: policy.head.num_inputs] *= 100
        policy.output_bias.uniform_(-1, 1)
    return policy.requires_grad_(False)


def draw(policy, seed=0):
    """Leaves [T, N, ...] of everything that the policy sees but its own previous actions."""
    obs = {}
    for k, (path, space) in enumerate(policy.inputs.items()):
        space = copy.deepcopy(space)
        space.seed(seed + k)
        rows = np.stack([np.asarray(space.sample()) for _ in range(T * N)])
        obs[path] = torch.from_numpy(rows).unflatten(0, (T, N))
    return {path: leaf for path, leaf in obs.items() if not path.startswith(PREVIOUS_ACTION)}


def draw_masks(space):
    """Legal choices [T, N, ...] for every leaf of choices, the first of each part among them; no pointers."""
    masks = {}
    for path, leaf in leaves(space).items():
        if path == "unit" or isinstance(leaf, spaces.Box):
            continue
        shape = leaf.shape if isinstance(leaf, spaces.MultiBinary) else ()
        sizes = [leaf.n] if isinstance(leaf, spaces.Discrete) else getattr(leaf, "nvec", np.full(shape, 2))
        parts = []
        for size in np.reshape(sizes, -1):
            parts.append(torch.rand(T, N, int(size)) < 0.6)
            parts[-1][..., 0] = True
        masks[path] = torch.cat(parts, dim=-1)
    return masks


def act(policy, space, obs, masks, is_first, state):
    """Step by step: obs with the previous actions that came about, action, logp, value; state."""
    names = {path: f"{PREVIOUS_ACTION}/{path}" if path else PREVIOUS_ACTION for path in leaves(space)}
    previous = {
        name: np.zeros((N, *policy.inputs[name].shape), policy.inputs[name].dtype) for name in names.values()
    }
    steps = []
    for t in range(T):
        for leaf in previous.values():
            leaf[is_first[t].numpy()] = 0
        seen = {path: leaf[t] for path, leaf in obs.items()}
        seen |= {name: torch.from_numpy(leaf.copy()) for name, leaf in previous.items()}
        out = policy.step(seen, is_first[t], state)
        uniform = torch.rand(N, policy.head.num_uniforms)
        action, logp = policy.head.sample(out.head, {k: m[t] for k, m in masks.items()}, uniform)
        rows = previous_rows(space, {path: leaf.numpy() for path, leaf in action.items()})
        previous = {names[path]: leaf.copy() for path, leaf in rows.items()}
        steps.append((seen, action, logp, out.value))
        state = out.state
    seen, action, logp, value = zip(*steps, strict=True)

    def together(trees):
        return {path: torch.stack([tree[path] for tree in trees]) for path in trees[0]}

    return together(seen), together(action), torch.stack(logp), torch.stack(value), state


def compare(policy, space):
    torch.manual_seed(2)
    obs, masks, is_first = draw(policy), draw_masks(space), torch.rand(T, N) < 0.25
    layers, vectors, width = policy.state_shape
    state = torch.randn(layers, vectors, N, width)
    seen, action, logp, value, last = act(policy, space, obs, masks, is_first, state)
    out = policy.unroll(seen, is_first, state)
    again, entropy = policy.head.evaluate(out.head, masks, action)
    torch.testing.assert_close(again, logp, rtol=0, atol=1e-4)
    torch.testing.assert_close(out.value, value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.state, last, rtol=0, atol=1e-4)
    assert logp.std() > 0.05
    assert torch.isfinite(entropy).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("core", CORES)
def test_the_ratio_is_one(core, head):
    compare(make(head, core), HEADS[head][0])


@pytest.mark.parametrize(("critic", "cnn"), [("separate", "deep"), ("privileged", "small")])
def test_the_ratio_is_one_with_critics_of_their_own(critic, cnn):
    compare(make("composite", critic=critic, cnn=cnn), COMPOSITE)


def test_the_ratio_is_one_after_the_moments_moved():
    policy = make("composite", normalize="on")
    policy.observe(draw(policy, 1) | no_actions(policy))
    counts = {n: int(x) for n, x in policy.state_dict().items() if n.endswith("count") and ".leaf." in n}
    assert set(counts.values()) == {T * N, T * N * 8 * 9}  # the radar's are by channel
    compare(policy, COMPOSITE)


def no_actions(policy):
    return {
        path: torch.from_numpy(np.zeros((T, N, *space.shape), space.dtype))
        for path, space in policy.inputs.items()
        if path.startswith(PREVIOUS_ACTION)
    }


def forgets_resets(self, obs, is_first, state, original=Policy.unroll):
    return original(self, obs, torch.zeros_like(is_first) if len(is_first) > 1 else is_first, state)


def shifts_previous_actions(self, obs, is_first, state, original=Policy.unroll):
    if len(is_first) > 1:
        obs = {k: x.roll(1, 0) if k.startswith(PREVIOUS_ACTION) else x for k, x in obs.items()}
    return original(self, obs, is_first, state)


def sees_every_unit(self, obs, is_first, state, original=Policy.unroll):
    if len(is_first) > 1:
        obs = obs | {"units_mask": torch.ones_like(obs["units_mask"])}
    return original(self, obs, is_first, state)


@pytest.mark.parametrize("core", [core for core in CORES if core != "none"])
@pytest.mark.parametrize("broken", [forgets_resets, shifts_previous_actions, sees_every_unit])
def test_broken_unrolls_are_seen(monkeypatch, broken, core):
    monkeypatch.setattr(Policy, "unroll", broken)
    with pytest.raises(AssertionError):
        compare(make("composite", core), COMPOSITE)


@pytest.mark.parametrize("critic", ["shared", "separate", "privileged"])
def test_every_leaf_is_looked_at(critic):
    policy = make("composite", critic=critic)
    obs = draw(policy) | no_actions(policy)
    assert set(obs) == set(policy.inputs)
    layers, vectors, width = policy.state_shape
    rest = torch.zeros(T, N, dtype=torch.bool), torch.zeros(layers, vectors, N, width)
    out = policy.unroll(obs, *rest)
    for path in obs:
        other = policy.unroll(obs | {path: draw(policy, 50).get(path, torch.ones_like(obs[path]))}, *rest)
        moved = (out.head.flat - other.head.flat).abs().max(), (out.value - other.value).abs().max()
        assert moved[1] > 1e-5, path
        assert path.startswith("@state") == bool(moved[0] == 0), path


@pytest.mark.parametrize("critic", ["shared", "separate", "privileged"])
@pytest.mark.parametrize("head", HEADS)
def test_a_loss_reaches_every_parameter(head, critic):
    policy = make(head, critic=critic)
    for parameter in policy.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter)).requires_grad_()
    space = HEADS[head][0]
    obs, masks = draw(policy) | no_actions(policy), draw_masks(space)
    layers, vectors, width = policy.state_shape
    out = policy.unroll(obs, torch.rand(T, N) < 0.2, torch.randn(layers, vectors, N, width))
    flat = {path: leaf.flatten(0, 1) for path, leaf in masks.items()}
    uniform = torch.rand(T * N, policy.head.num_uniforms)
    action, _ = policy.head.sample(rows_of(out.head), flat, uniform)
    action = {path: leaf.unflatten(0, (T, N)) for path, leaf in action.items()}
    logp, entropy = policy.head.evaluate(out.head, masks, action)
    loss = logp.sum() + entropy.sum() + out.value.square().sum()
    names, parameters = zip(*policy.named_parameters(), strict=True)
    for name, grad in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        assert torch.isfinite(grad).all(), name
        assert (grad != 0).any() or name.startswith("head."), name


def rows_of(head):
    """A head's input [T, N, ...] as rows."""
    flat, entities, present = head
    return HeadInput(
        flat.detach().flatten(0, 1),
        {path: x.detach().flatten(0, 1) for path, x in entities.items()},
        {path: x.flatten(0, 1) for path, x in present.items()},
    )


@pytest.mark.parametrize("core", CORES)
def test_half_precision_comes_close_and_heads_get_all_bits(core):
    policy = make("composite", core, "separate")
    obs = draw(policy) | no_actions(policy)
    layers, vectors, width = policy.state_shape
    rest = torch.rand(T, N) < 0.2, torch.randn(layers, vectors, N, width)
    exact = policy.unroll(obs, *rest)
    with torch.autocast("cpu", torch.bfloat16):
        out = policy.unroll(obs, *rest)
    assert out.head.flat.dtype == out.value.dtype == out.head.entities["units"].dtype == torch.float32
    torch.testing.assert_close(out.head.flat, exact.head.flat, rtol=0.1, atol=0.3)
    torch.testing.assert_close(out.value, exact.value, rtol=0.1, atol=0.1)


def test_leaves_that_nobody_asked_for_are_not_looked_at():
    policy = make("categorical")
    obs = draw(policy) | no_actions(policy)
    state = torch.zeros(2, 2, N, 9)
    first = torch.ones(T, N, dtype=torch.bool)
    out = policy.unroll(obs | {"@state/0": torch.full((T, N, 6), torch.nan)}, first, state)
    assert torch.equal(out.head.flat, policy.unroll(obs, first, state).head.flat)


def test_what_a_policy_reads_by_path():
    policy = Policy(spaces.Discrete(3), spaces.Discrete(4, start=7), PolicySpec(previous=True))
    assert list(policy.inputs) == ["", "@action", "@reward"]
    assert policy.inputs["@action"] == spaces.Discrete(5)
    assert policy.inputs["@reward"].shape == (1,)
    assert list(Policy(OBS["parts"], COMPOSITE, PolicySpec()).inputs) == ["0", "1", "2/flags"]
    names = list(make("composite", critic="privileged").inputs)
    assert names[-2:] == ["@state/0", "@state/1"]
    assert "@action/where/1" in names


def test_the_default_network_is_named_as_it_was():
    policy = Policy(spaces.MultiBinary((2, 6, 7)), spaces.Discrete(7), PolicySpec(num_layers=2))
    assert list(policy.state_dict()) == [
        "output_weight",
        "output_bias",
        "value_mean",
        "value_std",
        "encoder.weight.0",
        "encoder.bias.0",
        "core.input_weight.0",
        "core.input_weight.1",
        "core.hidden_weight.0",
        "core.hidden_weight.1",
        "core.bias.0",
        "core.bias.1",
    ]


def test_only_sets_that_an_action_points_to_are_kept():
    policy = make("composite")
    assert set(make("categorical").step(*one(make("categorical"))).head.entities) == set()
    head = policy.step(*one(policy)).head
    assert head.entities["units"].shape == (N, 4, 64)
    assert head.present["units"].shape == (N, 4)


def one(policy):
    """obs, is_first and state of one decision of N rows."""
    obs = {path: leaf[0] for path, leaf in (draw(policy) | no_actions(policy)).items()}
    layers, vectors, width = policy.state_shape
    return obs, torch.ones(N, dtype=torch.bool), torch.zeros(layers, vectors, N, width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"core": "rnn"}, "policy.core='rnn' is not allowed; it is one of lstm, lstm_layer_norm, gru, none"),
        ({"critic": "own"}, "policy.critic='own' is not allowed; it is one of shared, separate, privileged"),
        ({"cnn": "vit"}, "policy.cnn='vit' is not allowed; it is one of small, deep"),
        ({"normalize": "yes"}, "policy.normalize='yes' is not allowed; it is one of auto, on, off"),
        (
            {"points": {"unit": "vector"}},
            "action 'unit' points to 'vector', which is no entity set; these are: units",
        ),
        ({"points": {"kind": "units"}}, "action 'kind' has 3 choices but points to 'units' of 4"),
    ],
)
def test_mistakes_are_named_in_one_line(change, message):
    with pytest.raises(ValueError) as error:
        Policy(OBS, COMPOSITE, PolicySpec(**change))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_names_of_the_policys_own_are_refused():
    with pytest.raises(ValueError, match="begin with @"):
        Policy(spaces.Dict({"@reward": spaces.Discrete(2)}), spaces.Discrete(2), PolicySpec())


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("head", HEADS)
def test_every_tensor_is_made_where_the_policy_is(head, core):
    """On a device without memory, to which a tensor left on the CPU would be an error."""
    policy = make(head, core, "privileged").to("meta")
    obs = {path: leaf.to("meta") for path, leaf in (draw(policy) | no_actions(policy)).items()}
    layers, vectors, width = policy.state_shape
    first = torch.zeros(T, N, dtype=torch.bool, device="meta")
    out = policy.unroll(obs, first, torch.zeros(layers, vectors, N, width, device="meta"))
    tensors = (*out[1:], out.head.flat, *out.head.entities.values(), *out.head.present.values())
    assert {x.device.type for x in tensors} == {"meta"}
