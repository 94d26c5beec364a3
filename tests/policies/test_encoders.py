"""Encoders of every kind of leaf against NumPy, hand-worked rows and invariants."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies.encoders.entities import ENTITY_SIZE, EntitySet
from policies.encoders.images import IMAGE_SIZE, Image, channel_axis, is_image
from policies.encoders.mlp import MLP
from policies.encoders.observation import ObservationInput
from policies.encoders.scaling import RunningScale, is_normalized
from policies.encoders.vectors import EMBEDDING_SIZE, Choices, Flat
from policies.spaces import leaves

INF = np.inf


def observation(space, normalize="auto", cnn="small"):
    return ObservationInput(leaves(space), cnn=cnn, normalize=normalize)


# Numbers.


@pytest.mark.parametrize(
    ("space", "auto", "on"),
    [
        (spaces.Box(-1, 1, (2,)), False, True),
        (spaces.Box(0, 1.5, (2,)), True, True),
        (spaces.Box(np.float32([-1, -1.1]), np.float32([1, 1])), True, True),
        (spaces.Box(-INF, INF, (2,), np.float64), True, True),
        (spaces.Box(0, 20, (2,), np.int64), True, True),
        (spaces.Box(0, 1, (2,), np.int8), False, True),
        (spaces.Box(0, 1, (2,), np.bool_), False, False),
    ],
    ids=str,
)
def test_which_boxes_are_normalized(space, auto, on):
    assert is_normalized(space, "auto") == auto
    assert is_normalized(space, "on") == on
    assert not is_normalized(space, "off")


def test_normalization_is_numpys():
    rng = np.random.default_rng(0)
    encoder = Flat(spaces.Box(-INF, INF, (2, 3), np.float64), "auto")
    data = rng.normal(7, [[1, 2, 30], [0.1, 5, 1]], (500, 2, 3))
    for part in np.split(data, [100, 150]):
        encoder.observe(torch.from_numpy(part))
    x = rng.normal(7, 60, (50, 2, 3))
    wanted = np.clip((x - data.mean(0)) / data.std(0), -5, 5).reshape(50, 6)
    got = encoder(torch.from_numpy(x))
    assert got.dtype == torch.float32
    assert (np.abs(wanted) == 5).any()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (5, 3)])
@pytest.mark.parametrize("seen", [0, 1, 50])
def test_the_kernel_is_torchs_normalization_number_for_number(shape, seen):
    scale = RunningScale((3,) if shape else ())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, *shape, generator=generator) * 4
    scale.observe(x[:seen] * torch.tensor([1.0, 0.0, 100.0] if shape else 1.0))
    x.reshape(-1)[:3] = torch.tensor([math.nan, INF, -INF])
    for rows in (x, x[::2], x[:0]):
        assert torch.equal(torch.isnan(scale(rows)), torch.isnan(scale._normalized(rows)))
        assert torch.equal(scale(rows).nan_to_num(7), scale._normalized(rows).nan_to_num(7))
        assert scale(rows).shape == rows.shape


def test_before_the_first_observation_numbers_are_only_clipped():
    encoder = Flat(spaces.Box(-INF, INF, (3,)), "auto")
    assert encoder(torch.tensor([[0.5, -4.0, 700.0]])).tolist() == [[0.5, -4.0, 5.0]]


@pytest.mark.parametrize("wrong", [INF, -INF, np.nan])
def test_what_is_not_finite_is_not_clipped(wrong):
    encoder = Flat(spaces.Box(-INF, INF, (2,)), "auto")
    got = encoder(torch.tensor([[wrong, 3e38]]))
    assert torch.isnan(got[0, 0])
    assert got[0, 1] == 5


def test_a_feature_that_never_moves_is_zero_and_stays_finite():
    encoder = Flat(spaces.Box(-INF, INF, (1,)), "auto")
    encoder.observe(torch.full((9, 1), 0.3))
    assert encoder(torch.tensor([[0.3], [0.4]])).tolist() == [[0.0], [5.0]]


def test_forward_moves_no_moments_and_observe_no_parameters():
    module = observation(spaces.Box(-INF, INF, (3,)))
    before = {name: x.clone() for name, x in module.state_dict().items()}
    module({"": torch.randn(4, 3)})
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    module.observe({"": torch.randn(4, 3)})
    assert module.state_dict()["leaf.0.scale.moments.count"] == 4
    assert not list(module.parameters())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, np.uint8, np.bool_])
def test_boxes_of_any_real_numbers_become_float32(dtype):
    encoder = Flat(spaces.Box(0, 1, (2, 2, 2), dtype), "auto")
    x = np.array([[[0, 1], [1, 1]], [[0, 0], [1, 0]]], dtype)
    got = encoder(torch.from_numpy(x[None]))
    assert got.dtype == torch.float32
    assert got.tolist() == [[0, 1, 1, 1, 0, 0, 1, 0]]


# Choices.


def test_choices_side_by_side_with_starts_and_embeddings():
    space = spaces.MultiDiscrete([3, 65, 2], start=[1, -5, 0])
    encoder = Choices(space)
    assert encoder.output_size == 3 + EMBEDDING_SIZE + 2
    got = encoder(torch.tensor([[3, -5, 1], [1, 59, 0]]))
    (table,) = encoder.embedding
    assert table.shape == (65, EMBEDDING_SIZE)
    assert got[0].tolist() == [0, 0, 1, *table[0].tolist(), 0, 1]
    assert got[1].tolist() == [1, 0, 0, *table[64].tolist(), 1, 0]


def test_a_board_of_equal_choices():
    encoder = Choices(spaces.MultiDiscrete(np.full((2, 2), 3)))
    got = encoder(torch.tensor([[[0, 1], [2, 0]]]))
    assert got.tolist() == [[1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize(("n", "size"), [(64, 64), (65, EMBEDDING_SIZE), (1, 1)])
def test_one_hots_end_at_64(n, size):
    encoder = Choices(spaces.Discrete(n, start=10))
    assert encoder.output_size == size
    assert encoder(torch.tensor([10, 9 + n])).shape == (2, size)


@pytest.mark.parametrize("n", [5, 500])
def test_a_choice_outside_its_space_is_an_error(n):
    encoder = Choices(spaces.Discrete(n))
    for wrong in (-1, n):
        with pytest.raises((RuntimeError, IndexError)):
            encoder(torch.tensor([wrong]))


# Images.


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((84, 84, 3), 2),
        ((3, 84, 84), 0),
        ((210, 160, 3), 2),
        ((4, 120, 160), 0),
        ((8, 8, 111), 2),
        ((111, 8, 8), 0),
        ((19, 19, 17), 2),
        ((8, 8, 8), 2),
        ((20, 30, 20), 2),
        ((28, 28), None),
    ],
)
def test_where_the_channels_are(shape, axis):
    assert channel_axis(shape) == axis


@pytest.mark.parametrize(
    ("space", "image"),
    [
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), True),
        (spaces.Box(0, 1, (8, 8, 111), bool), True),
        (spaces.Box(-INF, INF, (2, 8, 9)), True),
        (spaces.Box(0, 1, (6, 7, 2)), False),  # a small board
        (spaces.Box(0, 1, (3, 3, 80)), False),
        (spaces.Box(0, 255, (28, 28), np.uint8), True),
        (spaces.Box(0, 255, (28, 7), np.uint8), False),
        (spaces.Box(0, 1, (28, 28)), False),  # a table of numbers
        (spaces.Box(0, 1, (9, 9, 9, 9)), False),
        (spaces.MultiBinary((2, 9, 9)), False),
    ],
    ids=str,
)
def test_what_is_an_image(space, image):
    assert is_image(space) == image


def convolved(space, kind):
    """Shape [C, height, width] of the last convolution's output, before it is flattened."""
    encoder, shapes = Image(space, kind, "auto"), []
    encoder.layers.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[1:])))
    x = torch.from_numpy(np.stack([space.sample() for _ in range(2)]))
    assert encoder(x).shape == (2, IMAGE_SIZE)
    return shapes[0]


