"""Tiny random Qwen3 checkpoints, a made-up rollout, a runner of training ranks."""

import atexit
import json
import multiprocessing
import random
import shutil
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path

SIZES = {
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}


@cache
def _stores() -> str:
    """A folder that goes with this process."""
    folder = tempfile.mkdtemp(prefix="ranks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def new_store() -> str:
    """A file that does not exist yet, by which ranks find each other."""
    return str(Path(tempfile.mkdtemp(dir=_stores())) / "store")


def make_checkpoint(path: Path, tied: bool = True, dtype: str = "float32", seed: int = 0) -> str:
    """Writes a random Qwen3 checkpoint.

    Its weights, norms included, are all different from their initial values.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=tied, **SIZES))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.to(getattr(torch, dtype)).save_pretrained(path)
    (path / "tokenizer.json").write_text(json.dumps({"made": "up"}))
    return str(path)


def actor_args(**changes) -> Namespace:
    """The flags that an actor reads."""
    values = {
        "tensor_model_parallel_size": 1,
        "distributed_timeout_minutes": 1,
        "seed": 1,
        "num_rollout": 10,
        "rollout_batch_size": 4,
        "n_samples_per_prompt": 2,
        "rollout_temperature": 0.7,
        "global_batch_size": 8,
        "max_tokens_per_gpu": 64,
        "lr": 1e-3,
        "min_lr": 0.0,
        "lr_decay_style": "constant",
        "lr_decay_iters": None,
        "lr_warmup_iters": 0,
        "lr_warmup_fraction": None,
        "lr_warmup_init": 0.0,
        "weight_decay": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "adam_eps": 1e-8,
        "clip_grad": 1.0,
        "eps_clip": 0.2,
        "eps_clip_high": 0.28,
        "entropy_coef": 0.01,
        "use_kl_loss": False,
        "kl_loss_coef": 0.05,
        "kl_loss_type": "low_var_kl",
        "ref_load": None,
        "calculate_per_token_loss": False,
        "use_rollout_logprobs": False,
    }
    return Namespace(**values | changes)


def make_rollout(seed: int = 0, count: int = 8) -> dict:
    """Answers of mixed lengths.

    Sample 2 has masked tokens inside, sample 5 is removed (its reward is NaN).
    """
    rng = random.Random(seed)
    prompts = [rng.randint(2, 9) for _ in range(count)]
    responses = [rng.randint(3, 14) for _ in range(count)]
    masks = [[1] * response for response in responses]
    masks[2][1] = 0
    masks[5] = [0] * responses[5]
    rewards = [rng.gauss(0, 1) for _ in range(count)]
    rewards[5] = float("nan")
    tokens = []
    for prompt, response in zip(prompts, responses, strict=True):
        tokens.append([rng.randrange(101) for _ in range(prompt + response)])
    log_probs = [[-rng.random() - 4 for _ in range(response)] for response in responses]
    return {
        "tokens": tokens,
        "response_lengths": responses,
        "rewards": rewards,
        "loss_masks": masks,
        "rollout_log_probs": log_probs,
    }


def _rank(function: Callable, rank: int, world: int, store: str, arguments: tuple, pipe) -> None:
    try:
        pipe.send(("ok", function(rank, world, store, *arguments)))
    except Exception:  # the parent raises it again
        pipe.send(("failed", traceback.format_exc()))


def run_ranks(world: int, function: Callable, *arguments, timeout: float = 120) -> list:
    """Calls function(rank, world, store, *arguments) in `world` processes.

    Returns the results in rank order. A rank that failed gives a RuntimeError with its traceback in
    place of a result, one that died gives None.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rubric_rl.cpu.actor"])
    store = new_store()
    ranks = []
    for rank in range(world):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_rank, args=(function, rank, world, store, arguments, theirs), daemon=True
        )
        process.start()
        theirs.close()
        ranks.append((process, ours))
    results = []
    for process, pipe in ranks:
        try:
            if not pipe.poll(timeout):
                raise TimeoutError(f"no answer within {timeout} s")
            state, value = pipe.recv()
            results.append(value if state == "ok" else RuntimeError(value))
        except TimeoutError as error:
            results.append(RuntimeError(str(error)))
        except EOFError:
            results.append(None)
        process.join(timeout=10)
        process.kill()
    return results
