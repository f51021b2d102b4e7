"""Checks model, rows, memory and ports before any process starts; each problem is one line (all stages)."""

from pathlib import Path

from rubric_rl.cpu.engine import ENGINE_GB, require_memory, require_port
from rubric_rl.data.row_file import read_slice
from rubric_rl.errors import UserError
from rubric_rl.model_shape import read_trainable_network

ACTOR_GB = 0.8  # a training process without its model: torch, Megatron-core
BASE_GB = 1.5  # this process, Ray's head and the rollout actor


def check(args) -> None:
    """Raises UserError for the first thing that would stop the run."""
    for flag in ("hf_checkpoint", "ref_load"):
        if path := getattr(args, flag):
            check_model(Path(path), "--" + flag.replace("_", "-"))
    held_out = {}  # prompt_id -> file
    for dataset in args.eval_datasets:
        held_out |= {row.prompt_id: dataset.path for row in read_slice(dataset.path)}
    for row in read_slice(args.prompt_data):
        if row.prompt_id in held_out:
            where = f"prompt_id {row.prompt_id} is in {args.prompt_data} and in {held_out[row.prompt_id]}"
            raise UserError(
                f"{where}: training on the evaluation; make the rows again with data_preprocess.py"
            )
    world = args.actor_num_nodes * args.actor_num_gpus_per_node
    weights = (
        4 * read_trainable_network(args.hf_checkpoint).parameters / 1e9
    )  # GB: everything here is fp32
    engines = args.rollout_num_gpus * (ENGINE_GB + weights)
    actors = world * (
        ACTOR_GB + 4 * weights / args.tensor_model_parallel_size
    )  # gradients and two moments as well
    require_memory(BASE_GB + engines + actors, f"this run of {args.hf_checkpoint}")
    if args.sglang_router_port is not None:
        require_port(args.sglang_router_port, "router (--sglang-router-port)")


def check_model(path: Path, flag: str) -> None:
    """A Hugging Face directory of a Qwen3 model with its tokenizer, or a UserError that says what is missing."""
    if not path.is_dir():
        hint = "name a Hugging Face checkpoint of a Qwen3 model (HF_CKPT_PATH)"
        raise UserError(f"{flag} {path}: no such directory; {hint}")
    read_trainable_network(path)
    if not any(path.glob("*.safetensors")):
        raise UserError(f"{flag} {path}: holds no *.safetensors weights; get the checkpoint again")
    if not (path / "tokenizer.json").is_file():
        raise UserError(f"{flag} {path}: holds no tokenizer.json; get the checkpoint again")
