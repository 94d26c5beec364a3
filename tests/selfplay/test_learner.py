"""The learner against a plain definition of its loss, its schedules and states, and that it learns."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from envs.connect_four import ConnectFour
from policies.lstm import reference_unroll
from policies.policy import Policy, PolicySpec
from selfplay import learner as learner_module
from selfplay import players as players_module
from selfplay.config import PPOConfig
from selfplay.fragments import concatenate
from selfplay.learner import ADAM_EPS, Learner
from selfplay.learners import Learners
from selfplay.matches import MAIN, Lineups
from selfplay.optim import views
from selfplay.players import PolicyPlayer
from selfplay.weights import load_weights
from tests.playing import alone, make_rollout
from tests.selfplay.test_rollout import draw_lineups, make_policy, opponents
from tests.toy_games import TOYS

GAMES = {**TOYS, "connect_four": ConnectFour}


def fragments_of(game="brawl", *, games=4, length=6, collects=1, seed=0, **kwargs):
    """A policy that may learn, and fragments it played against others."""
    env = GAMES[game](games)
    policy = make_policy(env, **kwargs)
    rollout = make_rollout(env, PolicyPlayer(policy), length=length, seed=seed)
    rng = np.random.default_rng(seed)
    rollout.assign(draw_lineups(["old", "plain"], len(env.teams), rng), alone(opponents(env)))
    fragments = [rollout.collect()[0][0] for _ in range(collects)]
    return copy.deepcopy(policy).requires_grad_(), fragments


def make_learner(policy, *, num_threads=1, seed=0, **changes):
    config = PPOConfig(**{"num_minibatches": 2} | changes)
    policy = copy.deepcopy(policy)
    return Learner(policy, config, seed=seed, num_threads=num_threads)


def parameters(policy):
    return {name: x.detach().clone() for name, x in policy.named_parameters()}


# The loss, written out.


def plain_forward(policy, fragment):
    """Logits [T, N, n] and values [T, N] in float64 from the definition of every layer."""
    w = {name: x.double() for name, x in policy.named_parameters()}
    length, lanes = fragment.is_first.shape
    assert set(fragment.obs) == {""}
    x = torch.from_numpy(fragment.obs[""]).double().reshape(length, lanes, -1)
    x = torch.relu(x @ w["encoder.weight.0"].t() + w["encoder.bias.0"])
    gates = x @ w["core.input_weight.0"].t()
    state = torch.from_numpy(fragment.initial_state).double()
    is_first = torch.from_numpy(fragment.is_first)
    x, _ = reference_unroll(gates, is_first, state[0], w["core.hidden_weight.0"], w["core.bias.0"])
    y = x @ w["output_weight"].t() + w["output_bias"]
    return y[..., :-1], y[..., -1]


def plain_advantage(f, gamma, lam):
    """GAE, one lane and one step at a time."""
    length, lanes = f.reward.shape
    advantage = np.zeros((length, lanes))
    for n in range(lanes):
        ahead = 0.0
        for t in reversed(range(length)):
            bootstrap = 0.0 if f.terminated[t, n] else gamma * float(f.next_value[t, n])
            if f.terminated[t, n] or f.truncated[t, n]:
                ahead = 0.0
            ahead = float(f.reward[t, n]) + bootstrap - float(f.value[t, n]) + gamma * lam * ahead
            advantage[t, n] = ahead
    return torch.from_numpy(advantage)


def plain_loss(policy, f, *, clip=0.2, value_coef=0.5, entropy_coef=0.03, gamma=0.99, lam=0.95):
    advantage = plain_advantage(f, gamma, lam)
    target = advantage + torch.from_numpy(f.value).double()
    advantage = (advantage - advantage.mean()) / advantage.std(correction=0)
    logits, value = plain_forward(policy, f)
    logits = logits.masked_fill(~torch.from_numpy(f.mask[""]), -math.inf)
    log_probs = logits.log_softmax(-1)
    action = torch.from_numpy(f.action[""])
    logp = log_probs.gather(-1, action[..., None])[..., 0]
    ratio = (logp - torch.from_numpy(f.logp).double()).exp()
    policy_loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
    legal = torch.from_numpy(f.mask[""])
    entropy = -(log_probs.exp() * log_probs.where(legal, torch.zeros(()).double())).sum(-1).mean()
    value_loss = ((value - target) ** 2).mean() / 2
    return policy_loss + value_coef * value_loss - entropy_coef * entropy, (policy_loss, value_loss, entropy)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("game", ["brawl", "connect_four", "memory"])
def test_the_gradient_is_that_of_the_plain_loss(game, num_threads):
    policy, (fragment,) = fragments_of(game, length=9)
    # Other weights than those that acted, so that ratios are not 1, some clipped; dual clip off.
    with torch.no_grad():
        for param in policy.parameters():
            param.add_(torch.randn(param.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    learner = make_learner(
        policy, num_threads=num_threads, num_minibatches=1, dual_clip=None, max_grad_norm=None
    )
    metrics = learner.update([fragment])
    loss, terms = plain_loss(policy, fragment)
    wanted = torch.autograd.grad(loss, list(policy.parameters()))
    names = [name for name, _ in policy.named_parameters()]
    for name, got, exact in zip(names, views(learner.flat.grad, learner.params), wanted, strict=True):
        scale = max(float(exact.abs().max()), 1e-3)
        assert float((got - exact).abs().max()) < 2e-4 * scale, name
    for name, term in zip(("policy", "value", "entropy"), terms, strict=True):
        assert metrics[f"loss/{name}"] == pytest.approx(term.item(), rel=1e-4, abs=1e-5)
    norm = torch.sqrt(sum((g**2).sum() for g in wanted)).item()
    assert metrics["loss/grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["loss/clip_fraction"] > 0 or game == "memory"


def test_one_decision_hand_worked():
    """All weights 0 but the output's bias: logits 0, 0, value .5; reward 2, terminated.

    A = 2 - .5 = 1.5, target 2, value loss (.5 - 2)^2 / 2 = 1.125, entropy ln 2. With the other lane's
    A = -.5 (reward 0): gradient of the value's bias .5 * mean(.5 - 2, .5 - 0) = -.25.
    Policy, A not normalised, ratio 1, actions 0 and 1: d/dlogit0 of -mean(A (log softmax)_a) is
    -(1.5 * .5 + -.5 * -.5) / 2 = -.5.
    """
    env = TOYS["bandit"](1)
    group = env.groups[0]
    policy = Policy(group.observation_space, group.action_space, PolicySpec((2,), hidden_size=2))
    with torch.no_grad():
        for param in policy.parameters():
            param.zero_()
        policy.output_bias[-1] = 0.5
    _, (f,) = fragments_of("bandit", games=1, length=1)
    half = np.full((1, 2), np.log(0.5), np.float32)
    f = type(f)(
        f.obs, {"": np.ones((1, 2, 2), bool)}, np.ones((1, 2), bool), {"": np.array([[0, 1]])}, half,
        np.full((1, 2), 0.5, np.float32), np.array([[2.0, 0.0]], np.float32), np.ones((1, 2), bool),
        np.zeros((1, 2), bool), np.full((1, 2), np.nan, np.float32), np.zeros((1, 2, 2, 2), np.float32),
        np.zeros((1, 2), np.int32),
    )  # fmt: skip
    learner = make_learner(
        policy, num_minibatches=1, normalize_advantage=False, entropy=0.0, max_grad_norm=None, lr=0.25
    )
    metrics = learner.update([f])
    assert metrics["loss/value"] == pytest.approx((1.125 + 0.125) / 2)
    assert metrics["loss/policy"] == pytest.approx(-(1.5 - 0.5) / 2)
    assert metrics["loss/entropy"] == pytest.approx(math.log(2))
    assert metrics["loss/grad_norm"] == pytest.approx(math.sqrt(0.5**2 + 0.5**2 + 0.25**2))
    # Adam's first step is lr * g / (|g| + eps): every bias moves by .25 against its gradient.
    moved = learner.policy.output_bias.tolist()
    assert moved == pytest.approx([0.25, -0.25, 0.75], abs=1e-4)
    assert ADAM_EPS == 1e-5


@pytest.mark.parametrize("advantage", ["gae", "vtrace"])
def test_nothing_is_read_beyond_a_termination(advantage):
    policy, (fragment,) = fragments_of("turns")
    assert fragment.terminated.any()
    results = []
    for beyond in (0.0, 1e6, math.nan):
        fragment.next_value[fragment.terminated] = beyond
        learner = make_learner(policy, advantage=advantage)
        learner.update([fragment])
        results.append(parameters(learner.policy))
    for other in results[1:]:
        assert all(torch.equal(x, other[name]) for name, x in results[0].items())


def test_a_truncation_is_bootstrapped():
    policy, (fragment,) = fragments_of("cutoff")
    targets = []
    for beyond in (0.0, 10.0):
        fragment.next_value[fragment.truncated] = beyond
        learner = make_learner(policy)
        targets.append(learner._prepare(fragment, torch.as_tensor(fragment.reward))[0].target.numpy())
    np.testing.assert_allclose((targets[1] - targets[0])[fragment.truncated], 9.9, rtol=1e-5)


# Shards and minibatches.


@pytest.mark.parametrize("num_threads", [2, 3, 5])
@pytest.mark.parametrize("changes", [{}, {"magnet_coef": 0.5}, {"advantage": "vtrace", "epochs": 2}], ids=str)
def test_threads_change_nothing_but_rounding(num_threads, changes):
    policy, (fragment,) = fragments_of("brawl")
    whole, shared = (make_learner(policy, num_threads=n, **changes) for n in (1, num_threads))
    batch, _ = whole._prepare(fragment, torch.as_tensor(fragment.reward))
    lanes = torch.arange(fragment.num_lanes)
    one, two = (each._step(batch, each._arrays(batch), lanes, 0.03) for each in (whole, shared))
    assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
    for left, right in zip(*(views(x.flat.grad, x.params) for x in (whole, shared)), strict=True):
        scale = max(float(left.abs().max()), 1e-3)
        assert float((left - right).abs().max()) < 1e-4 * scale


@pytest.mark.parametrize("num_minibatches", [1, 2, 4, 16])
def test_minibatches_split_lanes_never_time(monkeypatch, num_minibatches):
    policy, (fragment,) = fragments_of("brawl", games=4)  # 16 lanes
    learner = make_learner(policy, num_minibatches=num_minibatches, epochs=2)
    seen = []
    original = Learner._step

    def step(self, batch, arrays, lanes, entropy_coef):
        assert batch.logp.shape == fragment.logp.shape
        seen.append(lanes.tolist())
        return original(self, batch, arrays, lanes, entropy_coef)

    monkeypatch.setattr(learner_module.Learner, "_step", step)
    learner.update([fragment])
    assert len(seen) == 2 * num_minibatches
    for epoch in (seen[:num_minibatches], seen[num_minibatches:]):
        assert sorted(lane for lanes in epoch for lane in lanes) == list(range(16))
        assert {len(lanes) for lanes in epoch} == {16 // num_minibatches}
    part = learner._prepare(fragment, torch.as_tensor(fragment.reward))[0].lanes(torch.tensor([5, 2]))
    assert np.array_equal(part.obs[""].numpy(), fragment.obs[""][:, [5, 2]])
    assert np.array_equal(part.state.numpy(), fragment.initial_state[:, :, [5, 2]])
    assert np.array_equal(part.is_first.numpy(), fragment.is_first[:, [5, 2]])


def test_fragments_of_several_rollouts_stand_side_by_side():
    policy, fragments = fragments_of("turns", collects=3)
    together = concatenate(fragments)
    one, two = make_learner(policy), make_learner(policy)
    left, right = one.update(fragments), two.update([together])
    assert left == right


# Schedules, metrics, magnet.


def test_schedules_go_by_agent_steps():
    policy, (fragment,) = fragments_of("brawl", games=2, length=5)  # 8 lanes of 5: 40 steps
    learner = make_learner(policy, lr=1e-3, lr_final=0.0, entropy=0.2, entropy_final=0.1)
    learners = Learners({"seat": learner}, anneal_steps=100)
    seen = []
    for _ in range(5):
        update = learners.update([(fragment,)])
        seen.append((update.metrics["ppo/lr"], update.metrics["ppo/entropy_coef"]))
        assert update.agent_steps == 40 * len(seen)
        assert update.version == learner.version == len(seen)
    wanted = [(1e-3, 0.2), (6e-4, 0.16), (2e-4, 0.12), (0.0, 0.1), (0.0, 0.1)]
    assert np.allclose(seen, wanted)
    before = parameters(learner.policy)
    learners.update([(fragment,)])  # lr 0: nothing moves
    assert all(torch.equal(x, before[name]) for name, x in parameters(learner.policy).items())
    constant = Learners({"seat": make_learner(policy, lr=1e-3, lr_final=0.0)}, anneal_steps=None)
    assert [constant.update([(fragment,)]).metrics["ppo/lr"] for _ in range(3)] == [1e-3] * 3


def test_staleness_is_measured_per_decision():
    policy, (fragment,) = fragments_of("brawl")
    learner = make_learner(policy)
    learner.version = 3
    fragment.version[:] = 3
    fragment.version[0] = 1
    metrics = learner.update([fragment])
    assert metrics["data/staleness"] == pytest.approx(2 / len(fragment.version))
    assert metrics["data/staleness_max"] == 2


def test_the_magnet_pulls_back_and_moves_when_it_is_due():
    policy, (fragment,) = fragments_of("brawl")
    free = make_learner(policy, lr=0.02, magnet_coef=0.0)
    held = make_learner(policy, lr=0.02, magnet_coef=50.0, magnet_iterations=1000)
    moving = make_learner(policy, lr=0.02, magnet_coef=0.01, magnet_iterations=3)
    batch, _ = held._prepare(fragment, torch.as_tensor(fragment.reward))
    assert held._step(batch, None, torch.arange(16), 0.0)["loss/magnet_kl"] == pytest.approx(0, abs=1e-6)
    magnets = []
    for _ in range(6):
        for learner in (free, held, moving):
            learner.update([fragment])
        magnets.append(parameters(moving.magnet))

    def distance(learner):
        with torch.no_grad():
            start, now = (plain_forward(p, fragment)[0].softmax(-1) for p in (policy, learner.policy))
        return float((start - now).abs().mean())

    assert distance(held) < 0.5 * distance(free)
    same = [all(torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(magnets)]
    assert same == [True, False, True, True, False]  # after updates 3 and 6 it is the policy of then
    final = parameters(moving.policy)
    assert all(torch.equal(x, final[name]) for name, x in magnets[-1].items())


# Normalisers.


def test_normalized_values_mean_what_they_meant():
    policy, (fragment,) = fragments_of("turns")
    fragment.reward[:] = fragment.reward * 100 + 300
    learner = make_learner(policy, normalize_value=True, lr=1e-30)
    obs = {path: torch.from_numpy(x) for path, x in fragment.obs.items()}
    first, state = torch.from_numpy(fragment.is_first), torch.from_numpy(fragment.initial_state)
    with torch.no_grad():
        before = learner.policy.unroll(obs, first, state)
    learner.update([fragment])  # moves the units alone
    with torch.no_grad():
        after = learner.policy.unroll(obs, first, state)
    assert learner.policy.value_std > 10
    assert learner.policy.value_mean.abs() > 10
    torch.testing.assert_close(after.value, before.value, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(after.head.flat, before.head.flat)


@pytest.mark.parametrize("changes", [{"normalize_value": True}, {"normalize_reward": True}], ids=str)
def test_the_size_of_rewards_does_not_matter_once_it_is_normalised(changes):
    errors = []
    for unit in (1.0, 1000.0):
        env = TOYS["bandit"](16)
        policy = make_policy(env, bold=False)
        policy.requires_grad_()
        learner = make_learner(policy, lr=0.02, entropy=0.0, **changes)
        errors.append(train(learner, TOYS["bandit"](16), 20, unit=unit))
    assert errors[1] == pytest.approx(errors[0], abs=0.15)
    assert min(errors) > 0.5


# V-trace.


def test_vtrace_on_its_own_data_is_gae():
    policy, (fragment,) = fragments_of("turns")
    by_gae, by_vtrace = (make_learner(policy, advantage=kind) for kind in ("gae", "vtrace"))
    one, two = (
        by_gae._prepare(fragment, torch.as_tensor(fragment.reward))[0],
        by_vtrace._prepare(fragment, torch.as_tensor(fragment.reward))[0],
    )
    for name in ("advantage", "target", "logp"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-4)
    metrics = [learner.update([fragment]) for learner in (by_gae, by_vtrace)]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-3, abs=1e-4)


def test_vtrace_weighs_stale_data_down():
    policy, (fragment,) = fragments_of("brawl")
    fragment.logp[:] += 2.0  # the policy that acted took these actions e^2 times as often
    learner = make_learner(policy, advantage="vtrace", normalize_advantage=False)
    batch, _ = learner._prepare(fragment, torch.as_tensor(fragment.reward))
    fresh_learner = make_learner(policy, normalize_advantage=False)
    fresh = fresh_learner._prepare(fragment, torch.as_tensor(fragment.reward))[0]
    assert batch.advantage.abs().mean() < 0.3 * fresh.advantage.abs().mean()
    # The ratio of the first step is taken against the present policy, so nothing is clipped.
    assert learner._step(batch, learner._arrays(batch), torch.arange(16), 0.0)["loss/clip_fraction"] == 0


@pytest.mark.parametrize("advantage", ["gae", "vtrace"])
def test_moments_count_a_batch_once(advantage):
    policy, (fragment,) = fragments_of("brawl")
    learner = make_learner(policy, advantage=advantage, epochs=3, normalize_value=True, normalize_reward=True)
    learner.update([fragment])
    assert learner.target_moments.count == fragment.is_first.size
    assert learner.reward_scale.moments.count == fragment.is_first.size


def test_every_epoch_of_vtrace_sees_the_same_rewards(monkeypatch):
    """Where nothing is learned, the second epoch's targets are those of the first."""
    policy, (fragment,) = fragments_of("turns")
    fragment.reward[:] *= 10
    changes = {"normalize_reward": True, "lr": 1e-30, "num_minibatches": 1}
    learner = make_learner(policy, advantage="vtrace", epochs=3, **changes)
    seen = []
    original = Learner._step

    def step(self, batch, arrays, lanes, entropy_coef):
        seen.append(batch.target.clone())
        return original(self, batch, arrays, lanes, entropy_coef)

    monkeypatch.setattr(Learner, "_step", step)
    learner.update([fragment])
    for target in seen[1:]:
        torch.testing.assert_close(target, seen[0], rtol=1e-4, atol=1e-4)


