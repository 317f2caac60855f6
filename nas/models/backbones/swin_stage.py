"""The T stage: Swin blocks (Liu et al., ICCV 2021, section 3) with attention through
`scaled_dot_product_attention`.

Inside a stage maps are channels last, [B, H, W, C]; windows are [B, nW, heads, N, C / heads] with N
= window^2. Sizes that the window does not divide are padded with zeros behind the norm, which take
part in the attention as in the published code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP, stochastic_depth

from nas.models.backbones.stems import symbolic

MASKED = -100.0  # Swin's own constant; exp(-100) vanishes beside any score


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias for each relative position (equation 4):
    [B, H, W, C] -> [B, H, W, C].

    Args:
        width: C.
        heads: attention heads, a divisor of C.
        window: side of the windows, in positions.
    """

    position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.position_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("position_index", relative_position_index(window), persistent=False)

    def forward(self, x: Tensor, shift_h: int, shift_w: int) -> Tensor:
        """Attend inside windows that are displaced by the shifts.

        Args:
            x: [B, H, W, C], H and W multiples of the window.
            shift_h, shift_w: in positions.
        """
        return self.attend(
            self.queries(x, shift_h, shift_w), x.shape[1], x.shape[2], shift_h, shift_w
        )

    def queries(self, x: Tensor, shift_h: int, shift_w: int) -> Tensor:
        """Queries, keys and values by window: [B, H, W, C] -> [B, nW, N, 3 C]."""
        batch, height, width, channels = x.shape
        rows, columns = height // self.window, width // self.window
        if moves(shift_h, shift_w):
            x = torch.roll(x, (-shift_h, -shift_w), dims=(1, 2))
        windows = x.view(batch, rows, self.window, columns, self.window, channels).transpose(2, 3)
        qkv: Tensor = self.qkv(windows.reshape(batch, rows * columns, self.window**2, channels))
        return qkv

    def attend(self, qkv: Tensor, height: int, width: int, shift_h: int, shift_w: int) -> Tensor:
        """Attend, from what `queries` gave for a map of height x width, to [B, H, W, C]."""
        rows, columns, n = height // self.window, width // self.window, self.window**2
        batch, channels = qkv.shape[0], qkv.shape[3] // 3
        heads = qkv.view(batch, rows * columns, n, 3, self.heads, channels // self.heads).permute(
            3, 0, 1, 4, 2, 5
        )
        if moves(shift_h, shift_w):
            # The mask differs by window: windows share a dimension with heads, so that it
            # broadcasts over the batch.
            query, key, value = heads.flatten(2, 3).unbind(0)
            mask = shift_mask(height, width, self.window, shift_h, shift_w, qkv.device)
            bias = (self.position_bias() + mask.to(qkv.dtype).unsqueeze(1)).flatten(0, 1)
        else:
            query, key, value = heads.flatten(1, 2).unbind(0)
            bias = self.position_bias()
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.unsqueeze(0))
        out = (
            out.view(batch, rows * columns, self.heads, n, -1)
            .transpose(2, 3)
            .reshape(batch, rows * columns, n, channels)
        )
        out = self.proj(out).view(batch, rows, columns, self.window, self.window, channels)
        out = out.transpose(2, 3).reshape(batch, height, width, channels)
        return torch.roll(out, (shift_h, shift_w), dims=(1, 2)) if moves(shift_h, shift_w) else out

    def position_bias(self) -> Tensor:
        """What is added to the scores of each pair of positions: [heads, N, N]."""
        n = self.window**2
        return self.position_table[self.position_index].view(n, n, self.heads).permute(2, 0, 1)


class SwinDims(NamedTuple):
    """Dimensions of one Swin block: channels, attention heads, side of the windows and how far they
    are shifted, in positions, and hidden width of the MLP over `width`.
    """

    width: int
    heads: int
    window: int
    shift: int
    mlp_ratio: float


