"""Graphs of a minibatch's gradient, on a CPU: what is recorded there is run again on the same tensors."""

import contextlib

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.registry import make
from policies import composite_head
from policies.encoders import images
from policies.policy import Policy, PolicySpec
from policies.spaces import leaves
from selfplay import cuda_graphs
from selfplay.config import PPOConfig
from selfplay.cuda_graphs import GraphedGradients
from selfplay.learner import Batch, Learner
from selfplay.matches import MAIN, Lineups
from selfplay.players import PolicyPlayer
from tests.playing import make_rollout

GAMES = 16


def rerun(function):
    """In place of `record`: the output has one place, and each call computes it anew."""
    output = function().clone()

    def replay():
        return output.copy_(function())

    return replay


def play(env_id="connect_four", spec=None):
    """A learner and a batch of its policy."""
    learner, fragment = fragments(env_id, spec)
    batch, _ = learner._prepare(fragment, torch.as_tensor(fragment.reward))
    # States that count: the first fragments open a match at t = 0.
    is_first = torch.rand(batch.is_first.shape) < 0.2
    return learner, batch._replace(state=torch.randn_like(batch.state), is_first=is_first)


def fragments(env_id="connect_four", spec=None):
    """A learner and what its policy played."""
    env = make(env_id, GAMES)
    group = env.groups[0]
    torch.manual_seed(0)
    policy = Policy(
        group.observation_space, group.action_space, spec or PolicySpec(encoder=(16,), hidden_size=16)
    )
    rollout = make_rollout(env, PolicyPlayer(policy), length=8)
    rollout.assign(Lineups((MAIN,), np.zeros((GAMES, len(env.teams)), np.int32)), {})
    (fragment,), _ = rollout.collect()
    return Learner(policy, PPOConfig(magnet_coef=0.1, epochs=2), seed=0), fragment


def graphed(learner, count=None):
    """Graphs of the learner's gradients, those counted that are recorded."""

    def record(function):
        if count is not None:
            count.append(1)
        return rerun(function)

    def gradients(batch, coef):
        return learner._gradients(batch, float(coef), learner.grad_views[0])

    return GraphedGradients(gradients, learner._held, record)


def eager(learner, batch, lanes, coef):
    terms = learner._gradients(batch.lanes(lanes), coef, learner.grad_views[0])
    return terms.clone(), learner.grads[0].clone()


def test_replays_are_the_gradients_of_their_own_lanes_and_entropy_bonus():
    learner, batch = play()
    recorded = []
    graphs = graphed(learner, recorded)
    order = torch.randperm(2 * GAMES)
    for coef, lanes in zip([0.5, 0.01, 0.5], [*order.chunk(2), order[3:19]], strict=True):
        wanted, grads = eager(learner, batch, lanes, coef)
        terms = graphs(batch, lanes, coef).clone()
        torch.testing.assert_close(terms, wanted)
        torch.testing.assert_close(learner.grads[0], grads)
    assert len(recorded) == 1


def test_a_shape_is_recorded_once_and_the_fifth_is_not(monkeypatch):
    learner, batch = play()
    recorded = []
    graphs = graphed(learner, recorded)
    for width in (4, 5, 4, 6, 7, 8, 8, 5):
        lanes = torch.arange(width)
        torch.testing.assert_close(graphs(batch, lanes, 0.1), eager(learner, batch, lanes, 0.1)[0])
    assert len(recorded) == cuda_graphs.MOST_SHAPES == 4


def test_an_update_by_graphs_is_the_update_without():
    (plain, fragment), (learner, _) = fragments(), fragments()
    learner.graphed = graphed(learner)
    plain.compiled = None  # as on CUDA
    for _ in range(2):
        assert learner.update([fragment]) == plain.update([fragment])
    for name, weight in plain.weights().items():
        np.testing.assert_array_equal(learner.weights()[name], weight)


def test_what_the_policy_learned_since_is_seen():
    learner, batch = play("cartpole", PolicySpec(encoder=(16,), hidden_size=16, normalize="on"))
    graphs = graphed(learner)
    lanes = torch.arange(8)
    first = graphs(batch, lanes, 0.1).clone()
    learner._step(batch, None, lanes, 0.1)
    learner.policy.observe(batch.obs)
    learner.set_state(*learner.state())
    second = graphs(batch, lanes, 0.1).clone()
    torch.testing.assert_close(second, eager(learner, batch, lanes, 0.1)[0])
    assert not torch.allclose(first, second)