# State.


ALL_ON = {
    "epochs": 2, "magnet_coef": 0.1, "magnet_iterations": 2, "normalize_value": True,
    "normalize_reward": True, "grad_clip_sigma": 5.0, "advantage": "vtrace",
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, ALL_ON], ids=["plain", "all on"])
@pytest.mark.parametrize("updates", [0, 3])
def test_going_on_from_a_state_is_bit_by_bit_the_same(changes, updates):
    policy, fragments = fragments_of("brawl", collects=6)
    one = make_learner(policy, **changes)
    for fragment in fragments[:updates]:
        one.update([fragment])
    arrays, meta = one.state()
    kept = {name: x.copy() for name, x in arrays.items()}
    stranger = make_learner(make_policy(TOYS["brawl"](1), 9).requires_grad_(), seed=9, **changes)
    stranger.update([fragments[0]])
    stranger.set_state(arrays, meta)
    for fragment in fragments[3:]:
        left, right = one.update([fragment]), stranger.update([fragment])
        assert left == right
        assert one.version == stranger.version
        assert all(np.array_equal(x, stranger.weights()[name]) for name, x in one.weights().items())
    assert all(np.array_equal(x, arrays[name]) for name, x in kept.items()), "the state given was written to"


# Frozen past selves.


def frozen(game="turns"):
    """A learner's weights become a past self; both play while the learner goes on."""
    env = TOYS[game](4)
    policy = make_policy(env)
    learner = make_learner(policy.requires_grad_(), lr=0.05)
    published = learner.weights()
    snapshot = make_policy(env, 5)
    load_weights(snapshot, published)
    rollout = make_rollout(env, PolicyPlayer(make_policy(env)), length=4)
    rng = np.random.default_rng(0)
    before = {name: x.copy() for name, x in published.items()}
    for version in range(3):
        rollout.load([learner.weights()], version)
        rollout.assign(draw_lineups(["old"], len(env.teams), rng), {"old": (PolicyPlayer(snapshot),)})
        learner.update(rollout.collect()[0])
    moved = [not np.array_equal(x, before[name]) for name, x in learner.weights().items()]
    assert any(moved)
    for name, x in snapshot.state_dict().items():
        assert np.array_equal(x.numpy(), before[name]), "the past self has learned"
        assert np.array_equal(published[name], before[name]), "the published weights have learned"


