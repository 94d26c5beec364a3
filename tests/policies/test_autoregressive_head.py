"""What only an autoregressive head can do, and that all parts at once are the parts one by one."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies.autoregressive_head import WIDTH, AutoregressiveHead
from policies.heads import HeadInput, make_head

MIXED = spaces.Dict(
    {
        "bits": spaces.MultiBinary(3),
        "goal": spaces.Box(-2, 2, (2,)),
        "kind": spaces.Discrete(3),
        "unit": spaces.Discrete(4),
        "way": spaces.Discrete(2, start=1),
    }
)


def mixed_head(seed=0):
    """A head whose parts depend on each other strongly: goal and unit are used by some kinds only."""
    torch.manual_seed(seed)
    head = make_head(
        MIXED,
        autoregressive=True,
        uses={"goal": {"kind": [0, 1]}, "unit": {"kind": [1]}},
        points={"unit": "units"},
        entity_size=5,
    )
    assert isinstance(head, AutoregressiveHead)
    with torch.no_grad():
        for readout in head.readout:
            readout.mul_(20)
    return head


def mixed_input(rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return HeadInput(
        torch.randn(rows, WIDTH, generator=generator),
        {"units": torch.randn(rows, 4, 5, generator=generator)},
        {"units": torch.tensor([True, False, True, True]).expand(rows, 4)},
    )


def fit(head, wanted, steps):
    """Gradient ascent on the mean logp of the wanted actions; returns its last value."""
    flat = torch.zeros(1, head.num_inputs, requires_grad=True)
    count = len(next(iter(wanted.values())))
    optimizer = torch.optim.Adam([flat, *head.parameters()], lr=0.05)
    for _ in range(steps):
        logp, _ = head.evaluate(HeadInput(flat.expand(count, -1)), {}, wanted)
        optimizer.zero_grad()
        (-logp.mean()).backward()
        optimizer.step()
    return logp.mean().item()


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        (spaces.MultiBinary(2), {"": [[0, 1], [1, 0]]}),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2)}), {"a": [0, 1], "b": [1, 0]}),
    ],
)
def test_exclusive_or_is_learned_only_by_parts_that_see_each_other(space, wanted):
    wanted = {path: torch.tensor(leaf) for path, leaf in wanted.items()}
    torch.manual_seed(0)
    assert fit(make_head(space, autoregressive=True), wanted, 60) > math.log(1 / 2) - 0.02
    assert fit(make_head(space), wanted, 60) <= math.log(1 / 4) + 1e-3


def test_a_number_follows_the_choice_before_it():
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (1,))})
    wanted = {"a": torch.tensor([0, 1]), "b": torch.tensor([[-0.9], [0.9]])}
    torch.manual_seed(0)
    head = make_head(space, autoregressive=True)
    fit(head, wanted, 60)
    drawn, _ = head.sample(
        HeadInput(torch.zeros(200, WIDTH)), {}, torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    )
    assert (drawn["b"][:, 0].sign() == drawn["a"] * 2 - 1).float().mean() > 0.95


def slow_logp(head, x, value):
    """One row, part by part, straight from the definition. value: path -> list of numbers."""
    logp, context, column = 0.0, x.flat[0].double(), 0
    kind = value["kind"][0]
    used = {"bits": True, "kind": True, "goal": kind in (0, 1), "unit": kind == 1, "way": True}
    for index, path in enumerate(head.paths):
        for k, number in enumerate(value[path]):
            z = (context + head.offset[column].double()).relu()
            params = head.readout[index][k].double() @ z
            embed = head.embed[index]
            if path == "goal":
                std = head.leaf[index].log_std[k].double().exp()
                u = math.atanh(number / 2)
                own = -0.5 * ((u - params[0]) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
                own = own - math.log(2 * (1 - (number / 2) ** 2))
                added = number / 2 * embed.weight[k]
            elif path == "unit":
                logits = x.entities["units"][0].double() @ params / math.sqrt(5)
                own = torch.log_softmax(logits[[0, 2, 3]], 0)[[0, 2, 3].index(number)]
                added = embed.weight @ x.entities["units"][0, number]
            else:
                own = torch.log_softmax(params, 0)[number]
                added = embed.table[k * len(params) + number]
            column += 1
            if used[path]:
                logp += own.item()
                context = context + added.double()
    return logp


def test_logp_is_the_definition_part_by_part():
    head, x = mixed_head(), mixed_input(40)
    uniform = torch.rand(40, head.num_uniforms, generator=torch.Generator().manual_seed(2))
    action, logp = head.sample(x, {}, uniform)
    again, _ = head.evaluate(x, {}, action)
    torch.testing.assert_close(again, logp, atol=1e-5, rtol=0)
    assert len(action["kind"].unique()) == 3
    for row in range(40):
        value = {path: leaf[row].reshape(-1).tolist() for path, leaf in action.items()}
        value["way"][0] -= 1
        one = HeadInput(x.flat[row, None], {"units": x.entities["units"][row, None]})
        assert logp[row].item() == pytest.approx(slow_logp(head, one, value), abs=1e-4)


def test_parts_see_only_the_parts_before_them():
    """The chain rule's factors: changing a later part leaves the earlier parts' gradients as they were."""
    head, x = mixed_head(), mixed_input(1)
    assert head.paths == ["bits", "kind", "goal", "unit", "way"]  # a primary before what it uses
    base = {"bits": [[0, 1, 0]], "goal": [[0.5, -0.5]], "kind": [1], "unit": [0], "way": [1]}
    action = {path: torch.tensor(leaf) for path, leaf in base.items()}
    value = {path: leaf.parse(action[path]) for path, leaf in head.leaves().items()}

    def scores(changed):
        found = head.scores(x, value | changed, head._used(value | changed))
        return [found[path][0, k] for path in head.paths for k in range(found[path].shape[1])]

    before = scores({})
    changes = [("bits", 1, 0, 2), ("kind", 0, 0, 4), ("goal", 1, 1.5, 6), ("unit", 0, 3, 7), ("way", 0, 1, 8)]
    for path, part, number, first_that_sees in changes:
        other = value[path].clone()
        other[0, part] = number
        after = scores({path: other})
        for k, (one, two) in enumerate(zip(before, after)):
            assert torch.equal(one, two) == (k < first_that_sees), (path, k)


def test_entropy_along_the_action_is_unbiased():
    head, draws = mixed_head(), 20_000
    one = mixed_input(1)
    x = HeadInput(
        one.flat.expand(draws, -1),
        {"units": one.entities["units"].expand(draws, 4, 5)},
        {"units": one.present["units"].expand(draws, 4)},
    )
    uniform = np.random.default_rng(0).random((draws, head.num_uniforms), dtype=np.float32)
    action, logp = head.sample(x, {}, torch.from_numpy(uniform))
    _, entropy = head.evaluate(x, {}, action)
    error = (entropy + logp).std().item() / math.sqrt(draws)
    assert abs((entropy + logp).mean().item()) < 4 * error + 1e-3


def test_gradients_reach_every_parameter():
    head, x = mixed_head(), mixed_input(60)
    uniform = torch.rand(60, head.num_uniforms, generator=torch.Generator().manual_seed(2))
    action, _ = head.sample(x, {}, uniform)
    logp, entropy = head.evaluate(x, {}, action)
    named = dict(head.named_parameters())
    for name, grad in zip(named, torch.autograd.grad((logp + entropy).sum(), list(named.values()))):
        assert grad.isfinite().all(), name
        assert (grad.abs().sum() > 0) == (name != "embed.4.table"), name  # nothing comes after the last part


def test_state_dict_is_the_whole_head():
    one, two = mixed_head(0), mixed_head(1)
    x, action = mixed_input(3), {"bits": torch.ones(3, 3), "goal": torch.zeros(3, 2)}
    action |= {"kind": torch.ones(3, dtype=torch.int64), "unit": torch.zeros(3, dtype=torch.int64)}
    action["way"] = torch.ones(3, dtype=torch.int64)
    assert not torch.equal(one.evaluate(x, {}, action)[0], two.evaluate(x, {}, action)[0])
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.evaluate(x, {}, action)[0], two.evaluate(x, {}, action)[0])


def test_first_play_is_near_uniform():
    torch.manual_seed(0)
    head = make_head(spaces.MultiDiscrete([4, 4, 4]), autoregressive=True)
    x = HeadInput(torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(0)) * 0.01)
    action, _ = head.best(x, {})
    logp, entropy = head.evaluate(x, {}, action)
    assert entropy.min() > 3 * math.log(4) - 0.02
    assert logp.max() < -3 * math.log(4) + 0.5