def test_a_buffer_that_moved_is_noticed():
    learner, batch = play()
    graphs = graphed(learner)
    graphs(batch, torch.arange(4), 0.1)
    learner.policy.value_std = learner.policy.value_std.clone()
    with pytest.raises(AssertionError, match="moved"):
        graphs(batch, torch.arange(4), 0.1)


OBS = spaces.Dict(
    {
        "vector": spaces.Box(-np.inf, np.inf, (3,)),
        "camera": spaces.Box(0, 255, (9, 10, 3), np.uint8),
        "kinds": spaces.MultiDiscrete([3, 100]),
        "units": spaces.Box(-9, 9, (4, 3)),
        "units_mask": spaces.MultiBinary(4),
    }
)
COMPOSITE = spaces.Dict(
    {"kind": spaces.Discrete(3), "unit": spaces.Discrete(4), "aim": spaces.Box(-2, 9, (2,))}
)
SPECIAL = {"uses": {"aim": {"kind": [2]}}, "points": {"unit": "units"}}


NETWORKS = [
    (spaces.Discrete(5, start=2), {}, {}),
    (spaces.Discrete(5), {"core": "gru", "critic": "separate"}, {"magnet_coef": 0.1}),
    (spaces.Discrete(5), {"core": "lstm_layer_norm", "num_layers": 2}, {"dual_clip": None}),
    (spaces.MultiDiscrete([3, 4]), {"core": "none"}, {"magnet_coef": 0.1}),
    (spaces.Box(-2, 3, (2,)), {"previous": True}, {}),
    (spaces.Box(-np.inf, np.inf, (2,)), {"cnn": "deep"}, {"magnet_coef": 0.1}),
    (COMPOSITE, SPECIAL, {"magnet_coef": 0.1}),
    (COMPOSITE, {**SPECIAL, "autoregressive": True}, {}),
]


def make_batch(policy, action_space, send, lanes=6):
    """Zeros of four steps, each array sent to where the policy is."""

    def zeros(*shape, dtype=np.float32):
        return send(np.zeros(shape, dtype))

    def draw(found):
        return {path: zeros(4, lanes, *space.shape, dtype=space.dtype) for path, space in found.items()}

    mask = {"": zeros(4, lanes, 5, dtype=np.bool_)} if action_space == spaces.Discrete(5) else {}
    layers, vectors, width = policy.state_shape
    numbers = zeros(4, lanes)
    return Batch(
        draw(policy.inputs),
        mask,
        numbers.bool(),
        draw(leaves(action_space)),
        numbers,
        numbers,
        numbers,
        zeros(layers, vectors, lanes, width),
    )


@pytest.mark.parametrize(("action_space", "spec", "ppo"), NETWORKS, ids=str)
def test_nothing_waits_for_the_device_while_a_graph_is_recorded(action_space, spec, ppo, monkeypatch):
    # On the meta device, which takes the same way as CUDA, whoever asks for a number is an error.
    monkeypatch.setattr(images, "IMAGE_SIZE", 8)
    monkeypatch.setattr(composite_head, "_in_float32", lambda x: contextlib.nullcontext())
    policy = Policy(OBS, action_space, PolicySpec(**{"encoder": (16,), "hidden_size": 16, **spec}))
    learner = Learner(policy.to("meta"), PPOConfig(**ppo), seed=0)
    learner.device = torch.device("cpu")  # autocast knows no meta device
    batch = make_batch(policy, action_space, lambda array: torch.from_numpy(array).to("meta"))
    part = batch.lanes(torch.arange(4, device="meta"))
    terms = learner._gradients(part, torch.zeros((), device="meta"), learner.grad_views[0])
    assert terms.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        terms.tolist()


def test_a_learner_on_another_device_begins():
    """What only a CPU's kernels need of a policy, such as the moments of inputs as arrays, is not read."""
    policy = Policy(spaces.Box(-9, 9, (5,)), spaces.Discrete(5), PolicySpec(encoder=(16,), hidden_size=16))
    learner = Learner(policy.to("meta"), PPOConfig(), seed=0)
    assert learner.compiled is not None
    assert not learner.compiled.usable
