"""What a seat sees, in few lines: for games that draw no board."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MOST_NUMBERS = 64
"""Of a leaf that is printed in full."""

MOST_PLANES = 36


def observation_text(obs: Mapping[str, np.ndarray], who: str = "you see") -> str:
    """One seat's leaves [...] as text."""
    return "\n".join(f"{who}{f' {path}' if path else ''}: {_leaf_text(leaf)}" for path, leaf in obs.items())


def _leaf_text(leaf: np.ndarray) -> str:
    """Numbers, the places that are 1 where all are 0 or 1, a board of such planes; of much else the range."""
    binary = leaf.ndim > 0 and bool(np.isin(leaf, (0, 1)).all())
    if binary and leaf.ndim == 3 and 1 < leaf.shape[2] <= MOST_PLANES:
        return _board_text(leaf)
    if binary and leaf.ndim == 1 and leaf.size > 8:
        return f"1 at {' '.join(map(str, np.flatnonzero(leaf))) or 'none'} of 0 to {leaf.size - 1}, else 0"
    if leaf.size <= MOST_NUMBERS:
        text = np.array2string(leaf, precision=3, suppress_small=True)
        return f"\n{text}" if "\n" in text else text
    return f"{leaf.dtype} {leaf.shape}, from {leaf.min():g} to {leaf.max():g}"


def _board_text(planes: np.ndarray) -> str:
    """A board [H, W, planes] of 0 and 1: at each place the first plane that is 1, of those that vary."""
    vary = np.ptp(planes.reshape(-1, planes.shape[2]).astype(np.int8), axis=0) > 0
    signs = "0123456789abcdefghijklmnopqrstuvwxyz"
    rows = [
        " ".join(next((signs[k] for k in np.flatnonzero(cell.astype(np.bool_) & vary)), ".") for cell in row)
        for row in planes
    ]
    return "\n".join(["the first of the planes that is 1 at each place, '.' if none", *rows])
