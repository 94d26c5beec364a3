"""Composite heads against enumeration: every action of a small space, its probability in plain Python."""

import itertools
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies import composite_head
from policies.head_interface import HeadInput
from policies.heads import make_head
from policies.spaces import leaves

EITHER = pytest.mark.parametrize("autoregressive", [False, True])
SMALL = spaces.Dict(
    {
        "kind": spaces.Discrete(3, start=5),
        "many": spaces.MultiDiscrete([[2], [3]], start=[[1], [-1]], dtype=np.int32),
        "tuple": spaces.Tuple([spaces.MultiBinary(2), spaces.Discrete(2)]),
    }
)
SMALL_MASK = {  # choices 0 and 2 of kind; all of many's first part, 1 and 2 of its second; bit 0 is set
    "kind": [True, False, True],
    "many": [True, True, False, True, True],
    "tuple/0": [False, True, True, True],
}


def every_action(space):
    """Leaves [X, ...] of all actions of a space of choices, and their number X."""
    by_path = leaves(space)
    values = []
    for leaf in by_path.values():
        if isinstance(leaf, spaces.Discrete):
            options = [np.array(leaf.start + k, leaf.dtype) for k in range(leaf.n)]
        else:
            nvec = getattr(leaf, "nvec", np.full(leaf.shape, 2)).reshape(-1)
            start = np.broadcast_to(getattr(leaf, "start", 0), leaf.shape).reshape(-1)
            grid = itertools.product(*(range(n) for n in nvec))
            options = [(np.array(k) + start).reshape(leaf.shape).astype(leaf.dtype) for k in grid]
        values.append(options)
    actions = list(itertools.product(*values))
    columns = (torch.from_numpy(np.stack(column)) for column in zip(*actions))
    return dict(zip(by_path, columns)), len(actions)


def row_input(head, seed, scale=1.0, **sets):
    """One row of numbers; parameters that start small are made large, so that all that depends, shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "readout" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return HeadInput(torch.randn(1, head.num_inputs, generator=generator) * scale, **sets)


def many(x, rows):
    """A row's input, `rows` times."""
    entities, present = (
        {path: leaf.expand(rows, *leaf.shape[1:]) for path, leaf in sets.items()}
        for sets in (x.entities, x.present)
    )
    return HeadInput(x.flat.expand(rows, -1), entities, present)


def masks(mask, rows):
    return {path: torch.tensor([legal] * rows) for path, legal in mask.items()}


def keys(action):
    """Every row of action leaves as one tuple."""
    columns = [leaf.reshape(len(leaf), -1).tolist() for leaf in action.values()]
    return [tuple(sum(row, [])) for row in zip(*columns)]  # noqa: RUF017


def draw(head, x, mask, draws, seed=3):
    uniform = np.random.default_rng(seed).random((draws, head.num_uniforms), dtype=np.float32)
    return head.sample(many(x, draws), masks(mask, draws), torch.from_numpy(uniform))


def chi_square(seen, wanted):
    """Pearson's statistic, and its bound: mean + 4.5 standard deviations of k - 1 degrees of freedom."""
    chosen = wanted > 0
    assert seen[~chosen].sum() == 0
    freedom = chosen.sum() - 1
    return ((seen - wanted)[chosen] ** 2 / wanted[chosen]).sum(), freedom + 4.5 * math.sqrt(2 * freedom)


