"""The masked categorical head against sums of exponentials, one row at a time."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from policies import categorical
from policies.heads import CategoricalHead, HeadInput, make_head

ALMOST_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def slow(logits, legal):
    """Probability of every action, and entropy, in Python floats."""
    highest = max(x for x, ok in zip(logits, legal) if ok)
    weight = [math.exp(x - highest) if ok else 0.0 for x, ok in zip(logits, legal)]
    probs = [w / sum(weight) for w in weight]
    return probs, -sum(p * math.log(p) for p in probs if p > 0)


@st.composite
def rows(draw):
    n = draw(st.integers(1, 9))
    logits = draw(st.lists(st.floats(-30, 30, width=32), min_size=n, max_size=n))
    legal = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    return logits, legal


def head_of(n):
    return CategoricalHead(spaces.Discrete(n))


def flat(logits):
    return HeadInput(torch.as_tensor(logits))


@given(rows())
def test_logp_and_entropy(row):
    logits, legal = row
    head, probs_entropy = head_of(len(logits)), slow(logits, legal)
    many = len(logits)
    logp, entropy = head.evaluate(
        flat([logits] * many), {"": torch.tensor([legal] * many)}, {"": torch.arange(many)}
    )
    for action in range(many):
        if legal[action]:
            p = probs_entropy[0][action]
            assert logp[action].item() == pytest.approx(math.log(p) if p > 0 else -math.inf, abs=2e-5)
        else:
            assert logp[action].exp() == 0
    assert entropy.tolist() == pytest.approx([probs_entropy[1]] * many, abs=2e-5)


def test_hand_worked():
    # Logits 0, ln 3, 5 with the last illegal: 1/4, 3/4; entropy .25 ln 4 + .75 ln(4/3) = .562335
    logits, legal = torch.tensor([[0.0, math.log(3), 5.0]]), torch.tensor([[True, True, False]])
    logp, entropy = head_of(3).evaluate(flat(logits), {"": legal}, {"": torch.tensor([1])})
    assert logp.exp().item() == pytest.approx(0.75)
    assert entropy.item() == pytest.approx(0.562335, abs=1e-6)
    for uniform, action in [(0.0, 0), (0.2499, 0), (0.2501, 1), (ALMOST_ONE, 1)]:
        drawn, logp = head_of(3).sample(flat(logits), {"": legal}, torch.tensor([[uniform]]))
        assert drawn[""].item() == action
        assert logp.exp().item() == pytest.approx([0.25, 0.75][action])


@given(rows(), st.floats(0, 1, exclude_max=True, width=32))
def test_inverse_transform_draws_a_legal_action(row, uniform):
    logits, legal = row
    head = head_of(len(logits))
    for u in (uniform, 0.0, ALMOST_ONE):
        action, logp = head.sample(flat([logits]), {"": torch.tensor([legal])}, torch.tensor([[u]]))
        (chosen,) = action[""].tolist()
        assert legal[chosen]
        probs, _ = slow(logits, legal)
        assert probs[chosen] > 0
        below = sum(probs[:chosen])
        assert below - 1e-5 <= u <= below + probs[chosen] + 1e-5
        assert logp.item() == pytest.approx(math.log(probs[chosen]), abs=2e-5)


@pytest.mark.parametrize("u", [0.0, 1e-45, ALMOST_ONE])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize("only", ["first", "last", "middle"])
def test_one_legal_action_is_always_taken(u, n, only):
    place = {"first": 0, "last": n - 1, "middle": n // 2}[only]
    legal = torch.arange(n)[None] == place
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(1, n, generator=generator) * 40
    action, logp = head_of(n).sample(flat(logits), {"": legal}, torch.tensor([[u]]))
    assert action[""].item() == place
    assert logp.item() == 0
    assert head_of(n).best(flat(logits), {"": legal})[0][""].item() == place


def test_illegal_actions_at_the_end_are_never_drawn_near_one():
    # Sums of many small probabilities round below 1: the draw must not fall off their end.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 300, generator=generator)
    legal = torch.rand(4000, 300, generator=generator) < 0.5
    legal[:, 0], legal[:, -20:] = True, False
    for u in (0.0, ALMOST_ONE):
        action, _ = head_of(300).sample(flat(logits), {"": legal}, torch.full((4000, 1), u))
        assert legal.gather(1, action[""][:, None]).all()


def test_sampling_frequencies():
    # Pearson's statistic of k - 1 = 4 degrees of freedom exceeds 23.5 once in 10,000.
    logits = torch.tensor([1.0, -1.0, 9.0, 0.5, 2.0, -0.3])
    legal = torch.tensor([True, True, False, True, True, True])
    draws = 40_000
    uniform = np.random.default_rng(5).random((draws, 1), dtype=np.float32)
    action, _ = head_of(6).sample(
        flat(logits.expand(draws, 6)), {"": legal.expand(draws, 6)}, torch.from_numpy(uniform)
    )
    seen = np.bincount(action[""].numpy(), minlength=6)
    wanted = np.array(slow(logits.tolist(), legal.tolist())[0]) * draws
    assert seen[2] == 0
    chosen = wanted > 0
    assert ((seen - wanted)[chosen] ** 2 / wanted[chosen]).sum() < 23.5


def test_gradients_skip_illegal_actions_and_are_finite():
    logits = torch.tensor([[0.3, 200.0, -0.7, -300.0]], requires_grad=True)
    legal = {"": torch.tensor([[True, False, True, False]])}
    logp, entropy = head_of(4).evaluate(flat(logits), legal, {"": torch.tensor([2])})
    (grad,) = torch.autograd.grad((logp + entropy).sum(), logits)
    assert grad[0, [1, 3]].tolist() == [0, 0]
    plain = logits.detach()[:, [0, 2]].clone().requires_grad_()
    log_probs = plain.log_softmax(-1)
    (wanted,) = torch.autograd.grad((log_probs[0, 1] - (log_probs.exp() * log_probs).sum()), plain)
    torch.testing.assert_close(grad[:, [0, 2]], wanted)


def test_without_a_mask_all_is_legal():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    everything = {"": torch.ones(5, 4, dtype=torch.bool)}
    for one, two in zip(
        head_of(4).evaluate(flat(logits), {}, {"": torch.arange(5) % 4}),
        head_of(4).evaluate(flat(logits), everything, {"": torch.arange(5) % 4}),
        strict=True,
    ):
        assert torch.equal(one, two)


def test_the_likeliest_legal_action():
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    action, logp = head_of(3).best(flat(logits), {"": torch.tensor([[True, False, True]])})
    assert action[""].item() == 2
    assert logp.item() == pytest.approx(2 - math.log(math.exp(1) + math.exp(2)))


def test_numbers_from_a_start_in_the_dtype_of_the_space():
    head = make_head(spaces.Discrete(3, start=-2, dtype=np.int32))
    assert isinstance(head, CategoricalHead)
    logits = torch.tensor([[0.0, math.log(3), 5.0]])
    legal = {"": torch.tensor([[True, True, False]])}
    action, logp = head.sample(flat(logits), legal, torch.tensor([[0.5]]))
    assert action[""].dtype == torch.int32
    assert action[""].item() == -1
    assert head.best(flat(logits), legal)[0][""].item() == -1
    assert logp.exp().item() == pytest.approx(0.75)
    assert head.evaluate(flat(logits), legal, action)[0].item() == pytest.approx(logp.item())


@given(rows(), st.floats(0, 1, exclude_max=True, width=32))
def test_the_draw_of_other_devices_is_the_same(row, uniform):
    logits, legal = torch.tensor([row[0]]), torch.tensor([row[1]])
    uniform = torch.tensor([uniform])
    one, logp_one = categorical.draw(logits, legal, uniform)
    two, logp_two = categorical._draw_by_sums(logits, legal, uniform)
    assert legal[0, two.item()]
    assert logp_two.item() == pytest.approx(
        categorical.evaluate(logits, legal, two)[0].item(), abs=1e-6, rel=1e-6
    )
    if one.item() != two.item():  # only where the sums' rounding decides
        between = torch.softmax(logits.double().masked_fill(~legal, -math.inf), -1)[0].cumsum(0)
        assert (between - uniform.double()).abs().min() < 1e-6
    else:
        assert logp_one.item() == pytest.approx(logp_two.item(), abs=2e-5)


def test_a_sum_that_is_not_monotone_draws_nothing_illegal(monkeypatch):
    # A parallel sum may differ in its last bit after the last legal choice, and so leave room behind it.
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda self, dim: torch.tensor([[0.5, 1 - 2**-23, 1.0]]))
    legal, uniform = torch.tensor([[True, True, False]]), torch.tensor([ALMOST_ONE])
    assert categorical._draw_by_sums(torch.zeros(1, 3), legal, uniform)[0].item() == 1


def test_nothing_legal_gives_minus_one():
    logits, nothing = torch.zeros(2, 3), torch.tensor([[False] * 3, [True] * 3])
    for draw in (categorical.draw, categorical._draw_by_sums):
        assert draw(logits, nothing, torch.full((2,), 0.5))[0].tolist() == [-1, 1]
    assert categorical.best(logits, nothing)[0].tolist() == [-1, 0]


def test_kl_by_hand_and_by_torch():
    # (1/4, 3/4) against (1/2, 1/2): 1/4 ln(1/2) + 3/4 ln(3/2) = .130812; the illegal third has no part.
    p, q = flat([[0.0, math.log(3), 5.0]]), flat([[1.0, 1.0, -9.0]])
    legal = {"": torch.tensor([[True, True, False]])}
    head = head_of(3)
    assert head.kl(p, head_of(3), q, legal, {}).item() == pytest.approx(0.130812, abs=1e-6)
    assert head.kl(p, head_of(3), p, legal, {}).item() == 0
    generator = torch.Generator().manual_seed(1)
    one, two = torch.randn(5, 4, 6, generator=generator), torch.randn(5, 4, 6, generator=generator)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=one), torch.distributions.Categorical(logits=two)
    )
    torch.testing.assert_close(head_of(6).kl(flat(one), head_of(6), flat(two), {}, {}), wanted)


def test_kl_has_finite_gradients_at_extreme_logits():
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    legal = {"": torch.tensor([[True, True, False]])}
    kl = head_of(3).kl(flat(logits), head_of(3), flat(-logits), legal, {})
    assert torch.autograd.grad(kl.sum(), logits)[0].isfinite().all()
    assert kl.item() == pytest.approx(600)


def test_the_fast_path_has_no_parameters():
    assert not list(make_head(spaces.Discrete(7)).state_dict())


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (spaces.Box(0, 9, (2,), np.int64), "Box"),
        (spaces.Text(5), "Text"),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Tuple([spaces.Text(5)])}), "at 'b/0'"),
        (spaces.Box(np.array([0, 0]), np.array([1, np.inf]), dtype=np.float32), "its number 1"),
        (spaces.Box(np.array([0, 1]), np.array([1, 1]), dtype=np.float32), "its number 1"),
        (spaces.Box(np.float32(1e6), np.float32(1e6 + 0.25), (1,)), "its number 0"),
        (spaces.Dict({}), "no leaves"),
    ],
)
def test_other_spaces_are_refused(space, name):
    with pytest.raises(ValueError, match=r"no action head.*allowed: ") as refusal:
        make_head(space)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uses": {"x": {"kind": [0]}}}, "no action leaf 'x'; allowed: \\['kind', 'move', 'unit'\\]"),
        ({"uses": {"unit": {"x": [0]}}}, "no action leaf 'x'"),
        ({"uses": {"unit": {"move": [0]}}}, "'move' of 'unit' is Box.*; allowed: Discrete"),
        ({"uses": {"unit": {"kind": [4]}}}, "4 of 'unit' is no action of leaf 'kind'"),
        ({"uses": {"unit": {"kind": [1]}, "kind": {"unit": [1]}}}, "use each other in a circle"),
        ({"points": {"move": "units"}, "entity_size": 4}, "'move' is no Discrete action leaf"),
        ({"points": {"unit": "units"}}, "'units' is no entity set that is encoded"),
    ],
)
def test_wrong_uses_and_points_are_refused(options, message):
    space = spaces.Dict(
        {"kind": spaces.Discrete(3, start=1), "move": spaces.Box(-1, 1, (2,)), "unit": spaces.Discrete(4)}
    )
    with pytest.raises(ValueError, match=message):
        make_head(space, **options)
