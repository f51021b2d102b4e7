"""The shipped tiny checkpoint, loaded once."""

from pathlib import Path

import pytest

from rubric_rl import ROOT

MODEL = ROOT / "rubric_rl" / "tiny" / "model"


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """Its folder."""
    return MODEL


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


@pytest.fixture(scope="session")
def model():
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, local_files_only=True)


@pytest.fixture(scope="session")
def policy(model, tokenizer):
    from rubric_rl.tiny.measure_checkpoint import Policy

    return Policy(model, tokenizer)


@pytest.fixture(scope="session")
def encode(tokenizer):
    """Function: text -> token ids."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    return encode