def test_a_past_self_stays_what_it_was():
    frozen()


def aliased_weights():
    def weights(self):
        return {name: x.detach().numpy() for name, x in self.policy.state_dict().items()}

    return [(Learner, "weights", weights)]


def aliased_everything():
    def load(module, weights):
        module.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()}, assign=True)

    return [*aliased_weights(), (players_module, "load_weights", load)]


@pytest.mark.parametrize("plant", [aliased_weights, aliased_everything])
def test_an_aliased_past_self_is_seen(monkeypatch, plant):
    for owner, name, value in plant():
        monkeypatch.setattr(owner, name, value)
    with pytest.raises(AssertionError, match="learned"):
        frozen()


# Learning.


def train(learner, env, updates, *, length=6, unit=1.0):
    """Mean reward per finished match and seat over the last tenth of the updates."""
    main = PolicyPlayer(copy.deepcopy(learner.policy).requires_grad_(False))
    rollout = make_rollout(env, main, length=length)
    rollout.assign(Lineups((MAIN,), np.zeros((1, len(env.teams)), np.int32)), {})
    means = []
    for _ in range(updates):
        rollout.load([learner.weights()], learner.version)
        (fragment,), results = rollout.collect()
        fragment.reward[:] *= unit
        learner.update([fragment])
        means.append(results.returns.mean())
    return float(np.mean(means[-max(updates // 10, 1) :]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"advantage": "vtrace"},
        pytest.param({"grad_clip_sigma": 5.0, "max_grad_norm": None}, marks=pytest.mark.slow),
        pytest.param({"normalize_value": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_it_learns_a_bandit(changes):
    """Guessing earns 0, naming the cue 1."""
    env = TOYS["bandit"](16)
    learner = make_learner(make_policy(env, bold=False).requires_grad_(), lr=0.02, entropy=0.0, **changes)
    assert train(learner, env, 30) > 0.9


def test_it_learns_to_remember():
    """The cue is seen two decisions before it is asked for: without memory the mean is 0."""
    env = TOYS["memory"](16)
    learner = make_learner(make_policy(env, bold=False).requires_grad_(), lr=0.02, entropy=0.01, gamma=0.9)
    assert train(learner, env, 60) > 0.8
    env = TOYS["memory"](16)
    without = make_learner(make_policy(env, core="none", bold=False).requires_grad_(), lr=0.02)
    assert abs(train(without, env, 30)) < 0.3