@pytest.mark.parametrize(
    ("shape", "small", "deep"),
    [
        ((84, 84, 3), (32, 9, 9), (32, 11, 11)),
        ((3, 84, 84), (32, 9, 9), (32, 11, 11)),
        ((8, 8, 5), (32, 8, 8), (32, 8, 8)),
        ((19, 19, 2), (32, 19, 19), (32, 19, 19)),
        ((2, 8, 100), (32, 8, 11), (32, 8, 13)),
        ((96, 20), (32, 10, 9), (32, 12, 10)),
        ((210, 160, 3), (32, 11, 18), (32, 27, 20)),
    ],
)
def test_shapes_of_convolutions(shape, small, deep):
    space = spaces.Box(0, 255, shape, np.uint8)
    assert convolved(space, "small") == small
    assert convolved(space, "deep") == deep


@pytest.mark.parametrize("kind", ["small", "deep"])
def test_channels_first_and_last_are_the_same_image(kind):
    torch.manual_seed(0)
    first = Image(spaces.Box(0, 255, (3, 12, 16), np.uint8), kind, "auto")
    last = Image(spaces.Box(0, 255, (12, 16, 3), np.uint8), kind, "auto")
    last.load_state_dict(first.state_dict())
    x = torch.randint(0, 256, (4, 3, 12, 16), dtype=torch.uint8)
    torch.testing.assert_close(last(x.permute(0, 2, 3, 1)), first(x))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "x", "wanted"),
    [
        (0, 255, np.uint8, 51, 0.2),
        (0, 1, np.uint8, 1, 1.0),
        (-2, 6, np.float32, 0, 0.25),
        (0, 1, np.bool_, 1, 1.0),
        (3, 3, np.float32, 3, 0.0),
        (-INF, INF, np.float32, 3, 3.0),
        (-3e38, 3e38, np.float32, 3, 3.0),
        (-(2**63), 2**63 - 1, np.int64, 3, 3.0),
        (0, 65_535, np.uint16, 13_107, 0.2),
    ],
)
def test_pixels_are_scaled_by_their_bounds(low, high, dtype, x, wanted):
    space = spaces.Box(low, high, (9, 9, 1), dtype)
    encoder, seen = Image(space, "small", "auto"), []
    encoder.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(torch.from_numpy(np.full((1, 9, 9, 1), x, dtype)))
    assert seen[0].unique().tolist() == pytest.approx([wanted])
    assert (encoder.scale is not None) == (low < -10)