@EITHER
def test_probabilities_of_all_actions_sum_to_one_and_are_those_drawn(autoregressive):
    head = make_head(SMALL, autoregressive=autoregressive)
    x, (actions, count) = row_input(head, 0), every_action(SMALL)
    assert count == 3 * 6 * 4 * 2
    logp, entropy = head.evaluate(many(x, count), masks(SMALL_MASK, count), actions)
    probs = logp.double().exp()
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)
    assert (probs > 0).sum() == 2 * 4 * 2 * 2

    draws = 20_000
    drawn, drawn_logp = draw(head, x, SMALL_MASK, draws)
    place = {key: k for k, key in enumerate(keys({path: actions[path] for path in drawn}))}
    seen = np.bincount([place[key] for key in keys(drawn)], minlength=count)
    statistic, bound = chi_square(seen, probs.detach().numpy() * draws)
    assert statistic < bound
    again, entropies = head.evaluate(many(x, draws), masks(SMALL_MASK, draws), drawn)
    torch.testing.assert_close(drawn_logp, again, atol=1e-5, rtol=0)

    # Exact where independent; along the action, right in the mean, where autoregressive.
    exact = -(probs * logp.double().clamp(min=-100)).sum().item()
    assert entropies.mean().item() == pytest.approx(exact, abs=0.02 if autoregressive else 1e-5)
    assert autoregressive == (entropy.std().item() > 1e-3)


def test_independent_parts_by_hand():
    # Logits side by side: kind 3, many 2 + 3, bits 2 + 2, last 2.
    head = make_head(SMALL)
    logits = [0, 9, 0, math.log(3), 0, 9, math.log(2), 0, 9, 1, 0, math.log(4), 0, 0]
    action = {
        "kind": torch.tensor([7]),
        "many": torch.tensor([[[1], [0]]]),
        "tuple/0": torch.tensor([[1, 1]]),
        "tuple/1": torch.tensor([0]),
    }
    x = HeadInput(torch.tensor([logits]))
    logp, entropy = head.evaluate(x, masks(SMALL_MASK, 1), action)
    assert logp.exp().item() == pytest.approx(1 / 2 * 3 / 4 * 2 / 3 * 1 * 4 / 5 * 1 / 2)
    parts = [(1 / 2, 1 / 2), (3 / 4, 1 / 4), (2 / 3, 1 / 3), (1.0,), (1 / 5, 4 / 5), (1 / 2, 1 / 2)]
    assert entropy.item() == pytest.approx(-sum(p * math.log(p) for part in parts for p in part))
    best, best_logp = head.best(x, masks(SMALL_MASK, 1))
    assert keys(best) == [(5, 1, 0, 1, 1, 0)]
    assert best_logp.item() == pytest.approx(logp.item())


@EITHER
def test_everything_in_one_space(autoregressive):
    """Types, shapes and bounds of what is drawn; leading dimensions; replay; first play near uniform."""
    space = spaces.Tuple(
        [
            SMALL,
            spaces.Box(np.array([[-2, 0]]), np.array([[5, 1e-3]]), dtype=np.float64),
            spaces.Box(-np.inf, np.inf, (3,)),
            spaces.Discrete(4, start=1),
        ]
    )
    torch.manual_seed(0)
    head = make_head(
        space,
        autoregressive=autoregressive,
        uses={"1": {"0/kind": [6]}},
        points={"3": "units"},
        entity_size=8,
    )
    rows, generator = 600, torch.Generator().manual_seed(1)
    present = {"units": torch.rand(rows, 4, generator=generator) < 0.5}
    present["units"][:, 2] = True
    entities = {"units": torch.randn(rows, 4, 8, generator=generator)}
    x = HeadInput(torch.randn(rows, head.num_inputs, generator=generator) * 0.01, entities, present)
    uniform = torch.rand(rows, head.num_uniforms, generator=generator)
    for play in (head.sample(x, {}, uniform), head.best(x, {})):
        action, logp = play
        for path, leaf in leaves(space).items():
            assert all(leaf.contains(row) for row in action[path].numpy())
        assert present["units"].gather(1, action["3"][:, None] - 1).all()
        lanes = HeadInput(
            x.flat.reshape(20, 30, -1),
            {"units": entities["units"].reshape(20, 30, 4, 8)},
            {"units": present["units"].reshape(20, 30, 4)},
        )
        steps = {path: leaf.reshape(20, 30, *leaf.shape[1:]) for path, leaf in action.items()}
        again, entropy = head.evaluate(lanes, {}, steps)
        torch.testing.assert_close(again.reshape(-1), logp, atol=1e-5, rtol=0)
        assert entropy.shape == (20, 30)
        assert head.kl(lanes, head, lanes, {}, steps).abs().max() < 1e-6
    probs = torch.bincount(head.sample(x, {}, uniform)[0]["0/kind"] - 5, minlength=3) / rows
    assert (probs - 1 / 3).abs().max() < 0.1


