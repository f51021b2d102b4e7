"""slime's model flags for a Qwen3 checkpoint whose shape has no file in slime's scripts/models: the tiny one (stage 5).

For example:
    python -m rubric_rl.launch.model_args rubric_rl/tiny/model
"""

import sys

from rubric_rl.errors import UserError
from rubric_rl.model_shape import Network, read_network

FLAGS = {  # -> field of Shape
    "num-layers": "layers",
    "hidden-size": "hidden",
    "ffn-hidden-size": "ffn",
    "num-attention-heads": "heads",
    "num-query-groups": "groups",
    "kv-channels": "head_dim",
    "vocab-size": "vocab",
}
ALWAYS = ("--swiglu", "--group-query-attention", "--use-rotary-position-embeddings", "--disable-bias-linear",
          "--qk-layernorm", "--normalization", "RMSNorm")  # fmt: skip


def model_args(network: Network) -> list[str]:
    """The flags that describe the network."""
    words = [
        *ALWAYS,
        *(
            word
            for flag, field in FLAGS.items()
            for word in (f"--{flag}", str(getattr(network, field)))
        ),
    ]
    words += ["--norm-epsilon", str(network.eps), "--rotary-base", str(int(network.rope_theta))]
    return words if network.tied else [*words, "--untie-embeddings-and-output-weights"]


def main() -> int:
    """Prints the flags, one word a line; returns the exit status."""
    try:
        print("\n".join(model_args(read_network(sys.argv[1]))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
