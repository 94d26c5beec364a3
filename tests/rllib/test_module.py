"""Exported policies are ours: the same logits, values and states, step by step and over sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

pytest.importorskip("ray.rllib")
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from policies.policy import Policy, PolicySpec
from policies.spaces import leaves
from selfplay.rllib.module import PolicyModule

NESTED = spaces.Dict(
    {
        "board": spaces.Box(-1, 1, (3, 3)),
        "rest": spaces.Tuple((spaces.Discrete(4, start=2), spaces.MultiBinary(3))),
        "speed": spaces.Box(-50, 50, (2,), np.float64),
    }
)
FLAT = spaces.Box(-1, 1, (5,))
MULTI = spaces.MultiDiscrete([3, 2, 4])

POLICIES = {
    "lstm": (FLAT, spaces.Discrete(4), PolicySpec((8,), "lstm", 6), True),
    "two layers": (FLAT, spaces.Discrete(4), PolicySpec((8,), "lstm", 6, 2), False),
    "layer norm": (FLAT, spaces.Discrete(4), PolicySpec((8,), "lstm_layer_norm", 6), True),
    "gru": (NESTED, spaces.Discrete(4), PolicySpec((8,), "gru", 6), False),
    "no memory": (NESTED, spaces.Discrete(4), PolicySpec((8,), "none"), True),
    "separate critic": (FLAT, spaces.Discrete(4), PolicySpec((8,), "lstm", 6, critic="separate"), True),
    "parts": (NESTED, MULTI, PolicySpec((8,), "lstm", 6), True),
    "parts without masks": (FLAT, MULTI, PolicySpec((8,), "none"), False),
    "previous": (FLAT, spaces.Discrete(4), PolicySpec((8,), "lstm", 6, previous=True), True),
}  # spaces, spec, whether there are masks
TIME, BATCH = 7, 3


def make_policy(obs_space, action_space, spec, state_space=None):
    """A policy whose every parameter and normaliser matters."""
    torch.manual_seed(0)
    policy = Policy(obs_space, action_space, spec, state_space)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        policy.value_mean.fill_(2.0)
        policy.value_std.fill_(3.0)
    policy.observe(draw_obs(policy.inputs, np.random.default_rng(9)))
    return policy


def draw_obs(inputs, rng):
    """Leaves [T, B, ...] of these spaces, none of them 0 where that would hide a mistake."""
    found = {}
    for path, space in inputs.items():
        shape = (TIME, BATCH, *(space.shape or ()))
        if isinstance(space, spaces.Box):
            found[path] = torch.from_numpy(rng.uniform(-1, 1, shape).astype(space.dtype))
        elif isinstance(space, spaces.MultiBinary):
            found[path] = torch.from_numpy(rng.integers(0, 2, shape, dtype=np.int8))
        else:
            count = getattr(space, "nvec", None) if isinstance(space, spaces.MultiDiscrete) else space.n
            found[path] = torch.from_numpy(space.start + rng.integers(0, count, shape))
    return found


def for_rllib(space, found, prefix=""):
    """Leaves by path -> nested, [B, T, ...] and float32 as RLlib has them."""
    if isinstance(space, spaces.Dict):
        return {k: for_rllib(s, found, f"{prefix}/{k}".lstrip("/")) for k, s in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(for_rllib(s, found, f"{prefix}/{k}".lstrip("/")) for k, s in enumerate(space))
    leaf = found[prefix].transpose(0, 1)
    return leaf.float() if leaf.dtype == torch.float64 else leaf


class Case:
    """One of the policies, its module loaded from a checkpoint, and something to see."""

    def __init__(self, name, folder):
        obs_space, action_space, spec, masked = POLICIES[name]
        self.policy = make_policy(obs_space, action_space, spec)
        PolicyModule.of(self.policy, obs_space, action_space, masked=masked, max_seq_len=16).save_to_path(
            folder
        )
        self.module = RLModule.from_checkpoint(folder)
        rng = np.random.default_rng(1)
        self.found = draw_obs(self.policy.inputs, rng)
        self.mask = {}
        obs = for_rllib(obs_space, self.found)
        beside = {}
        if masked:
            legal = torch.from_numpy(rng.random((TIME, BATCH, self.policy.head.num_inputs)) < 0.6)
            starts = [0, 3, 5] if action_space == MULTI else [0]
            legal[..., starts] = True
            self.mask = {"": legal}
            beside["action_mask"] = legal.transpose(0, 1).to(torch.int8)
        if spec.previous:
            beside["previous_action"] = self.found["@action"].transpose(0, 1)
            beside["previous_reward"] = self.found["@reward"].transpose(0, 1)
        self.obs = {"observations": obs, **beside} if beside else obs

    def unroll(self):
        """Ours, over all of it: head input, values [T, B] and state."""
        layers, vectors, width = self.policy.state_shape
        is_first = torch.zeros(TIME, BATCH, dtype=torch.bool)
        is_first[0] = True
        garbage = torch.full((layers, vectors, BATCH, width), 5.0)
        with torch.no_grad():
            return self.policy.unroll(self.found, is_first, garbage)

    def initial(self):
        state = self.module.get_initial_state()
        return {key: torch.from_numpy(x).expand(BATCH, *x.shape) for key, x in state.items()}


@pytest.fixture(params=POLICIES)
def case(request, tmp_path):
    return Case(request.param, tmp_path / "module")


def at(obs, times):
    """Observations at these times, [B, T', ...], or [B, ...] for a number."""
    if isinstance(obs, dict):
        return {key: at(part, times) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(at(part, times) for part in obs)
    return obs[:, times]


def same_distribution(case, logits, expected):
    """logits [T, B, n] give every action the log-probability that our head gives it."""
    distribution = case.module.get_exploration_action_dist_cls().from_logits(logits)
    action = case.policy.head.best(*rows(expected, case.mask))[0][""].reshape(TIME, BATCH, -1)
    action = action if case.module.action_space == MULTI else action[..., 0]
    logp, entropy = case.policy.head.evaluate(expected, case.mask, {"": action})
    torch.testing.assert_close(distribution.logp(action), logp, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(distribution.entropy(), entropy, atol=1e-6, rtol=1e-5)
    greedy = distribution.to_deterministic().sample()
    assert torch.equal(greedy.reshape(action.shape), action)
    if case.mask:
        assert (logits.exp()[~case.mask[""]] == 0).all()


def rows(head_input, mask):
    return head_input._replace(flat=head_input.flat.flatten(0, 1)), {
        k: m.flatten(0, 1) for k, m in mask.items()
    }


def test_over_sequences(case):
    expected = case.unroll()
    if case.module.is_stateful():
        batch = {Columns.OBS: case.obs, Columns.STATE_IN: case.initial()}
        out = case.module.forward_inference(batch)
        logits, value = out[Columns.ACTION_DIST_INPUTS].transpose(0, 1), case.module.compute_values(batch).t()
        state = out[Columns.STATE_OUT]["state"].permute(1, 2, 0, 3)
        torch.testing.assert_close(state, expected.state, atol=1e-6, rtol=1e-5)
    else:
        assert case.module.get_initial_state() == {}
        parts = [{Columns.OBS: at(case.obs, t)} for t in range(TIME)]
        logits = torch.stack([case.module.forward_inference(p)[Columns.ACTION_DIST_INPUTS] for p in parts])
        value = torch.stack([case.module.compute_values(part) for part in parts])
    flat = expected.head.flat
    legal = case.mask.get("", torch.ones_like(flat, dtype=torch.bool))
    torch.testing.assert_close(logits[legal], flat[legal], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(value, expected.value, atol=1e-5, rtol=1e-5)
    same_distribution(case, logits, expected.head)


def test_step_by_step(case):
    expected = case.unroll()
    if not case.module.is_stateful():
        return  # a sequence is its steps
    state, logits = case.initial(), []
    for t in range(TIME):
        batch = {Columns.OBS: at(case.obs, slice(t, t + 1)), Columns.STATE_IN: state}
        out = case.module.forward_exploration(batch)
        state = out[Columns.STATE_OUT]
        logits.append(out[Columns.ACTION_DIST_INPUTS][:, 0])
    same_distribution(case, torch.stack(logits), expected.head)


def test_padding_changes_nothing_before_it(case):
    """RLlib fills sequences up with zeros, which for Discrete(4, start=2) is no value at all."""
    if not case.module.is_stateful():
        return  # nothing is padded

    def padded(obs):
        if isinstance(obs, dict):
            return {key: padded(part) for key, part in obs.items()}
        if isinstance(obs, tuple):
            return tuple(padded(part) for part in obs)
        return torch.cat((obs[:, :4], torch.zeros_like(obs[:, 4:])), dim=1)

    short = {Columns.OBS: at(case.obs, slice(0, 4)), Columns.STATE_IN: case.initial()}
    long = {Columns.OBS: padded(case.obs), Columns.STATE_IN: case.initial()}
    one, two = (case.module.forward_train(batch) for batch in (short, long))
    for key in (Columns.ACTION_DIST_INPUTS, Columns.EMBEDDINGS):
        torch.testing.assert_close(one[key], two[key][:, :4])
        assert torch.isfinite(two[key]).all()


def test_gradients_are_ours(case):
    """What RLlib's learner asks for, through one forward."""
    module, policy = case.module, case.policy
    batch = {Columns.OBS: case.obs, Columns.STATE_IN: case.initial()}
    if not module.is_stateful():
        batch = {Columns.OBS: at(case.obs, 0)}
    out = module.forward_train(batch)
    value = module.compute_values(batch, embeddings=out[Columns.EMBEDDINGS])
    legal = out[Columns.ACTION_DIST_INPUTS] > -1e30
    (value.sum() + out[Columns.ACTION_DIST_INPUTS][legal].sum()).backward()
    layers, vectors, width = policy.state_shape
    steps = TIME if module.is_stateful() else 1
    ours = policy.unroll(
        {path: leaf[:steps] for path, leaf in case.found.items()},
        torch.zeros(steps, BATCH, dtype=torch.bool),
        torch.zeros(layers, vectors, BATCH, width),
    )
    flat = ours.head.flat
    mask = case.mask[""][:steps] if case.mask else torch.ones_like(flat, dtype=torch.bool)
    (ours.value.sum() + flat[mask].sum()).backward()
    for (name, one), two in zip(module.policy.named_parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, two.grad, atol=1e-4, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_observations_are_in_the_modules_space(case):
    def one(obs):
        if isinstance(obs, dict):
            return {key: one(part) for key, part in obs.items()}
        if isinstance(obs, tuple):
            return tuple(one(part) for part in obs)
        return obs[0, 0].numpy()

    def cast(space, value):
        if isinstance(space, spaces.Dict):
            return {key: cast(part, value[key]) for key, part in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(cast(part, v) for part, v in zip(space, value))
        return value.astype(space.dtype)

    space = case.module.observation_space
    assert space.contains(cast(space, one(case.obs)))


def test_weights_of_another_policy_are_refused(case):
    state = case.module.get_state()
    name = next(iter(state))
    with pytest.raises(RuntimeError, match="Missing key"):
        case.module.set_state({key: array for key, array in state.items() if key != name})


def test_a_spec_builds_the_module_anew(case):
    again = RLModuleSpec.from_module(case.module).build()
    assert again.get_state().keys() == case.module.get_state().keys()


def test_a_privileged_critic_plays_but_is_not_trained(tmp_path):
    state_space = spaces.Dict({"all": spaces.Box(-1, 1, (4,))})
    spec = PolicySpec((8,), "lstm", 6, critic="privileged")
    policy = make_policy(FLAT, spaces.Discrete(4), spec, state_space)
    PolicyModule.of(
        policy, FLAT, spaces.Discrete(4), masked=False, max_seq_len=16, state_space=state_space
    ).save_to_path(tmp_path / "module")
    module = RLModule.from_checkpoint(tmp_path / "module")
    found = draw_obs(leaves(FLAT), np.random.default_rng(0))
    state = {"state": torch.zeros(BATCH, *policy.state_shape)}
    batch = {Columns.OBS: found[""].transpose(0, 1), Columns.STATE_IN: state}
    ours = policy.unroll(
        found, torch.zeros(TIME, BATCH, dtype=torch.bool), state["state"].permute(1, 2, 0, 3)
    )
    logits = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].transpose(0, 1)
    torch.testing.assert_close(logits, ours.head.flat)
    assert (module.compute_values(batch) == 0).all()
    with pytest.raises(ValueError, match="its critic sees the game's whole state"):
        module.forward_train(batch)


@pytest.mark.parametrize(
    ("action_space", "spec", "reason"),
    [
        (spaces.Box(-1, 1, (2,)), PolicySpec(), "its actions are Box"),
        (spaces.MultiBinary(3), PolicySpec(), "its actions are MultiBinary"),
        (spaces.Discrete(3, start=1), PolicySpec(), "categorical choices begin at 0"),
        (spaces.MultiDiscrete([[2, 2], [2, 2]]), PolicySpec(), "lie in one row"),
        (MULTI, PolicySpec(autoregressive=True), "autoregressive"),
        (spaces.Dict({"a": spaces.Discrete(2)}), PolicySpec(), "its actions are Dict"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(action_space, spec, reason):
    policy = Policy(FLAT, action_space, spec)
    with pytest.raises(ValueError, match=reason) as caught:
        PolicyModule.of(policy, FLAT, action_space, masked=False, max_seq_len=16)
    assert "allowed: Discrete(n) and MultiDiscrete([n, ...])" in str(caught.value)
    assert "\n" not in str(caught.value)