@EITHER
def test_no_uniform_number_draws_an_illegal_choice(autoregressive):
    head = make_head(spaces.MultiDiscrete([2, 7, 3, 5]), autoregressive=autoregressive)
    generator = torch.Generator().manual_seed(4)
    legal = torch.rand(500, 17, generator=generator) < 0.4
    legal[:, [1, 4, 9, 14]] = True
    x = HeadInput(torch.randn(500, head.num_inputs, generator=generator) * 20)
    for u in (0.0, 1e-45, float(np.nextafter(np.float32(1), np.float32(0)))):
        action, logp = head.sample(x, {"": legal}, torch.full((500, 4), u))
        assert legal.gather(1, action[""] + torch.tensor([0, 2, 9, 12])).all()
        assert logp.isfinite().all()


@EITHER
def test_kl_is_that_of_the_enumerated_distributions(autoregressive):
    """Independent: exact. Autoregressive: along the action, exact in the mean over the policy's actions."""
    heads = [make_head(SMALL, autoregressive=autoregressive) for _ in range(2)]
    inputs = [row_input(head, seed) for seed, head in enumerate(heads)]
    actions, count = every_action(SMALL)
    legal, (p_x, q_x) = masks(SMALL_MASK, count), (many(x, count) for x in inputs)
    log_p, log_q = (heads[k].evaluate(x, legal, actions)[0].double() for k, x in enumerate((p_x, q_x)))
    exact = (log_p.exp() * (log_p - log_q).where(log_p > -1e6, 0.0)).sum().item()
    kl = heads[0].kl(p_x, heads[1], q_x, legal, actions)
    assert (kl > -1e-6).all()
    assert exact > 0.1
    assert (log_p.exp() * kl).sum().item() == pytest.approx(exact, abs=1e-4)
    assert autoregressive == (kl.std().item() > 1e-3)


@EITHER
def test_unused_leaves_count_for_nothing(autoregressive):
    """Move (kind 1) uses where; shoot (2) uses where and unit; unit uses part, unless it is unit 0 itself."""
    space = spaces.Dict(
        {name: spaces.Discrete(n) for name, n in {"kind": 3, "part": 2, "unit": 3, "where": 4}.items()}
    )
    uses = {"where": {"kind": [1, 2]}, "unit": {"kind": [2]}, "part": {"unit": [1, 2]}}
    head = make_head(space, autoregressive=autoregressive, uses=uses)
    x, (actions, count) = row_input(head, 6), every_action(space)
    logp, entropy = head.evaluate(many(x, count), {}, actions)
    kl = head.kl(many(x, count), head, many(row_input(head, 7), count), {}, actions)
    meaning: dict[tuple, set] = {}
    for kind, part, unit, where, *numbers in zip(
        *(actions[k].tolist() for k in ("kind", "part", "unit", "where")),
        *(y.detach().numpy().round(5).tolist() for y in (logp, entropy, kl)),
    ):
        key = (kind, part if kind == 2 and unit else -1, unit if kind == 2 else -1, where if kind else -1)
        meaning.setdefault(key, set()).add(tuple(numbers))
    assert len(meaning) == 1 + 4 + (1 + 2 * 2) * 4
    assert all(len(numbers) == 1 for numbers in meaning.values())
    assert sum(math.exp(next(iter(numbers))[0]) for numbers in meaning.values()) == pytest.approx(1, abs=1e-4)

    # By hand: kind 0 alone is the primary's own probability, entropy and KL.
    if not autoregressive:
        kinds = torch.softmax(x.flat[0, :3].double(), 0)
        alone = (actions["kind"] == 0).nonzero()[0]
        assert logp[alone].item() == pytest.approx(kinds[0].log().item(), abs=1e-5)
        assert entropy[alone].item() == pytest.approx(-(kinds * kinds.log()).sum().item(), abs=1e-5)


