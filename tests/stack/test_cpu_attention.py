"""The CPU engine's attention equals SGLang's own, which computes the cached tokens again."""

import json
import os
import subprocess
import sys

import pytest

from rubric_rl.cpu.engine import COMPAT

pytestmark = pytest.mark.stack
# In a process of its own, as an engine is: it needs the stand-ins of compat/sitecustomize.py.
SCRIPT = """
import json
import torch
import cpu_attention
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend as Backend

torch.manual_seed(0)
HEADS, KV_HEADS, SIZE, ROWS, LONGEST = 4, 2, 8, 6, 50
caches = [torch.randn(ROWS * LONGEST, KV_HEADS, SIZE) for _ in range(2)]
table = torch.randperm(ROWS * LONGEST).reshape(ROWS, LONGEST).to(torch.int32)
OPTIONS = {"scaling": 0.3, "enable_gqa": True, "causal": True}


def difference(ours, theirs, cached, new, **options):
    cached, new = torch.tensor(cached), torch.tensor(new)
    rows = torch.randperm(ROWS)[: len(new)]
    is_decode = ours is Backend._run_sdpa_forward_decode
    lengths = [cached + new] if is_decode else [cached + new, cached, new]
    query = torch.randn(int(new.sum()), HEADS, SIZE)
    results = []
    for run in (ours, theirs):
        output = torch.full_like(query, 9.0)
        run(Backend, query, output, *caches, table, rows, *lengths, **OPTIONS | options)
        results.append(output)
    return (results[0] - results[1]).abs().max().item()


def extend(*lengths, **options):
    ours, theirs = Backend._run_sdpa_forward_extend, cpu_attention._slow_extend
    return difference(ours, theirs, *lengths, **options)


def decode(lengths, **options):
    ours, theirs = Backend._run_sdpa_forward_decode, cpu_attention._slow_decode
    before = [length - 1 for length in lengths]
    options = {"causal": False} | options
    return difference(ours, theirs, before, [1] * len(lengths), **options)


print(json.dumps({
    "new prompts": extend([0, 0, 0], [30, 1, 7]),
    "cached prompts": extend([20, 49, 1], [30, 1, 7]),
    "both": extend([0, 40, 12, 3], [50, 10, 1, 2]),
    "a window": extend([20, 10], [5, 6], sliding_window_size=4),
    "decoding": decode([50, 1, 20, 33]),
    "decoding alone": decode([7]),
    "decoding in a window": decode([7, 30], sliding_window_size=4),
}))
"""


def test_the_new_tokens_see_what_they_see_in_sglang():
    environment = os.environ | {"PYTHONPATH": str(COMPAT), "SGLANG_USE_CPU_ENGINE": "1"}
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    differences = json.loads(ended.stdout.splitlines()[-1])
    assert len(differences) == 7
    assert max(differences.values()) < 1e-5, differences


def test_every_served_model_gets_it():
    for model in (COMPAT / "engine_models").glob("[!_]*.py"):
        assert "import cpu_attention" in model.read_text()
