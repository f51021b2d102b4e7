"""Reads the network of a checkpoint that the CPU actor can train, and refuses others (stage 5, GRPO update)."""

from pathlib import Path

from rubric_rl.qwen3 import Network, read_config, read_network
from rubric_rl.schema import UserError


def read_trainable_network(hf_dir: str | Path) -> Network:
    """The network of a checkpoint.

    Raises:
        UserError: naming the field, for another architecture or a feature that this trainer does not compute.
    """
    path, config = Path(hf_dir) / "config.json", read_config(hf_dir)
    if config.get("model_type") != "qwen3" or config.get("architectures") != ["Qwen3ForCausalLM"]:
        found = f"model_type {config.get('model_type')!r}, architectures {config.get('architectures')!r}"
        raise UserError(f"{path}: not a Qwen3ForCausalLM checkpoint ({found}); the CPU trainer takes dense Qwen3 only")
    rope = config.get("rope_parameters") or {}
    unsupported = {
        "rope_scaling": config.get("rope_scaling") is not None,
        "rope_parameters.rope_type": rope.get("rope_type", "default") != "default",
        "rope_parameters.partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "layer_types": any(kind != "full_attention" for kind in config.get("layer_types") or ()),
        "attention_bias": bool(config.get("attention_bias")),
        "attention_dropout": bool(config.get("attention_dropout")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "quantization_config": config.get("quantization_config") is not None,
    }
    named = [name for name, present in unsupported.items() if present]
    if named:
        raise UserError(f"{path}: the CPU trainer does not support {', '.join(named)}; use a plain Qwen3 checkpoint")
    return read_network(hf_dir)
