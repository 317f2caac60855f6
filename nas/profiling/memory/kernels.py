"""What CUDA and the CPU do otherwise than the kernels that run on meta tensors: the one table of
differences.

attention with a bias     meta: matmuls and a softmax, scores kept
                          CUDA: memory-efficient kernel, no scores, one log-sum-exp a query; the
                          same as meta where that kernel refuses the channels of a head
attention without         CPU: a kernel without scores
                          CUDA: the same; in bf16 another, whose sum of gradients is left out
batch norm                meta: mean and inverse deviation kept
                          CUDA: the same; cuDNN's reserve space is empty with channels first
deformable convolution    meta: its buffers are not seen
                          CUDA: a column a sample, 9 C B H W values, three times the output
autocast                  CPU: casts of its own
                          CUDA: its lists, emulated: convolutions and products in bf16, norms and
                          losses in fp32
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nas.profiling.memory.fused_attention import HEAD_MULTIPLES
from nas.profiling.memory.torch_internals import tree_map

# PyTorch's documentation, "CUDA Ops that can autocast to float16" (the same for bfloat16) and "...
# to float32". RoI operators run in fp32 by torchvision's own registration, which gives their result
# back in the type of the input.
_LOW = """
    addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d linear matmul __matmul__ mm mv prelu
    scaled_dot_product_attention
"""
_FULL = """
    __pow__ __rdiv__ __rpow__ __rtruediv__ acos asin binary_cross_entropy_with_logits cdist
    cosine_embedding_loss cosine_similarity cosh cross_entropy cumprod cumsum dist erfinv exp
    expm1 group_norm hinge_embedding_loss huber_loss kl_div l1_loss layer_norm log log10 log1p
    log2 log_softmax margin_ranking_loss mse_loss nll_loss norm normalize pow prod reciprocal
    renorm rsqrt sinh smooth_l1_loss soft_margin_loss softmax softmin softplus sum tan
"""
LOW_PRECISION, FULL_PRECISION = frozenset(_LOW.split()), frozenset(_FULL.split())
MAX_PARALLEL_IMAGES = 32  # that a deformable convolution unfolds at once
ROI_OPERATORS = frozenset(("roi_align", "roi_pool"))


class CudaKernels(TorchFunctionMode):
    """A mode in which operators on meta tensors allocate what CUDA's kernels would.

    Args:
        autocast: cast as CUDA's autocast to bf16 does, weights once each.
    """

    def __init__(self, *, autocast: bool) -> None:
        super().__init__()
        self.autocast = autocast
        self._cast_weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self.autocast and name in LOW_PRECISION:
            args, kwargs = tree_map(self._to_low, args), tree_map(self._to_low, kwargs)
        elif self.autocast and name in FULL_PRECISION:
            args, kwargs = tree_map(_to_full, args), tree_map(_to_full, kwargs)
        elif self.autocast and name in ROI_OPERATORS:
            return func(*tree_map(_to_full, args), **tree_map(_to_full, kwargs)).to(args[0].dtype)
        if func is F.scaled_dot_product_attention and not _refused(args[0], **kwargs):
            return _FusedAttention.apply(*args[:3], kwargs.get("attn_mask"))
        if name == "deform_conv2d":
            return _DeformableConvolution.apply(*args[:3])
        return func(*args, **kwargs)

    def _to_low(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad and torch.is_grad_enabled()):
            return value.to(torch.bfloat16)
        if id(value) not in self._cast_weights:
            self._cast_weights[id(value)] = value.to(torch.bfloat16)
        return self._cast_weights[id(value)]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._cast_weights.clear()  # as at the end of an autocast region


class CpuKernels(TorchFunctionMode):
    """A mode in which operators on meta tensors allocate what the CPU's kernels would."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and kwargs.get("attn_mask") is None:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]
        return func(*args, **kwargs)


def _refused(query: Tensor, attn_mask: Tensor | None = None) -> bool:
    """Whether no kernel of CUDA takes attention: only the memory-efficient one has a bias."""
    multiple = HEAD_MULTIPLES["fp32" if query.dtype == torch.float32 else "bf16"]
    return attn_mask is not None and query.shape[-1] % multiple != 0


def _to_full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


class _FusedAttention(torch.autograd.Function):
    """Tensors that memory-efficient attention keeps and makes: output, one log-sum-exp a query,
    with a bias its gradient for every batch entry with rows padded to 16 (PyTorch's `pad_bias`).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        out = torch.empty_like(query)
        log_sum_exp = query.new_empty(
            (*query.shape[:2], -(-query.shape[2] // 32) * 32), dtype=torch.float32
        )
        padded = (
            None
            if bias is None
            else bias.new_empty((*bias.shape[:3], -(-bias.shape[3] // 16) * 16))
        )
        ctx.save_for_backward(query, key, value, padded, out, log_sum_exp)
        ctx.bias_shape = None if bias is None else bias.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, padded, _, _ = ctx.saved_tensors
        grad_bias = (
            None
            if padded is None
            else padded.new_empty((*query.shape[:3], padded.shape[3]))[..., : query.shape[2]]
        )
        grads = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
        return (*grads, None if grad_bias is None else grad_bias.sum_to_size(ctx.bias_shape))


class _DeformableConvolution(torch.autograd.Function):
    """Tensors that torchvision's kernel makes (csrc/ops/cuda/deform_conv2d_kernel.cu): samples of
    up to 32 images at a time as columns, the output in two layouts; in the backward pass the
    columns twice, with the output's gradient in another layout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, offset)
        shape = (len(x), len(weight), *offset.shape[2:])
        held = x.new_empty(shape), x.new_empty(shape), _columns(x, weight, offset)
        return torch.empty_like(held[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, weight, offset = ctx.saved_tensors
        of_x, of_offset = torch.empty_like(x), torch.empty_like(offset)
        for _ in range(2):  # inputs, then the weight
            held = _columns(x, weight, offset), torch.empty_like(grad)
            del held
        return of_x, torch.empty_like(weight), of_offset


def _columns(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    together = max(number for number in range(1, MAX_PARALLEL_IMAGES + 1) if len(x) % number == 0)
    return x.new_empty(weight[0].numel(), together * offset.shape[2] * offset.shape[3])