def test_each_channel_has_bounds_of_its_own():
    low = np.zeros((9, 10, 2), np.float32)
    space = spaces.Box(low, low + np.float32([1, 10]))
    encoder = Image(space, "small", "auto")
    assert encoder.low.tolist() == [0, 0]
    assert encoder.span.tolist() == [1, 10]
    turned = Image(spaces.Box(np.moveaxis(space.low, 2, 0), np.moveaxis(space.high, 2, 0)), "small", "auto")
    assert turned.span.tolist() == [1, 10]


def test_unbounded_channels_have_running_moments():
    encoder = Image(spaces.Box(-INF, INF, (2, 9, 10)), "small", "auto")
    x = torch.randn(50, 2, 9, 10) * torch.tensor([3.0, 0.2])[:, None, None] + 4
    encoder.observe(x)
    torch.testing.assert_close(encoder.scale.moments.mean.float(), x.mean((0, 2, 3)))
    torch.testing.assert_close(encoder.scale.moments.std.float(), x.std((0, 2, 3), correction=0))
    assert Image(spaces.Box(-INF, INF, (2, 9, 10)), "small", "off").scale is None


@pytest.mark.parametrize("kind", ["small", "deep"])
def test_an_image_reaches_every_parameter_and_rows_stay_apart(kind):
    torch.manual_seed(0)
    encoder = Image(spaces.Box(0, 255, (20, 24, 3), np.uint8), kind, "auto")
    for parameter in encoder.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    x = torch.randint(0, 256, (3, 20, 24, 3), dtype=torch.uint8)
    out = encoder(x)
    for grad in torch.autograd.grad(out.square().sum(), list(encoder.parameters())):
        assert float(grad.abs().max()) > 0
    for row in range(3):
        torch.testing.assert_close(encoder(x[row : row + 1])[0], out[row], rtol=1e-4, atol=1e-5)
    assert (out[0] - out[1]).abs().max() > 1e-3


# Entity sets.

UNITS = spaces.Dict(
    {"hp": spaces.Box(0, 1, (2,)), "units": spaces.Box(-9, 9, (4, 3)), "units_mask": spaces.MultiBinary(4)}
)


def draw_units(rows):
    return {
        "hp": torch.rand(rows, 2),
        "units": torch.randn(rows, 4, 3) * 3,
        "units_mask": torch.randint(0, 2, (rows, 4), dtype=torch.int8),
    }


def test_a_set_is_its_own_network_and_its_mask_no_input():
    module = observation(UNITS)
    assert module.set_paths == ("units",)
    assert module.leaf_paths == ("hp",)
    assert module.output_size == 2 + ENTITY_SIZE
    encoded = module(draw_units(5))
    assert encoded.x.shape == (5, 2 + ENTITY_SIZE)
    assert encoded.entities["units"].shape == (5, 4, ENTITY_SIZE)
    assert encoded.present["units"].dtype == torch.bool


