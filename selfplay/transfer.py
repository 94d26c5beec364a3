"""Arrays to the device that computes, and back, without waiting where that can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device; on a CPU it shares the array's memory, which nobody may write.

    To CUDA the copy is queued and not waited for. It is made through pinned memory, which torch keeps for
    the next copy and does not hand out again before this one is done.
    """
    tensor = torch.as_tensor(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Arrays of tensors of one device; from CUDA with one wait for them all."""
    if not any(x.is_cuda for x in tensors):
        return [x.cpu().numpy() for x in tensors]
    copies = [torch.empty_like(x, device="cpu", pin_memory=True) for x in tensors]
    for copy, x in zip(copies, tensors, strict=True):
        copy.copy_(x, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [copy.numpy() for copy in copies]
