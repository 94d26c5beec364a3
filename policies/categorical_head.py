"""The head of a game whose action is one Discrete number: no padding, no parts, no parameters."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from torch import Tensor

from policies import categorical
from policies.head_interface import Head, HeadInput, Leaves
from policies.leaf_heads import torch_dtype


class CategoricalHead(Head):
    """One choice of n, the illegal ones at probability exactly 0; HeadInput.flat [..., n] are logits."""

    def __init__(self, space: spaces.Discrete) -> None:
        super().__init__()
        self.num_inputs = int(space.n)
        self.num_uniforms = 1
        self.start = int(space.start)
        self.dtype, self.numpy_dtype = torch_dtype(space), space.dtype

    def log_probs(self, x: HeadInput, mask: Leaves) -> Tensor:
        """Log-probabilities [..., n], the dtype's minimum where illegal."""
        return categorical.log_probs(x.flat, mask.get(""))

    def sample(self, x: HeadInput, mask: Leaves, uniform: Tensor) -> tuple[Leaves, Tensor]:
        choice, logp = categorical.draw(x.flat, mask.get(""), uniform[:, 0])
        return {"": self._action(choice)}, logp

    def action(self, choice: np.ndarray) -> np.ndarray:
        """The space's numbers of choices, counted from 0."""
        return (choice + self.start if self.start else choice).astype(self.numpy_dtype, copy=False)

    def best(self, x: HeadInput, mask: Leaves) -> tuple[Leaves, Tensor]:
        choice, logp = categorical.best(x.flat, mask.get(""))
        return {"": self._action(choice)}, logp

    def evaluate(self, x: HeadInput, mask: Leaves, action: Leaves) -> tuple[Tensor, Tensor]:
        choice = action[""].long()
        if self.start:
            choice = choice - self.start
        return categorical.evaluate(x.flat, mask.get(""), choice)

    def kl(
        self, x: HeadInput, reference: Head, reference_x: HeadInput, mask: Leaves, action: Leaves
    ) -> Tensor:
        return categorical.kl(x.flat, reference_x.flat, mask.get(""))

    def _action(self, choice: Tensor) -> Tensor:
        return (choice + self.start if self.start else choice).to(self.dtype)