def test_a_pool_by_hand():
    torch.manual_seed(0)
    module = EntitySet(UNITS["units"], "off")
    for bias in module.layers.bias:
        bias.data.uniform_(0.0, 0.5)  # so that an absent entity, were it counted, would not be 0
    obs = draw_units(40)
    obs["units_mask"][0] = 0
    obs["units_mask"][1] = 1
    pool, embeddings, present = module(obs["units"], obs["units_mask"])
    one, two = module.layers.weight
    for row in range(40):
        wanted = np.zeros(ENTITY_SIZE)
        for k in range(4):
            if obs["units_mask"][row, k]:
                hidden = torch.relu(one @ obs["units"][row, k] + module.layers.bias[0])
                embedding = torch.relu(two @ hidden + module.layers.bias[1]).detach().numpy()
                np.testing.assert_allclose(embeddings[row, k].detach(), embedding, rtol=1e-4, atol=1e-5)
                wanted = np.maximum(wanted, embedding)
        np.testing.assert_allclose(pool[row].detach(), wanted, rtol=1e-4, atol=1e-5)
    assert (pool[0] == 0).all()
    assert (pool[1] > 0).any()
    assert present.tolist() == obs["units_mask"].bool().tolist()


def test_the_order_of_entities_changes_nothing():
    module, obs = observation(UNITS), draw_units(30)
    order = torch.tensor([2, 0, 3, 1])
    turned = obs | {"units": obs["units"][:, order], "units_mask": obs["units_mask"][:, order]}
    one, two = module(obs), module(turned)
    torch.testing.assert_close(one.x, two.x)
    torch.testing.assert_close(one.entities["units"][:, order], two.entities["units"])
    module.observe(obs)
    moments = module.set[0].scale.moments
    mean, var = moments.mean, moments.var
    torch.testing.assert_close(mean.float(), obs["units"][obs["units_mask"].bool()].mean(0))
    other = observation(UNITS)
    other.observe(turned)
    torch.testing.assert_close(other.set[0].scale.moments.mean, mean)
    torch.testing.assert_close(other.set[0].scale.moments.var, var)


@pytest.mark.parametrize("rubbish", [1e30, float("nan"), float("inf")])
def test_absent_entities_have_no_influence(rubbish):
    module, obs = observation(UNITS), draw_units(30)
    absent = ~obs["units_mask"].bool()
    other = obs | {"units": obs["units"].masked_fill(absent[..., None], rubbish)}
    outs, moments = [], []
    for each in (obs, other):
        for parameter in module.parameters():
            parameter.grad = None
        encoded = module(each)
        encoded.x.square().sum().backward()
        outs.append([encoded.x.detach(), *(p.grad for p in module.parameters())])
        fresh = observation(UNITS)
        fresh.observe(each)
        moments.append(fresh.set[0].scale.moments.m2)
    for one, two in zip(*outs, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(*moments)


def test_what_is_no_entity_set():
    plain = spaces.Dict({"units": spaces.Box(-1, 1, (4, 3)), "units_mask": spaces.MultiBinary(5)})
    assert observation(plain).set_paths == ()
    assert observation(plain).output_size == 12 + 5
    nested = spaces.Dict({"a": UNITS, "units_mask": spaces.MultiBinary(4)})
    assert observation(nested).set_paths == ("a/units",)
    assert "units_mask" in observation(nested).leaf_paths


# Everything that is refused, and how.


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Sequence(spaces.Discrete(3)),
        spaces.Graph(spaces.Box(-1, 1, (2,)), None),
        spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))),
    ],
    ids=lambda space: type(space).__name__,
)
def test_a_space_without_encoder_is_named(space):
    with pytest.raises(ValueError) as error:
        observation(spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Dict({"c": space})}))
    message = str(error.value)
    assert message.startswith(f"no encoder for observation 'b/c' {type(space).__name__}")
    assert "allowed: Box of real numbers, Discrete, MultiDiscrete, MultiBinary" in message
    assert "\n" not in message


def test_an_observation_of_nothing_is_refused():
    for space in (spaces.Dict({}), spaces.Box(0, 1, (0,))):
        with pytest.raises(ValueError, match="without numbers"):
            observation(space)


def test_layers_of_relu():
    mlp = MLP(2, (2, 1))
    mlp.weight[0].data = torch.tensor([[1.0, 2.0], [-1.0, -1.0]])
    mlp.bias[0].data = torch.tensor([1.0, 0.0])
    mlp.weight[1].data = torch.tensor([[3.0, 100.0]])
    # relu(1 + 2 * 2 + 1, -1 - 2) = (6, 0); relu(18) = 18; and for the negated row relu(-4), relu(3): 300
    assert mlp(torch.tensor([[1.0, 2.0], [-1.0, -2.0]])).tolist() == [[18.0], [300.0]]
    x = torch.randn(3, 4)
    assert MLP(4, ()).output_size == 4
    assert MLP(4, ())(x) is x
