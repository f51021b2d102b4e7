"""SGLang's attention on a CPU, without what it computes in vain; engine processes only.

Its own computes, for every request, the attention of the cached tokens too, and throws it away: a
criterion of 16 tokens costs as much as the whole prompt. And it decodes one request at a time.
"""

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_slow_extend = TorchNativeAttnBackend._run_sdpa_forward_extend
_slow_decode = TorchNativeAttnBackend._run_sdpa_forward_decode


def _extend(
    query: Tensor,
    output: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    _prefix_lens: Tensor,
    new_lens: Tensor,
    **options,
) -> None:
    """Attention of the new tokens only: [tokens, heads, head size], request after request."""
    start = 0
    rows = zip(req_pool_indices.tolist(), seq_lens.tolist(), new_lens.tolist(), strict=True)
    for row, length, new in rows:
        slots = req_to_token[row, :length]
        keys = k_cache[slots].movedim(0, 1)
        values = v_cache[slots].movedim(0, 1)
        is_whole = new == length
        mask = None
        if not is_whole:  # each new token sees all that is cached, and the new ones up to itself
            mask = torch.ones(new, length, dtype=torch.bool).tril(length - new)
        attention = scaled_dot_product_attention(
            query[start : start + new].movedim(0, 1).unsqueeze(0),
            keys.unsqueeze(0).to(query.dtype),
            values.unsqueeze(0).to(query.dtype),
            attn_mask=mask,
            is_causal=is_whole,
            **options,
        )
        output[start : start + new] = attention.squeeze(0).movedim(1, 0)
        start += new


def _decode(
    query: Tensor,
    output: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    **options,
) -> None:
    """Attention of one token of each request, all at once: shorter ones are padded and masked."""
    places = torch.arange(int(seq_lens.max()))
    seen = places < seq_lens.unsqueeze(1)  # [requests, longest]
    slots = req_to_token[req_pool_indices, : len(places)].where(seen, 0)
    attention = scaled_dot_product_attention(
        query.unsqueeze(2),
        k_cache[slots].movedim(1, 2).to(query.dtype),
        v_cache[slots].movedim(1, 2).to(query.dtype),
        attn_mask=seen[:, None, None, :],
        **options,
    )
    output[:] = attention.squeeze(2)


def _faster(fast, slow, count: int, causal: bool):
    """The method that takes the place of `slow`, SGLang's own.

    It is `fast`, of `count` tensors, for the self-attention of a decoder; with an encoder or a
    sliding window it stays `slow`.
    """

    def run(backend, *tensors, scaling=None, enable_gqa=False, **options):
        has_encoder = options.get("is_cross_attn") or any(
            more is not None for more in tensors[count:]
        )
        has_window = options.get("sliding_window_size") is not None
        if has_encoder or has_window or options.get("causal", False) is not causal:
            return slow(backend, *tensors, scaling=scaling, enable_gqa=enable_gqa, **options)
        fast(*tensors[:count], scale=scaling, enable_gqa=enable_gqa)
        return tensors[1]  # the output

    return run


TorchNativeAttnBackend._run_sdpa_forward_extend = _faster(_extend, _slow_extend, 9, causal=True)
TorchNativeAttnBackend._run_sdpa_forward_decode = _faster(_decode, _slow_decode, 7, causal=False)
