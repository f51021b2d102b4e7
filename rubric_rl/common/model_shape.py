"""The shape of a Qwen3 network, read from its checkpoint's config.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.common.errors import UserError


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
        """The number of weights."""
        hidden = self.hidden
        head_dim = self.head_dim
        query_and_output = 2 * hidden * self.heads * head_dim
        key_and_value = 2 * hidden * self.groups * head_dim
        mlp = 3 * hidden * self.ffn
        norms = 2 * hidden + 2 * head_dim
        layer = query_and_output + key_and_value + mlp + norms
        vocabulary_matrices = 1 if self.tied else 2
        vocabulary = vocabulary_matrices * self.vocab * hidden
        final_norm = hidden
        return vocabulary + self.layers * layer + final_norm

    @property
    def kv_bytes(self) -> int:
        """Bytes of cache per token: keys and values of every layer, bf16."""
        keys_and_values = 2 * self.layers * self.groups * self.head_dim
        return 2 * keys_and_values

    def padded_vocab(self, tp: int) -> int:
        """The vocabulary rounded up so that every tensor-parallel rank holds equally many rows."""
        rows_per_rank = -(-self.vocab // tp)
        return rows_per_rank * tp


@dataclass(frozen=True, kw_only=True)
class Network(Shape):
    """All that config.json says of the network."""

    eps: float
    rope_theta: float
    max_positions: int
    init_std: float


def read_network(folder: str | Path) -> Network:
    """The network of a checkpoint; raises UserError naming a field that is missing."""
    return _network(_read_config(folder), folder)


def read_trainable_network(folder: str | Path) -> Network:
    """The network of a checkpoint that the CPU trainer can compute.

    Raises:
        UserError: naming the field, for another architecture or for a feature that the CPU
            trainer lacks.
    """
    config = _read_config(folder)
    path = Path(folder) / "config.json"
    model_type = config.get("model_type")
    architectures = config.get("architectures")
    if model_type != "qwen3" or architectures != ["Qwen3ForCausalLM"]:
        found = f"model_type {model_type!r}, architectures {architectures!r}"
        what = f"not a Qwen3ForCausalLM checkpoint ({found})"
        raise UserError(f"{path}: {what}; the CPU trainer takes dense Qwen3 only")
    unsupported = _unsupported(config)
    if unsupported:
        names = ", ".join(unsupported)
        what = f"the CPU trainer does not support {names}"
        raise UserError(f"{path}: {what}; use a plain Qwen3 checkpoint")
    return _network(config, folder)


def _read_config(folder: str | Path) -> dict:
    path = Path(folder) / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        what = f"no Qwen3 configuration ({error})"
        raise UserError(f"{path}: {what}; set HF_CKPT_PATH to a checkpoint") from None
    return config


def _network(config: dict, folder: str | Path) -> Network:
    rope = config.get("rope_parameters") or {}  # where transformers 5 puts rope_theta
    try:
        return Network(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            ffn=config["intermediate_size"],
            heads=config["num_attention_heads"],
            groups=config["num_key_value_heads"],
            head_dim=config["head_dim"],
            vocab=config["vocab_size"],
            tied=config["tie_word_embeddings"],
            eps=config["rms_norm_eps"],
            rope_theta=(config | rope)["rope_theta"],
            max_positions=config["max_position_embeddings"],
            init_std=config.get("initializer_range", 0.02),
        )
    except KeyError as error:
        what = f"the field {error} is missing"
        raise UserError(f"{folder}/config.json: {what}; get the checkpoint again") from None


def _unsupported(config: dict) -> list[str]:
    """The fields of config.json that ask for what the CPU trainer does not compute."""
    rope = config.get("rope_parameters") or {}
    rope_type = rope.get("rope_type", "default")
    rotary_factor = rope.get("partial_rotary_factor", 1.0)
    layer_types = config.get("layer_types") or ()
    activation = config.get("hidden_act", "silu")
    asked_for = {
        "rope_scaling": config.get("rope_scaling") is not None,
        "rope_parameters.rope_type": rope_type != "default",
        "rope_parameters.partial_rotary_factor": rotary_factor != 1.0,
        "use_sliding_window": config.get("use_sliding_window"),
        "layer_types": any(kind != "full_attention" for kind in layer_types),
        "attention_bias": config.get("attention_bias"),
        "attention_dropout": config.get("attention_dropout"),
        "hidden_act": activation != "silu",
        "quantization_config": config.get("quantization_config") is not None,
    }
    return [name for name, asked in asked_for.items() if asked]