@EITHER
def test_an_unused_leaf_is_drawn_in_its_space_even_where_nothing_is_legal(autoregressive):
    space = spaces.Dict({"kind": spaces.Discrete(2), "unit": spaces.MultiDiscrete([3, 2], start=[4, 7])})
    head = make_head(space, autoregressive=autoregressive, uses={"unit": {"kind": [1]}})
    generator = torch.Generator().manual_seed(0)
    x = HeadInput(torch.randn(200, head.num_inputs, generator=generator))
    mask = {"unit": torch.zeros(200, 5, dtype=torch.bool)}
    action, logp = head.sample(x, mask, torch.rand(200, 3, generator=generator))
    waits = action["kind"] == 0
    assert 20 < waits.sum() < 180
    assert (action["unit"][waits] == torch.tensor([4, 7])).all()
    assert (action["unit"][~waits] == torch.tensor([3, 6])).all()  # below the space, for the game to refuse
    in_space = action | {"unit": action["unit"].maximum(torch.tensor([4, 7]))}
    flat = x.flat.clone().requires_grad_()
    again, entropy = head.evaluate(HeadInput(flat), mask, in_space)
    torch.testing.assert_close(again[waits], logp[waits], atol=1e-5, rtol=0)
    assert entropy.isfinite().all()
    grads = torch.autograd.grad((again + entropy)[waits].sum(), [flat, *head.parameters()])
    assert all(grad.isfinite().all() for grad in grads)


def test_either_of_two_primaries_uses_a_leaf():
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2), "c": spaces.Discrete(5)})
    head = make_head(space, uses={"c": {"a": [1], "b": [1]}})
    actions, count = every_action(space)
    logp, _ = head.evaluate(HeadInput(torch.zeros(count, 9)), {}, actions)
    used = (actions["a"] == 1) | (actions["b"] == 1)
    wanted = math.log(1 / 4) + math.log(1 / 5) * used
    torch.testing.assert_close(logp, wanted.float())


@EITHER
def test_a_pointer_is_a_scaled_product_with_the_entities(autoregressive):
    space = spaces.Dict({"kind": spaces.Discrete(2), "unit": spaces.Discrete(3, start=1)})
    head = make_head(space, autoregressive=autoregressive, points={"unit": "seen/units"}, entity_size=4)
    embeddings = torch.tensor([[[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 9, 0]]])
    present = torch.tensor([[True, True, False]])
    x = row_input(head, 2, entities={"seen/units": embeddings}, present={"seen/units": present})
    if not autoregressive:
        assert head.num_inputs == 2 + 4
        x = x._replace(flat=torch.tensor([[0, 0, 2 * math.log(5), math.log(2), 1, 1]]))
        action = {"kind": torch.tensor([0] * 3), "unit": torch.tensor([1, 2, 3])}
        logp, _ = head.evaluate(many(x, 3), {}, action)  # logits ln 5, ln 2
        assert logp.exp().tolist() == pytest.approx([5 / 14, 2 / 14, 0])
        legal = {"unit": torch.tensor([[False, True, True]])}  # the game's mask decides alone
        logp, _ = head.evaluate(many(x, 3), {"unit": legal["unit"].expand(3, 3)}, action)
        weight = [0, 2, math.exp(4.5)]
        assert logp.exp().tolist() == pytest.approx([0.5 * w / sum(weight) for w in weight])
    # Entities in another order: the same choice by another name.
    order = torch.tensor([1, 2, 0])
    turned = x._replace(
        entities={"seen/units": embeddings[:, order]}, present={"seen/units": present[:, order]}
    )
    logp, turned_logp = (
        head.evaluate(one, {}, {"kind": torch.tensor([1]), "unit": torch.tensor([name])})[0]
        for one, name in ((x, 2), (turned, 1))
    )
    torch.testing.assert_close(logp, turned_logp)
    with pytest.raises(ValueError, match="3 choices points to observation 'seen/units' of 2 entities"):
        head.evaluate(
            x._replace(entities={"seen/units": embeddings[:, :2]}),
            {},
            {"kind": torch.tensor([1]), "unit": torch.tensor([1])},
        )


