"""SGLang's attention on a CPU, without what it computes in vain; engine processes only.

Its own computes, for every request, the attention of the cached tokens too, and throws it away: a
criterion of 16 tokens costs as much as the whole prompt. And it decodes one request at a time.
"""

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from torch.nn.functional import scaled_dot_product_attention

_slow_extend = TorchNativeAttnBackend._run_sdpa_forward_extend
_slow_decode = TorchNativeAttnBackend._run_sdpa_forward_decode


def _extend(
    self,
    query,
    output,
    k_cache,
    v_cache,
    req_to_token,
    req_pool_indices,
    seq_lens,
    extend_prefix_lens,
    extend_seq_lens,
    encoder_lens=None,
    **options,
):
    """Attention of the new tokens only: [tokens, heads, head size], request after request."""
    if not _is_plain(encoder_lens, options) or not options.get("causal"):
        return _slow_extend(
            self,
            query,
            output,
            k_cache,
            v_cache,
            req_to_token,
            req_pool_indices,
            seq_lens,
            extend_prefix_lens,
            extend_seq_lens,
            encoder_lens,
            **options,
        )
    start = 0
    rows = zip(req_pool_indices.tolist(), seq_lens.tolist(), extend_seq_lens.tolist(), strict=True)
    for row, length, new in rows:
        slots = req_to_token[row, :length]
        keys, values = k_cache[slots].movedim(0, 1), v_cache[slots].movedim(0, 1)
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
            scale=options.get("scaling"),
            enable_gqa=options.get("enable_gqa", False),
        )
        output[start : start + new] = attention.squeeze(0).movedim(1, 0)
        start += new
    return output


def _decode(
    self,
    query,
    output,
    k_cache,
    v_cache,
    req_to_token,
    req_pool_indices,
    seq_lens,
    encoder_lens=None,
    **options,
):
    """Attention of one token of each request, all at once: shorter ones are padded and masked."""
    if not _is_plain(encoder_lens, options):
        return _slow_decode(
            self,
            query,
            output,
            k_cache,
            v_cache,
            req_to_token,
            req_pool_indices,
            seq_lens,
            encoder_lens,
            **options,
        )
    places = torch.arange(int(seq_lens.max()))
    seen = places < seq_lens.unsqueeze(1)  # [requests, longest]
    slots = req_to_token[req_pool_indices, : len(places)].where(seen, 0)
    attention = scaled_dot_product_attention(
        query.unsqueeze(2),
        k_cache[slots].movedim(1, 2).to(query.dtype),
        v_cache[slots].movedim(1, 2).to(query.dtype),
        attn_mask=seen[:, None, None, :],
        scale=options.get("scaling"),
        enable_gqa=options.get("enable_gqa", False),
    )
    output[:] = attention.squeeze(2)
    return output


def _is_plain(encoder_lens, options: dict) -> bool:
    """Whether this is the self-attention of a decoder without a sliding window."""
    window = options.get("sliding_window_size")
    is_cross = options.get("is_cross_attn", False)
    return encoder_lens is None and not is_cross and (window is None or window < 0)


TorchNativeAttnBackend._run_sdpa_forward_extend = _extend
TorchNativeAttnBackend._run_sdpa_forward_decode = _decode
