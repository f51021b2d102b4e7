"""Hugging Face Qwen3 weights into Megatron's tensor-parallel layout and back, bit-exact (stage 5, GRPO update).

The actor trains fp32 masters. An export has the dtype of the checkpoint it came from: with fp32 files it holds the
masters themselves; with bf16 files the rollout engine gets them rounded, as in a real run. The masters of a bf16 run
survive a restart because `Actor.save` keeps them beside the export.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rubric_rl.cpu.megatron import mpu
from rubric_rl.errors import UserError
from rubric_rl.model_shape import Shape

COPIED = [
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
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def name_map(shape: Shape) -> dict[str, tuple[str, ...]]:
    """Megatron parameter name -> the Hugging Face tensors that it is made of."""
    names = {
        "embedding.word_embeddings.weight": (EMBEDDING,),
        "decoder.final_layernorm.weight": ("model.norm.weight",),
    }
    if not shape.tied:
        names["output_layer.weight"] = (HEAD,)
    for layer in range(shape.layers):
        ours, hf = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        attention, mlp = hf + "self_attn.", hf + "mlp."
        names |= {
            ours + "input_layernorm.weight": (hf + "input_layernorm.weight",),
            ours + "self_attention.linear_qkv.weight": tuple(
                f"{attention}{x}_proj.weight" for x in "qkv"
            ),
            ours + "self_attention.q_layernorm.weight": (attention + "q_norm.weight",),
            ours + "self_attention.k_layernorm.weight": (attention + "k_norm.weight",),
            ours + "self_attention.linear_proj.weight": (attention + "o_proj.weight",),
            ours + "pre_mlp_layernorm.weight": (hf + "post_attention_layernorm.weight",),
            ours + "mlp.linear_fc1.weight": (mlp + "gate_proj.weight", mlp + "up_proj.weight"),
            ours + "mlp.linear_fc2.weight": (mlp + "down_proj.weight",),
        }
    return names


def hf_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The size of every tensor of the checkpoint (with `lm_head.weight`, which a tied checkpoint may leave out)."""
    heads, groups = shape.heads * shape.head_dim, shape.groups * shape.head_dim
    vocabulary = (shape.vocab, shape.hidden)
    sizes = {EMBEDDING: vocabulary, HEAD: vocabulary, "model.norm.weight": (shape.hidden,)}
    for layer in range(shape.layers):
        hf = f"model.layers.{layer}."
        sizes |= {
            hf + name: (shape.hidden,)
            for name in ("input_layernorm.weight", "post_attention_layernorm.weight")
        }
        sizes |= {hf + f"self_attn.{x}_norm.weight": (shape.head_dim,) for x in "qk"}
        sizes[hf + "self_attn.q_proj.weight"] = (heads, shape.hidden)
        sizes |= {hf + f"self_attn.{x}_proj.weight": (groups, shape.hidden) for x in "kv"}
        sizes[hf + "self_attn.o_proj.weight"] = (shape.hidden, heads)
        sizes |= {hf + f"mlp.{x}_proj.weight": (shape.ffn, shape.hidden) for x in ("gate", "up")}
        sizes[hf + "mlp.down_proj.weight"] = (shape.hidden, shape.ffn)
    return sizes


