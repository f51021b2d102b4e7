"""Hugging Face Qwen3 weights into Megatron's tensor-parallel layout and back, bit-exact.

The actor trains fp32 masters. An export has the dtype of the checkpoint it came from: with fp32
files it holds the masters themselves; with bf16 files the rollout engine gets them rounded, as in a
real run. The masters of a bf16 run survive a restart because `Actor.save` keeps them beside the
export.
"""

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import Shape
from rubric_rl.cpu.megatron import mpu

# What an export takes over from the checkpoint that it came from, as far as it is there.
COPIED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Tensors of the checkpoint; a tied one may leave out the second, which is equal to the first.
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
# The same two in Megatron's words: one row per token, padded to a multiple of the TP size.
VOCABULARY_TABLES = ("embedding.word_embeddings.weight", "output_layer.weight")


# Within a layer: Megatron's parameter -> the Hugging Face tensors that it is made of.
LAYER_NAMES = {
    "input_layernorm.weight": ("input_layernorm.weight",),
    "self_attention.linear_qkv.weight": (
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ),
    "self_attention.q_layernorm.weight": ("self_attn.q_norm.weight",),
    "self_attention.k_layernorm.weight": ("self_attn.k_norm.weight",),
    "self_attention.linear_proj.weight": ("self_attn.o_proj.weight",),
    "pre_mlp_layernorm.weight": ("post_attention_layernorm.weight",),
    "mlp.linear_fc1.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.linear_fc2.weight": ("mlp.down_proj.weight",),
}


def name_map(shape: Shape) -> dict[str, tuple[str, ...]]:
    """Megatron parameter name -> the Hugging Face tensors that it is made of."""
    names: dict[str, tuple[str, ...]] = {
        "embedding.word_embeddings.weight": (EMBEDDING,),
        "decoder.final_layernorm.weight": ("model.norm.weight",),
    }
    if not shape.tied:
        names["output_layer.weight"] = (HEAD,)
    for layer in range(shape.layers):
        for name, parts in LAYER_NAMES.items():
            hf_names = [f"model.layers.{layer}.{part}" for part in parts]
            names[f"decoder.layers.{layer}.{name}"] = tuple(hf_names)
    return names


def hf_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The size of every tensor of the checkpoint, with the `lm_head.weight` of a tied one."""
    hidden = shape.hidden
    query_rows = shape.heads * shape.head_dim
    key_rows = shape.groups * shape.head_dim
    of_a_layer = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_norm.weight": (shape.head_dim,),
        "self_attn.k_norm.weight": (shape.head_dim,),
        "self_attn.q_proj.weight": (query_rows, hidden),
        "self_attn.k_proj.weight": (key_rows, hidden),
        "self_attn.v_proj.weight": (key_rows, hidden),
        "self_attn.o_proj.weight": (hidden, query_rows),
        "mlp.gate_proj.weight": (shape.ffn, hidden),
        "mlp.up_proj.weight": (shape.ffn, hidden),
        "mlp.down_proj.weight": (hidden, shape.ffn),
    }
    sizes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (shape.vocab, hidden),
        HEAD: (shape.vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(shape.layers):
        for name, size in of_a_layer.items():
            sizes[f"model.layers.{layer}.{name}"] = size
    return sizes


def read_hf(hf_dir: str | Path, shape: Shape) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, in the dtype of its files.

    Raises:
        UserError: naming the tensor that is unknown, missing, of another size, or of a dtype that
            is not a float.
    """
    files = sorted(Path(hf_dir).glob("*.safetensors"))
    if not files:
        hint = "give a Hugging Face checkpoint in safetensors format"
        raise UserError(f"{hf_dir}: holds no *.safetensors file; {hint}")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: cannot be read ({error}); copy the checkpoint again"
            ) from None
    sizes = hf_shapes(shape)
    for name, tensor in tensors.items():
        _check_tensor(hf_dir, name, tensor, sizes.get(name))
    missing = sizes.keys() - tensors.keys()
    if shape.tied:
        missing -= {HEAD}
    if missing:
        first = min(missing)
        number = f"{len(missing)} in all"
        raise UserError(f"{hf_dir}: the tensor {first} is missing ({number}); copy it again")
    if shape.tied and HEAD in tensors and not torch.equal(tensors[HEAD], tensors[EMBEDDING]):
        raise UserError(
            f"{hf_dir}: {HEAD} differs from {EMBEDDING}, but config.json says tie_word_embeddings"
        )
    return tensors


def _check_tensor(
    hf_dir: str | Path, name: str, tensor: torch.Tensor, size: tuple[int, ...] | None
) -> None:
    if size is None:
        network = "a Qwen3ForCausalLM with this config.json"
        raise UserError(f"{hf_dir}: the tensor {name} is not part of {network}")
    if tuple(tensor.shape) != size or tensor.dtype not in DTYPES:
        found = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise UserError(
            f"{hf_dir}: the tensor {name} is {found}, config.json asks for floats {size}"
        )


