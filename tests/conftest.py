"""What all tests share: a tiny Qwen3, other weights for it, one real SGLang engine and router."""

import os
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

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
def other_weights():
    """Function (model_dir, path, noise=0.5) -> path: the same checkpoint with other weights."""
    return make_other_weights


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The shipped tiny checkpoint."""
    return SHIPPED


@pytest.fixture(scope="session")
def engine(tiny_model, tmp_path_factory):
    """A real SGLang engine and router.

    It has .url, .urls, .router_url, .router_host, .router_port and .model_dir, and unless
    ENGINE_URL names one that runs already (a GPU's; ROUTER_URL its router), .logs and .server.
    Weights changed by a test must be changed back by it.
    """
    from rubric_rl.cpu import engine as cpu

    if url := os.environ.get("ENGINE_URL"):
        router_url = os.environ["ROUTER_URL"]
        address = urlsplit(router_url)
        yield SimpleNamespace(
            url=url,
            urls=[url],
            router_url=router_url,
            router_port=address.port,
            router_host=address.hostname,
            model_dir=tiny_model,
        )
        return

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
