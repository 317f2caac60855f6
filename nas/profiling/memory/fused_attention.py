"""Which attention CUDA's memory-efficient kernel takes."""

from __future__ import annotations

from nas.config.choices import Precision
from search_spaces.layout import Layout

# Of the channels of a head, for the memory-efficient kernel on Ampere and later: 16 bytes (PyTorch,
# sdp_utils.cpp, check_head_dim_size_mem_efficient).
HEAD_MULTIPLES: dict[Precision, int] = {"fp32": 4, "bf16": 8}


def attention_is_fused(layout: Layout, precision: Precision) -> bool:
    """Whether CUDA's memory-efficient attention takes the heads of all T stages of a layout. Others
    run as products and a softmax, slower, and keep their scores.
    """
    multiple = HEAD_MULTIPLES[precision]
    stages = [index for index, stage in enumerate(layout.stages) if stage.kind == "T"]
    return all(layout.head_width(index) % multiple == 0 for index in stages)
