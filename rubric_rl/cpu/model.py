"""The policy as a Megatron-core GPTModel that runs on CPU over gloo."""

import torch

from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import Network, Shape
from rubric_rl.cpu.megatron import (
    GPTModel,
    TransformerConfig,
    cpu_device,
    get_gpt_layer_local_spec,
    mpu,
)


def build_model(shape: Network) -> GPTModel:
    """A randomly initialised fp32 GPTModel.

    Call it after `init_parallel`, then load weights with `convert_weights.load_hf`.
    """
    tp = mpu.get_tensor_model_parallel_world_size()
    if shape.groups % tp or shape.ffn % tp:
        sizes = f"num_key_value_heads {shape.groups} and intermediate_size {shape.ffn}"
        raise UserError(f"tensor_model_parallel_size {tp} does not divide {sizes}; use 1")
    with cpu_device():
        model = GPTModel(
            transformer_config(shape, tp),
            get_gpt_layer_local_spec(qk_layernorm=True, normalization="RMSNorm"),
            vocab_size=shape.padded_vocab(tp),
            max_sequence_length=shape.max_positions,
            # Logits are gathered over TP: the loss is plain torch on the whole vocabulary.
            parallel_output=False,
            share_embeddings_and_output_weights=shape.tied,
            position_embedding_type="rope",
            # A float in config.json; Megatron only calculates with it.
            rotary_base=shape.rope_theta,  # pyright: ignore[reportArgumentType]
        )
    # forward() stops after the final norm; response_logits applies the output layer itself.
    model.post_process = False
    return model


def transformer_config(shape: Network, tp: int) -> TransformerConfig:
    """Megatron's configuration: fp32, no dropout, no fused kernel (they are CUDA)."""
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        ffn_hidden_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_query_groups=shape.groups,
        kv_channels=shape.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=shape.eps,
        qk_layernorm=True,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=shape.init_std,
        tensor_model_parallel_size=tp,
        # Gradients are summed over DP: grpo.token_weights holds every denominator.
        calculate_per_token_loss=True,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
        cuda_graph_scope=[],
    )


def response_logits(
    model: GPTModel, shape: Shape, inputs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Logits [n, vocabulary] at the n positions (rows[i], columns[i]) of `inputs`.

    `inputs` is [batch, length], padded on the right. Only these positions pass through the output
    layer: prompt and padding logits are never made. Columns that pad the vocabulary for tensor
    parallelism are cut off, so that the softmax is the checkpoint's.
    """
    length = inputs.size(1)
    # True where attention must not look: at the tokens that come later.
    mask = torch.ones(length, length, dtype=torch.bool).triu(1)[None, None]
    positions = torch.arange(length).expand_as(inputs)
    with cpu_device():
        hidden = model(inputs, positions, mask)  # [length, batch, hidden]
        wanted = hidden[columns, rows].unsqueeze(1)
        weight = model.shared_embedding_or_output_weight() if shape.tied else None
        logits, _ = model.output_layer(wanted, weight=weight)
    return logits.squeeze(1)[:, : shape.vocab]
