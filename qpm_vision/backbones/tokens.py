"""Tokens of a transformer, folded into maps."""

from __future__ import annotations

from torch import Tensor

from qpm_opt import InvalidInputError

__all__ = ["fold_tokens"]

_MOST_PREFIXES = 32


def fold_tokens(tokens: Tensor, height: int, width: int) -> Tensor:
    """The tokens that stand for patches, as maps.

    Tokens in front of them, for the whole image ("class" token) or for nothing in particular ("registers"), are left
    out.

    Args:
        tokens: (B, N, n_features), the last height × width of which are the patches, row by row.
        height: Patches from top to bottom.
        width: Patches from left to right.

    Returns:
        Maps (B, n_features, height, width).

    Raises:
        InvalidInputError: There are fewer tokens than patches, or many more.
    """
    leading = tokens.shape[1] - height * width
    if not 0 <= leading <= _MOST_PREFIXES:
        raise InvalidInputError(
            f"The network must give a token for each of the {height} × {width} patches. Got {tokens.shape[1]} tokens; "
            "use images of the size that it was made for."
        )
    patches = tokens[:, leading:].transpose(1, 2)
    return patches.reshape(len(tokens), -1, height, width)