def shard(name: str, parts: list[torch.Tensor], shape: Shape, tp: int, rank: int) -> torch.Tensor:
    """The piece of Megatron parameter `name` that TP rank `rank` of `tp` holds.

    `parts` are its Hugging Face tensors.
    """
    whole = parts[0]
    if name.endswith("linear_qkv.weight"):
        # Per key/value head: its queries, its key, its value.
        per_group = [part.unflatten(0, (shape.groups, -1)) for part in parts]
        groups = torch.cat(per_group, dim=1)
        return groups.chunk(tp)[rank].flatten(0, 1)
    if name.endswith("linear_fc1.weight"):
        # Each rank: its share of gate, then its share of up.
        return torch.cat([part.chunk(tp)[rank] for part in parts])
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return whole.chunk(tp, dim=1)[rank]
    if name in VOCABULARY_TABLES:
        padding = whole.new_zeros(shape.padded_vocab(tp) - shape.vocab, shape.hidden)
        return torch.cat([whole, padding]).chunk(tp)[rank]
    return whole


def unshard(name: str, pieces: list[torch.Tensor], shape: Shape) -> list[torch.Tensor]:
    """The inverse of `shard`: the Hugging Face tensors of Megatron parameter `name`.

    `pieces` are those of all TP ranks.
    """
    if name.endswith("linear_qkv.weight"):
        groups = torch.cat(pieces).unflatten(0, (shape.groups, -1))
        query_rows = shape.heads // shape.groups * shape.head_dim
        parts = groups.split([query_rows, shape.head_dim, shape.head_dim], dim=1)
        return [part.flatten(0, 1) for part in parts]
    if name.endswith("linear_fc1.weight"):
        gates = []
        ups = []
        for piece in pieces:
            gate, up = piece.chunk(2)
            gates.append(gate)
            ups.append(up)
        return [torch.cat(gates), torch.cat(ups)]
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return [torch.cat(pieces, dim=1)]
    if name in VOCABULARY_TABLES:
        return [torch.cat(pieces)[: shape.vocab]]
    return [pieces[0]]


@torch.no_grad()
def load_hf(model: torch.nn.Module, hf_dir: str | Path, shape: Shape) -> dict[str, torch.dtype]:
    """Fills `model` (this rank's shard) from a checkpoint.

    Returns each tensor's dtype, in which `gather_hf` gives it back.
    """
    tensors = read_hf(hf_dir, shape)
    tp = mpu.get_tensor_model_parallel_world_size()
    rank = mpu.get_tensor_model_parallel_rank()
    names = name_map(shape)
    parameters = dict(model.named_parameters())
    if names.keys() != parameters.keys():
        differing = sorted(names.keys() ^ parameters.keys())
        raise RuntimeError(f"the model and the name map differ in {differing}")
    for name, parameter in parameters.items():
        parts = [tensors[part].float() for part in names[name]]
        parameter.copy_(shard(name, parts, shape, tp, rank))
    return {name: tensor.dtype for name, tensor in tensors.items()}


@torch.no_grad()
def gather_hf(
    model: torch.nn.Module, shape: Shape, dtypes: dict[str, torch.dtype]
) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors from the shards of all TP ranks (a call of a whole TP group)."""
    group = mpu.get_tensor_model_parallel_group()
    tp = mpu.get_tensor_model_parallel_world_size()
    parameters = dict(model.named_parameters())
    tensors: dict[str, torch.Tensor] = {}
    for name, parts in name_map(shape).items():
        piece = parameters[name].detach().contiguous()
        pieces = [torch.empty_like(piece) for _ in range(tp)]
        dist.all_gather(pieces, piece, group=group)
        whole = unshard(name, pieces, shape)
        tensors.update(zip(parts, whole, strict=True))
    if shape.tied and HEAD in dtypes:
        tensors[HEAD] = tensors[EMBEDDING].clone()
    return {name: tensor.to(dtypes[name]).contiguous() for name, tensor in tensors.items()}


def write_hf(
    tensors: dict[str, torch.Tensor], source_dir: str | Path, target_dir: str | Path
) -> None:
    """Writes a complete checkpoint directory that appears whole or not.

    Config and tokenizer files come from `source_dir`. An existing directory is moved aside first:
    for an instant there is none, but never a half-written one.
    """
    target = Path(target_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not by mkdtemp: the umask says who may read the weights.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name in COPIED_FILES:
            source = Path(source_dir) / name
            if source.is_file():
                shutil.copyfile(source, temporary / name)
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        replace_dir(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_dir(source: Path, target: Path) -> None:
    """Renames `source` to `target`; an existing `target` is moved aside and removed."""
    aside = source.with_name(source.name + ".old")
    if target.exists():
        target.rename(aside)
    source.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
