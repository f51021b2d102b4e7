"""What all tests share: a tiny Qwen3, other weights for it, one real SGLang engine and router."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from rubric_rl import ROOT

# before torch is imported: on few cores, threads only get in each other's way
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine makes a law slow, not wrong.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
SHIPPED = ROOT / "rubric_rl" / "tiny" / "model"


def pytest_collection_modifyitems(items):
    """Fast tests first, so that a slip shows before the servers start."""
    items.sort(
        key=lambda item: (
            bool(item.get_closest_marker("stack")),
            bool(item.get_closest_marker("slow")),
        )
    )


def make_random_qwen3(path: Path, seed: int = 0) -> Path:
    """A random Qwen3 of 0.6M parameters at `path`.

    Its byte-level tokenizer knows ` true` and ` false`.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [
        "the patient has a fever and should rest , drink water and see a doctor",
        *[" true", " false"] * 9,
    ]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        words,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    model = Qwen3ForCausalLM(config).float()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(path)
    return Path(path)


def make_other_weights(model_dir: Path, path: Path, noise: float = 0.5) -> Path:
    """A copy of a checkpoint whose weights differ clearly.

    The noise is relative to each matrix's own spread.
    """
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model_dir, path)
    torch.manual_seed(1)
    for file in path.glob("*.safetensors"):
        weights = load_file(file)
        for name, weight in weights.items():
            if weight.dim() > 1:
                weights[name] = weight + noise * weight.float().std().to(
                    weight.dtype
                ) * torch.randn_like(weight)
        save_file(weights, file, metadata={"format": "pt"})
    return path


@pytest.fixture(scope="session")
def random_qwen3():
    """Function (path, seed=0) -> path: makes a random tiny Qwen3 checkpoint."""
    return make_random_qwen3


@pytest.fixture(scope="session")
def other_weights():
    """Function (model_dir, path, noise=0.5) -> path: the same checkpoint with other weights."""
    return make_other_weights


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The shipped tiny checkpoint, or a random one as long as there is none."""
    return (
        SHIPPED
        if (SHIPPED / "config.json").is_file()
        else make_random_qwen3(tmp_path_factory.mktemp("random-qwen3"))
    )


@pytest.fixture(scope="session")
def engine(tiny_model, tmp_path_factory):
    """A real SGLang engine and router.

    It has .url, .urls, .router_url, .router_host, .router_port, .model_dir, .logs and .server.
    Weights changed by a test must be changed back by it.
    """
    from rubric_rl.cpu import engine as cpu

    logs = tmp_path_factory.mktemp("engine-logs")
    port, router_port = cpu.free_port(), cpu.free_port()
    url, router_url = f"http://{cpu.HOST}:{port}", f"http://{cpu.HOST}:{router_port}"
    with cpu.start_engine(tiny_model, port, logs) as server:
        cpu.wait_healthy(url, server, 300)
        with cpu.start_router([url], router_port, logs):
            yield SimpleNamespace(
                url=url,
                urls=[url],
                router_url=router_url,
                router_port=router_port,
                router_host=cpu.HOST,
                model_dir=tiny_model,
                logs=logs,
                server=server,
            )
