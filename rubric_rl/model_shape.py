"""The shape of a Qwen3 network, read from its checkpoint's config.json (stages 2, 3 and 5)."""

import json
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The dimensions that a network's size follows from, in Megatron's words."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int  # key/value heads
    head_dim: int
    vocab: int
    tied: bool  # one matrix is embedding and output layer

    @property
    def parameters(self) -> int:
        """Embedding and output matrix; per layer query, output, key and value projection, three of the MLP, norms."""
        attention = (
            2 * self.hidden * self.heads * self.head_dim
            + 2 * self.hidden * self.groups * self.head_dim
        )
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden + 2 * self.head_dim
        return (
            self.vocab * self.hidden * (1 if self.tied else 2) + self.layers * layer + self.hidden
        )

    @property
    def kv_bytes(self) -> int:
        """Bytes of cache per token: keys and values of every layer, bf16."""
        return 2 * self.layers * self.groups * self.head_dim * 2

    def padded_vocab(self, tp: int) -> int:
        """The vocabulary rounded up so that every tensor-parallel rank holds equally many rows."""
        return -(-self.vocab // tp) * tp


@dataclass(frozen=True, kw_only=True)
class Network(Shape):
    """All that config.json says of the network."""

    eps: float
    rope_theta: float
    max_positions: int
    init_std: float


def read_config(folder: str | Path) -> dict:
    """The fields of a checkpoint's config.json; raises UserError where there are none."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
        return config
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: no Qwen3 configuration ({error}); set HF_CKPT_PATH to a checkpoint"
        ) from None


def read_network(folder: str | Path) -> Network:
    """The network of a checkpoint; raises UserError naming a field that is missing."""
    config = read_config(folder)
    try:
        return Network(
            layers=config["num_hidden_layers"], hidden=config["hidden_size"], ffn=config["intermediate_size"],
            heads=config["num_attention_heads"], groups=config["num_key_value_heads"], head_dim=config["head_dim"],
            vocab=config["vocab_size"], tied=config["tie_word_embeddings"], eps=config["rms_norm_eps"],
            rope_theta=(config | (config.get("rope_parameters") or {}))["rope_theta"],  # of transformers 4, 5
            max_positions=config["max_position_embeddings"], init_std=config.get("initializer_range", 0.02),
        )  # fmt: skip
    except KeyError as error:
        raise UserError(
            f"{folder}/config.json: the field {error} is missing; get the checkpoint again"
        ) from None


def read_trainable_network(hf_dir: str | Path) -> Network:
    """The network of a checkpoint.

    Raises:
        UserError: naming the field, for another architecture or a feature that this trainer does not compute.
    """
    path, config = Path(hf_dir) / "config.json", read_config(hf_dir)
    if config.get("model_type") != "qwen3" or config.get("architectures") != ["Qwen3ForCausalLM"]:
        found = f"model_type {config.get('model_type')!r}, architectures {config.get('architectures')!r}"
        raise UserError(
            f"{path}: not a Qwen3ForCausalLM checkpoint ({found}); the CPU trainer takes dense Qwen3 only"
        )
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
        raise UserError(
            f"{path}: the CPU trainer does not support {', '.join(named)}; use a plain Qwen3 checkpoint"
        )
    return read_network(hf_dir)
