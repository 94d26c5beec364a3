"""Arrays into a network: all of them, and nothing else."""

import numpy as np
import pytest
import torch

from selfplay.weights import load_weights


def module():
    """A weight, a view that is not in one piece, a counter and a number."""
    made = torch.nn.Linear(3, 2)
    made.register_buffer("turned", torch.zeros(4, 2).T)
    made.register_buffer("count", torch.zeros((), dtype=torch.int64))
    made.register_buffer("mean", torch.zeros((), dtype=torch.float64))
    return made


def arrays():
    rng = np.random.default_rng(0)
    shapes = {"weight": (2, 3), "bias": (2,), "turned": (2, 4)}
    tables = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return tables | {"count": np.array(7), "mean": np.array(0.25)}


def test_what_is_loaded_is_there_and_stays_the_callers():
    loaded, weights = module(), arrays()
    place = loaded.weight.data_ptr()
    for array in weights.values():
        array.flags.writeable = False  # as from the object store
    load_weights(loaded, weights)
    state = loaded.state_dict()
    assert state.keys() == weights.keys()
    assert all(np.array_equal(state[name].numpy(), x) for name, x in weights.items())
    assert loaded.weight.data_ptr() == place
    with torch.no_grad():
        loaded.weight.zero_()
    assert np.abs(weights["weight"]).min() > 0


@pytest.mark.parametrize("wrong", [{"weight": np.zeros((3, 2), np.float32)}, {"scale": np.zeros(2)}])
def test_what_does_not_fit_is_refused_by_its_name(wrong):
    loaded = module()
    with pytest.raises(RuntimeError, match=next(iter(wrong))):
        load_weights(loaded, arrays() | wrong)
    with pytest.raises(RuntimeError, match="bias"):
        load_weights(loaded, {name: x for name, x in arrays().items() if name != "bias"})