class SwinBlock(nn.Module):
    """A Swin block, x + attention(norm(x)), then x + mlp(norm(x)): [B, H, W, C] -> [B, H, W, C],
    any H and W (equation 3).

    Attributes:
        drop_path: probability that a branch is left out of an image in training (stochastic depth,
            Huang et al., ECCV 2016).
    """

    drop_path: float = 0.0

    def __init__(self, dims: SwinDims) -> None:
        super().__init__()
        width, heads, window, shift, mlp_ratio = dims
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.mlp = MLP(
            width, [int(width * mlp_ratio), width], activation_layer=nn.GELU, inplace=None
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(x + self.dropped(self.attend(self.queries(x), *x.shape[1:3])))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Run the block's second half, x + mlp(norm(x)): [B, H, W, C] -> [B, H, W, C]."""
        y: Tensor = x + self.dropped(self.mlp(self.norm2(x)))
        return y

    def dropped(self, branch: Tensor) -> Tensor:
        """Leave a branch out of some images, and weigh it more in the others."""
        if not self.training or not self.drop_path:
            return branch
        kept: Tensor = stochastic_depth(branch, self.drop_path, "row")
        return kept

    def queries(self, x: Tensor) -> Tensor:
        """Run the first part of the attention: a map [B, H, W, C], normed and padded to whole
        windows, to queries, keys and values by window, [B, nW, N, 3 C].
        """
        padded_h, padded_w, shift_h, shift_w = self._padded(*x.shape[1:3])
        padded = F.pad(self.norm1(x), (0, 0, 0, padded_w - x.shape[2], 0, padded_h - x.shape[1]))
        return self.attention.queries(padded, shift_h, shift_w)

    def attend(self, queries: Tensor, height: int, width: int) -> Tensor:
        """Run the second part of the attention: what `queries` gave for a map of height x width to
        [B, height, width, C].
        """
        return self.attention.attend(queries, *self._padded(height, width))[:, :height, :width]

    def _padded(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Height and width in whole windows, and the shifts: a map of one window has nothing to
        shift into.
        """
        rows, columns = ((side + self.window - 1) // self.window for side in (height, width))
        shifts = (
            self.shift * (1 - 1 // count) for count in (rows, columns)
        )  # no branch: exporters keep it for every size
        return rows * self.window, columns * self.window, *shifts  # type: ignore[return-value]


class PatchMerging(nn.Module):
    """Makes one position of 2x2 (section 3.1): [B, H, W, in_width] -> [B, ceil(H / 2), ceil(W / 2),
    width].
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_width)
        self.reduction = nn.Linear(4 * in_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = ((size + 1) // 2 * 2 for size in x.shape[1:3])
        x = F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return merged


def swin_dims(width: int, depth: int, heads: int, window: int, mlp_ratio: float) -> list[SwinDims]:
    """Dimensions of the `depth` blocks of a T stage: every second one is shifted by half a
    window.
    """
    shifts = [window // 2 * (block % 2) for block in range(depth)]
    return [SwinDims(width, heads, window, shift, mlp_ratio) for shift in shifts]


class AttentionStage(nn.Module):
    """A T stage: patch merging (where `in_width` is given), then `depth` Swin blocks, every second
    one shifted by half a window.

    [B, in_width, H, W] -> [B, width, ceil(H / 2), ceil(W / 2)]; without merging the shape stays.
    """

    def __init__(
        self,
        *,
        in_width: int | None,
        width: int,
        depth: int,
        heads: int,
        window: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.merging = PatchMerging(in_width, width) if in_width else nn.Identity()
        dims = swin_dims(width, depth, heads, window, mlp_ratio)
        self.blocks = nn.Sequential(*map(SwinBlock, dims))

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(self.merging(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return maps


def moves(shift_h: int, shift_w: int) -> bool:
    """Whether windows are displaced; a graph for any size has to be ready for it."""
    return symbolic(shift_h, shift_w) or bool(shift_h or shift_w)


def relative_position_index(window: int) -> Tensor:
    """Row of the position table for each pair of positions in a window: [N * N], values below (2
    window - 1)^2.
    """
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    offset_h = rows[:, None] - rows[None, :] + window - 1
    offset_w = columns[:, None] - columns[None, :] + window - 1
    return (offset_h * (2 * window - 1) + offset_w).flatten()


def shift_mask(
    height: int, width: int, window: int, shift_h: int, shift_w: int, device: torch.device
) -> Tensor:
    """What is added to the scores of a shifted map: 0 between positions of one region, -100 across
    the seam, [nW, N, N] (figure 4 of the paper).

    Args:
        height, width: of the map, multiples of the window.
        window: side of the windows.
        shift_h, shift_w: how far the windows are displaced.
        device: of the result.
    """

    def regions(size: int, shift: int) -> Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - window).long() + (
            position >= size - shift
        ).long()  # shift 0: no seam inside a window

    region = regions(height, shift_h)[:, None] * 3 + regions(width, shift_w)[None, :]
    windows = (
        region.view(height // window, window, width // window, window)
        .transpose(1, 2)
        .reshape(-1, window**2)
    )
    return (windows[:, :, None] != windows[:, None, :]) * MASKED