def read_hf(hf_dir: str | Path, shape: Shape) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, in the dtype of its files.

    Raises:
        UserError: naming the tensor that is unknown, missing, of another size, or of a dtype that is not a float.
    """
    files = sorted(Path(hf_dir).glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{hf_dir}: holds no *.safetensors file; give a Hugging Face checkpoint in safetensors format"
        )
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: cannot be read ({error}); copy the checkpoint again"
            ) from None
    expected = hf_shapes(shape)
    for name, tensor in tensors.items():
        if name not in expected:
            raise UserError(
                f"{hf_dir}: the tensor {name} is not part of a Qwen3ForCausalLM with this config.json"
            )
        if tuple(tensor.shape) != expected[name] or tensor.dtype not in DTYPES:
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise UserError(
                f"{hf_dir}: the tensor {name} is {found}, config.json asks for floats {expected[name]}"
            )
    missing = sorted(expected.keys() - tensors.keys() - ({HEAD} if shape.tied else set()))
    if missing:
        raise UserError(
            f"{hf_dir}: the tensor {missing[0]} is missing ({len(missing)} in all); copy it again"
        )
    if shape.tied and HEAD in tensors and not torch.equal(tensors[HEAD], tensors[EMBEDDING]):
        raise UserError(
            f"{hf_dir}: {HEAD} differs from {EMBEDDING}, but config.json says tie_word_embeddings"
        )
    return tensors


def shard(name: str, parts: list[torch.Tensor], shape: Shape, tp: int, rank: int) -> torch.Tensor:
    """The piece of Megatron parameter `name` that TP rank `rank` of `tp` holds, from its Hugging Face tensors."""
    whole = parts[0]
    if name.endswith("linear_qkv.weight"):  # per key/value head: its queries, its key, its value
        return (
            torch.cat([x.unflatten(0, (shape.groups, -1)) for x in parts], dim=1)
            .chunk(tp)[rank]
            .flatten(0, 1)
        )
    if name.endswith("linear_fc1.weight"):  # each rank: its share of gate, then its share of up
        return torch.cat([x.chunk(tp)[rank] for x in parts])
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return whole.chunk(tp, dim=1)[rank]
    if name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        padding = whole.new_zeros(shape.padded_vocab(tp) - shape.vocab, shape.hidden)
        return torch.cat([whole, padding]).chunk(tp)[rank]
    return whole


def unshard(name: str, pieces: list[torch.Tensor], shape: Shape) -> list[torch.Tensor]:
    """The inverse of `shard`: the Hugging Face tensors of Megatron parameter `name` from the pieces of all TP ranks."""
    if name.endswith("linear_qkv.weight"):
        per_group = torch.cat(pieces).unflatten(0, (shape.groups, -1))
        queries = shape.heads // shape.groups * shape.head_dim
        return [
            x.flatten(0, 1)
            for x in per_group.split([queries, shape.head_dim, shape.head_dim], dim=1)
        ]
    if name.endswith("linear_fc1.weight"):
        return [torch.cat(half) for half in zip(*(piece.chunk(2) for piece in pieces), strict=True)]
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return [torch.cat(pieces, dim=1)]
    if name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        return [torch.cat(pieces)[: shape.vocab]]
    return [pieces[0]]


@torch.no_grad()
def load_hf(model: torch.nn.Module, hf_dir: str | Path, shape: Shape) -> dict[str, torch.dtype]:
    """Fills `model` (this rank's shard) from a checkpoint; returns each tensor's dtype, which `export_hf` writes."""
    tensors = read_hf(hf_dir, shape)
    tp, rank = mpu.get_tensor_model_parallel_world_size(), mpu.get_tensor_model_parallel_rank()
    names, parameters = name_map(shape), dict(model.named_parameters())
    if names.keys() != parameters.keys():
        raise RuntimeError(
            f"the model and the name map differ in {sorted(names.keys() ^ parameters.keys())}"
        )
    for name, parameter in parameters.items():
        parts = [tensors[part].float() for part in names[name]]
        parameter.copy_(shard(name, parts, shape, tp, rank))
    return {name: tensor.dtype for name, tensor in tensors.items()}


@torch.no_grad()
def gather_hf(
    model: torch.nn.Module, shape: Shape, dtypes: dict[str, torch.dtype]
) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors from the shards of all TP ranks (a collective call of one TP group)."""
    group = mpu.get_tensor_model_parallel_group()
    parameters, tensors = dict(model.named_parameters()), {}
    for name, parts in name_map(shape).items():
        piece = parameters[name].detach().contiguous()
        pieces = [torch.empty_like(piece) for _ in range(group.size())]
        dist.all_gather(pieces, piece, group=group)
        tensors |= dict(zip(parts, unshard(name, pieces, shape), strict=True))
    if shape.tied and HEAD in dtypes:
        tensors[HEAD] = tensors[EMBEDDING].clone()
    return {name: tensor.to(dtypes[name]).contiguous() for name, tensor in tensors.items()}


def write_hf(
    tensors: dict[str, torch.Tensor], source_dir: str | Path, target_dir: str | Path
) -> None:
    """Writes a complete checkpoint directory, config and tokenizer files from `source_dir`, that appears whole or not.

    An existing directory is moved aside first: for an instant there is none, but never a half-written one.
    """
    target = Path(target_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for name in COPIED:
            if (Path(source_dir) / name).is_file():
                shutil.copyfile(Path(source_dir) / name, temporary / name)
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        temporary.chmod(0o755)
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