def test_a_pointer_alone_sends_gradients_to_the_entities():
    head = make_head(spaces.Discrete(3), points={"": "units"}, entity_size=4)
    embeddings = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    flat = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x = HeadInput(flat, {"units": embeddings}, {"units": torch.tensor([[True] * 3, [True, False, True]])})
    logp, entropy = head.evaluate(x, {}, {"": torch.tensor([0, 2])})
    on_flat, on_entities = torch.autograd.grad((logp + entropy).sum(), [flat, embeddings])
    assert on_flat.abs().min() > 0
    assert (on_entities[1, 1] == 0).all()
    assert on_entities.abs().sum(-1).count_nonzero() == 5


@EITHER
def test_numbers_stay_float32_under_autocast(autoregressive):
    head = make_head(SMALL, autoregressive=autoregressive)
    x = row_input(head, 1)
    action = {path: leaf[:1] for path, leaf in every_action(SMALL)[0].items()}
    wanted = head.evaluate(x, {}, action)
    with torch.autocast("cpu", torch.bfloat16):
        for one, two in zip(head.evaluate(x, {}, action), wanted, strict=True):
            assert one.dtype == torch.float32
            assert torch.equal(one, two)


@EITHER
def test_every_tensor_is_made_where_the_input_is(autoregressive, monkeypatch):
    """On torch's device without memory, where a tensor of the CPU is refused beside the others."""
    monkeypatch.setattr(composite_head, "_in_float32", lambda x: nullcontext())  # which it does not know
    space = spaces.Dict({"a": SMALL, "b": spaces.Box(-1, 1, (2,)), "c": spaces.Discrete(3)})
    uses, points = {"b": {"a/kind": [6]}, "a/many": {"c": [1]}}, {"c": "units"}
    head = make_head(space, autoregressive=autoregressive, uses=uses, points=points, entity_size=4).to("meta")
    x = HeadInput(
        torch.zeros(5, head.num_inputs, device="meta"),
        {"units": torch.zeros(5, 3, 4, device="meta")},
        {"units": torch.ones(5, 3, dtype=torch.bool, device="meta")},
    )
    mask = {"a/many": torch.ones(5, 5, dtype=torch.bool, device="meta")}
    for action, _ in (
        head.sample(x, mask, torch.zeros(5, head.num_uniforms, device="meta")),
        head.best(x, mask),
    ):
        numbers = (*head.evaluate(x, mask, action), head.kl(x, head, x, mask, action), *action.values())
        assert all(number.device.type == "meta" for number in numbers)


@EITHER
def test_extreme_logits_replay_and_have_finite_gradients(autoregressive):
    space = spaces.Dict({"a": SMALL, "b": spaces.Box(-1, 1, (2,))})
    head = make_head(space, autoregressive=autoregressive)
    x = row_input(head, 8, scale=300.0)
    action, logp = draw(head, x, {}, 300)
    flat = many(x, 300).flat.clone().requires_grad_()
    again, entropy = head.evaluate(HeadInput(flat), {}, action)
    torch.testing.assert_close(again, logp, atol=1e-5, rtol=1e-6)
    kl = head.kl(HeadInput(flat), head, HeadInput(-flat.detach()), {}, action)
    grads = torch.autograd.grad((again + entropy + kl).sum(), [flat, *head.parameters()])
    assert all(grad.isfinite().all() for grad in grads)
