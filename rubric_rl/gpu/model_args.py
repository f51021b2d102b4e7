"""slime's model flags for a Qwen3 checkpoint whose shape has no file in slime's scripts/models: the tiny one (stage 5).

For example:
    python -m rubric_rl.gpu.model_args rubric_rl/tiny/model
"""

import json
import sys
from pathlib import Path

VALUES = {
    "--num-layers": "num_hidden_layers",
    "--hidden-size": "hidden_size",
    "--ffn-hidden-size": "intermediate_size",
    "--num-attention-heads": "num_attention_heads",
    "--num-query-groups": "num_key_value_heads",
    "--kv-channels": "head_dim",
    "--norm-epsilon": "rms_norm_eps",
    "--vocab-size": "vocab_size",
}
ALWAYS = ("--swiglu", "--group-query-attention", "--use-rotary-position-embeddings", "--disable-bias-linear",
          "--qk-layernorm", "--normalization", "RMSNorm")  # fmt: skip


def model_args(config: dict) -> list[str]:
    """The flags that describe the network of a Qwen3 config.json; raises KeyError for one that lacks a dimension."""
    words = [*ALWAYS, *(word for flag, key in VALUES.items() for word in (flag, str(config[key])))]
    base = config["rope_theta"] if "rope_theta" in config else config["rope_parameters"]["rope_theta"]
    words += ["--rotary-base", f"{base:g}" if base < 1e6 else str(int(base))]
    return words if config["tie_word_embeddings"] else [*words, "--untie-embeddings-and-output-weights"]


def main() -> int:
    """Prints the flags, one word a line; returns the exit status."""
    path = Path(sys.argv[1]) / "config.json"
    try:
        print("\n".join(model_args(json.loads(path.read_text(encoding="utf-8")))))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {path}: no Qwen3 configuration ({error}); set HF_CKPT_PATH to a checkpoint", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
