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
from torch import Tensor, nn

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
# Each TP rank holds some of their columns.
SPLIT_BY_COLUMN = ("linear_proj.weight", "linear_fc2.weight")

Folder = str | Path
Names = tuple[str, ...]
Size = tuple[int, ...]
Tensors = dict[str, Tensor]
Dtypes = dict[str, torch.dtype]

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


def name_map(shape: Shape) -> dict[str, Names]:
    """Megatron parameter name -> the Hugging Face tensors that it is made of."""
    names: dict[str, Names] = {
        "embedding.word_embeddings.weight": (EMBEDDING,),
        "decoder.final_layernorm.weight": ("model.norm.weight",),
    }
    if not shape.tied:
        names["output_layer.weight"] = (HEAD,)
    for layer in range(shape.layers):
        megatron_prefix = f"decoder.layers.{layer}."
        hf_prefix = f"model.layers.{layer}."
        for name, parts in LAYER_NAMES.items():
            hf_names = [hf_prefix + part for part in parts]
            names[megatron_prefix + name] = tuple(hf_names)
    return names


def hf_shapes(shape: Shape) -> dict[str, Size]:
    """The size of every tensor of the checkpoint, with the `lm_head.weight` of a tied one."""
    hidden = shape.hidden
    head = shape.head_dim
    query_rows = shape.heads * head
    key_rows = shape.groups * head
    of_a_layer: dict[str, Size] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_norm.weight": (head,),
        "self_attn.k_norm.weight": (head,),
        "self_attn.q_proj.weight": (query_rows, hidden),
        "self_attn.k_proj.weight": (key_rows, hidden),
        "self_attn.v_proj.weight": (key_rows, hidden),
        "self_attn.o_proj.weight": (hidden, query_rows),
        "mlp.gate_proj.weight": (shape.ffn, hidden),
        "mlp.up_proj.weight": (shape.ffn, hidden),
        "mlp.down_proj.weight": (hidden, shape.ffn),
    }
    sizes: dict[str, Size] = {
        EMBEDDING: (shape.vocab, hidden),
        HEAD: (shape.vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        for name, size in of_a_layer.items():
            sizes[prefix + name] = size
    return sizes


def read_hf(hf_dir: Folder, shape: Shape) -> Tensors:
    """All tensors of a checkpoint, in the dtype of its files.

    Raises:
        UserError: naming the tensor that is unknown, missing, of another size, or of a dtype that
            is not a float.
    """
    tensors = _read_files(hf_dir)
    sizes = hf_shapes(shape)
    for name, tensor in tensors.items():
        size = sizes.get(name)
        _check_tensor(hf_dir, name, tensor, size)
    missing = sizes.keys() - tensors.keys()
    if shape.tied:
        missing.discard(HEAD)
    if missing:
        first = min(missing)
        count = len(missing)
        what = f"the tensor {first} is missing ({count} in all)"
        raise UserError(f"{hf_dir}: {what}; copy it again")
    if shape.tied and HEAD in tensors:
        head = tensors[HEAD]
        embedding = tensors[EMBEDDING]
        if not torch.equal(head, embedding):
            differ = f"{HEAD} differs from {EMBEDDING}"
            raise UserError(f"{hf_dir}: {differ}, but config.json says tie_word_embeddings")
    return tensors


def _read_files(hf_dir: Folder) -> Tensors:
    folder = Path(hf_dir)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        hint = "give a Hugging Face checkpoint in safetensors format"
        raise UserError(f"{hf_dir}: holds no *.safetensors file; {hint}")
    tensors: Tensors = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            why = f"cannot be read ({error})"
            raise UserError(f"{file}: {why}; copy the checkpoint again") from None
    return tensors


def _check_tensor(hf_dir: Folder, name: str, tensor: Tensor, size: Size | None) -> None:
    tensor_name = f"{hf_dir}: the tensor {name}"
    if size is None:
        network = "a Qwen3ForCausalLM with this config.json"
        raise UserError(f"{tensor_name} is not part of {network}")
    found_size = tuple(tensor.shape)
    dtype = tensor.dtype
    is_float = dtype in DTYPES
    if found_size != size or not is_float:
        found = f"{dtype} {found_size}"
        wanted = f"config.json asks for floats {size}"
        raise UserError(f"{tensor_name} is {found}, {wanted}")


def shard(name: str, parts: list[Tensor], shape: Shape, tp: int, rank: int) -> Tensor:
    """The piece of Megatron parameter `name` that TP rank `rank` of `tp` holds.

    `parts` are its Hugging Face tensors.
    """
    whole = parts[0]
    if name.endswith("linear_qkv.weight"):
        # Per key/value head: its queries, its key, its value.
        size = (shape.groups, -1)
        per_group = [part.unflatten(0, size) for part in parts]
        groups = torch.cat(per_group, dim=1)
        shares = groups.chunk(tp)
        return shares[rank].flatten(0, 1)
    if name.endswith("linear_fc1.weight"):
        gate, up = parts
        gate_share = gate.chunk(tp)[rank]
        up_share = up.chunk(tp)[rank]
        return torch.cat([gate_share, up_share])
    if name.endswith(SPLIT_BY_COLUMN):
        shares = whole.chunk(tp, dim=1)
        return shares[rank]
    if name in VOCABULARY_TABLES:
        padded_rows = shape.padded_vocab(tp)
        missing_rows = padded_rows - shape.vocab
        padding = whole.new_zeros(missing_rows, shape.hidden)
        padded = torch.cat([whole, padding])
        shares = padded.chunk(tp)
        return shares[rank]
    return whole


def unshard(name: str, pieces: list[Tensor], shape: Shape) -> list[Tensor]:
    """The inverse of `shard`: the Hugging Face tensors of Megatron parameter `name`.

    `pieces` are those of all TP ranks.
    """
    if name.endswith("linear_qkv.weight"):
        whole = torch.cat(pieces)
        size = (shape.groups, -1)
        groups = whole.unflatten(0, size)
        head = shape.head_dim
        queries = shape.heads // shape.groups
        rows = [queries * head, head, head]
        parts = groups.split(rows, dim=1)
        return [part.flatten(0, 1) for part in parts]
    if name.endswith("linear_fc1.weight"):
        gates = []
        ups = []
        for piece in pieces:
            gate, up = piece.chunk(2)
            gates.append(gate)
            ups.append(up)
        gate = torch.cat(gates)
        up = torch.cat(ups)
        return [gate, up]
    if name.endswith(SPLIT_BY_COLUMN):
        whole = torch.cat(pieces, dim=1)
        return [whole]
    if name in VOCABULARY_TABLES:
        padded = torch.cat(pieces)
        return [padded[: shape.vocab]]
    return [pieces[0]]


@torch.no_grad()
def load_hf(model: nn.Module, hf_dir: Folder, shape: Shape) -> Dtypes:
    """Fills `model` (this rank's shard) from a checkpoint.

    Returns each tensor's dtype, in which `gather_hf` gives it back.
    """
    tensors = read_hf(hf_dir, shape)
    tp = mpu.get_tensor_model_parallel_world_size()
    rank = mpu.get_tensor_model_parallel_rank()
    names = name_map(shape)
    parameters = dict(model.named_parameters())
    differing = names.keys() ^ parameters.keys()
    if differing:
        in_order = sorted(differing)
        raise RuntimeError(f"the model and the name map differ in {in_order}")
    for name, parameter in parameters.items():
        parts = [tensors[hf_name].float() for hf_name in names[name]]
        piece = shard(name, parts, shape, tp, rank)
        parameter.copy_(piece)
    return {name: tensor.dtype for name, tensor in tensors.items()}


@torch.no_grad()
def gather_hf(model: nn.Module, shape: Shape, dtypes: Dtypes) -> Tensors:
    """The checkpoint's tensors from the shards of all TP ranks (a call of a whole TP group)."""
    group = mpu.get_tensor_model_parallel_group()
    tp = mpu.get_tensor_model_parallel_world_size()
    parameters = dict(model.named_parameters())
    tensors: Tensors = {}
    names = name_map(shape)
    for name, hf_names in names.items():
        parameter = parameters[name].detach()
        piece = parameter.contiguous()
        pieces = [torch.empty_like(piece) for _ in range(tp)]  # of each rank
        dist.all_gather(pieces, piece, group=group)
        parts = unshard(name, pieces, shape)
        for hf_name, part in zip(hf_names, parts, strict=True):
            tensors[hf_name] = part
    if shape.tied and HEAD in dtypes:
        embedding = tensors[EMBEDDING]
        tensors[HEAD] = embedding.clone()
    for name, tensor in tensors.items():
        converted = tensor.to(dtypes[name])
        tensors[name] = converted.contiguous()
    return tensors


def write_hf(tensors: Tensors, source_dir: Folder, target_dir: Folder) -> None:
    """Writes a complete checkpoint directory that appears whole or not.

    Config and tokenizer files come from `source_dir`. An existing directory is moved aside first:
    for an instant there is none, but never a half-written one.
    """
    target = Path(target_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not by mkdtemp: the umask says who may read the weights.
    process = os.getpid()
    name = f".{target.name}.{process}.tmp"
    temporary = target.with_name(name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name in COPIED_FILES:
            source = Path(source_dir, name)
            copy = temporary / name
            if source.is_file():
                shutil.copyfile(source, copy)
        weights = temporary / "model.safetensors"
        save_file(tensors, weights, metadata={"format": "pt"})
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        replace_dir(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_dir(source: Path, target: Path) -> None:
    """Renames `source` to `target`; an existing `target` is moved aside and removed."""
    name = source.name + ".old"
    aside = source.with_name(name)
    if target.exists():
        target.rename(aside)
    source.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
