"""The learner on a CUDA device: `make test ARGS="-m gpu"`."""

import numpy as np
import pytest
import torch

from envs.registry import make
from policies.policy import Policy, PolicySpec
from selfplay.config import PPOConfig
from selfplay.learner import Learner
from selfplay.matches import MAIN, Lineups
from selfplay.players import PolicyPlayer
from tests.playing import make_rollout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def learner(device, **ppo):
    env = make("connect_four", 32)
    torch.manual_seed(0)
    group = env.groups[0]
    policy = Policy(group.observation_space, group.action_space, PolicySpec())
    rollout = make_rollout(env, PolicyPlayer(policy), length=16)
    rollout.assign(Lineups((MAIN,), np.zeros((64, 2), np.int32)), {})
    fragments, _ = rollout.collect()
    twin = Policy(group.observation_space, group.action_space, PolicySpec())
    twin.load_state_dict(policy.state_dict())
    return Learner(twin.to(device), PPOConfig(**ppo), seed=0), fragments


def test_what_was_played_on_the_cpu_replays_on_the_gpu():
    on_gpu, fragments = learner("cuda")
    difference = on_gpu.check_replay(fragments)
    assert max(difference) < 1e-4


@pytest.mark.parametrize("ppo", [{}, {"normalize_value": True, "magnet_coef": 0.1, "advantage": "vtrace"}])
def test_an_update_is_the_cpus(ppo):
    (cpu, fragments), (gpu, _) = learner("cpu", **ppo), learner("cuda", **ppo)
    one, two = cpu.update(fragments), gpu.update(fragments)
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    for name, weight in cpu.weights().items():
        np.testing.assert_allclose(gpu.weights()[name], weight, rtol=1e-2, atol=1e-4, err_msg=name)


def test_bfloat16_learns_the_same_direction():
    (cpu, fragments), (gpu, _) = learner("cpu"), learner("cuda", autocast=True)
    before = cpu.weights()["output_weight"]
    for learner_ in (cpu, gpu):
        learner_.update(fragments)
    one, two = (x.weights()["output_weight"] - before for x in (cpu, gpu))
    cosine = float((one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two))
    assert cosine > 0.95
