"""Weights as arrays by name: those of several parts in one table, as the league and checkpoints keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

Arrays = Mapping[str, np.ndarray]


def joined(tables: Sequence[Arrays], parts: Sequence[str]) -> dict[str, np.ndarray]:
    """One table of all parts' arrays; their names begin with PART/ where there are several parts."""
    if len(parts) == 1:
        return dict(tables[0])
    return {
        f"{part}/{name}": array
        for part, table in zip(parts, tables, strict=True)
        for name, array in table.items()
    }


def by_part(table: Arrays, parts: Sequence[str]) -> tuple[dict[str, np.ndarray], ...]:
    """The inverse of `joined`."""
    if len(parts) == 1:
        return (dict(table),)
    return tuple(
        {name.removeprefix(f"{part}/"): x for name, x in table.items() if name.startswith(f"{part}/")}
        for part in parts
    )


def load_weights(module: torch.nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy arrays by parameter name into a module; they stay the caller's."""
    own = module.state_dict()
    if own.keys() != weights.keys() or any(own[name].shape != x.shape for name, x in weights.items()):
        module.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})  # says what is wrong
        return
    for name, tensor in own.items():
        if tensor.is_cpu:  # a third of torch's time, which rollouts take for every batch and past self
            tensor.numpy()[...] = weights[name]
        else:
            tensor.copy_(torch.tensor(weights[name]))
