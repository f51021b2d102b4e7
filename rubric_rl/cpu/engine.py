"""SGLang engines on the CPU, their router, and weight updates."""

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import requests

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.process import ServerProcess
from rubric_rl.launch.shared_checks import check_port

HOST = "127.0.0.1"
COMPAT = Path(__file__).parent / "compat"
# One engine is three processes of half a gigabyte (nearly all imports) and its KV cache.
ENGINE_GB = 2.0
# `python -m sglang_router.launch_router` would import all of SGLang first (20 s).
ROUTER_MAIN = """
import json, sys
from sglang_router.router import Router
from sglang_router.router_args import RouterArgs
Router.from_args(RouterArgs(**json.loads(sys.argv[1]))).start()
"""
ROUTER_SETTINGS = {
    "assignment_mode": "min_group",  # a new routing key goes to the engine with the fewest keys
    "worker_startup_check_interval": 1,
    "health_check_interval_secs": 5,
    "health_success_threshold": 1,
    "log_level": "error",
    "disable_retries": True,  # the client retries, where attempts are counted
    # It counts HTTP 400: ten bad requests would shut out a good engine.
    "disable_circuit_breaker": True,
}


class RequestRefused(RuntimeError):
    """A server that this run has started answered a request of ours with an error: a defect."""


def free_port() -> int:
    """A TCP port that nobody listens on.

    It lies below those that the kernel gives away (32768 and above), so that nobody gets it by
    chance before a slow server binds it.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port


def require_port(port: int, what: str) -> None:
    """Raises UserError when `port` is taken."""
    for problem in check_port(port, f"the {what}", HOST):
        raise UserError(problem)


def available_gb() -> float:
    """Memory that new processes may take, in GB.

    That is what the machine has free, or less under a control group's limit.
    """
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    if not (group / "memory.max").exists():
        return free / 1e9
    limit = (group / "memory.max").read_text().strip()
    if limit == "max":
        return free / 1e9
    usage = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    file_cache = int(usage["inactive_file"])  # it gives way
    used = int((group / "memory.current").read_text()) - file_cache
    return min(free, int(limit) - used) / 1e9


def require_memory(gigabytes: float, what: str) -> None:
    """Raises UserError when less than `gigabytes` is available."""
    free = available_gb()
    if free < gigabytes:
        numbers = f"about {gigabytes:.1f} GB needed, {free:.1f} GB available"
        hint = "end other programs, or name a smaller model"
        raise UserError(f"too little memory for {what}: {numbers}; {hint}")


def request(url: str, payload: dict | None = None, timeout: float = 60.0) -> Any:
    """The decoded response to a GET, or with a payload to a POST of JSON.

    Raises:
        UserError: when nobody answers.
        RequestRefused: with the server's message, for a status of 400 or more.
    """
    method = "GET" if payload is None else "POST"
    with requests.Session() as session:
        session.trust_env = False  # loopback never goes through a proxy
        try:
            response = session.request(method, url, json=payload, timeout=timeout)
        except requests.RequestException as problem:
            raise UserError(f"{url} cannot be reached: {_root_cause(problem)}") from None
    if response.status_code >= 400:
        raise RequestRefused(f"{url} answered {response.status_code}: {response.text[:500]}")
    is_json = response.text[:1] in ("{", "[")
    return response.json() if is_json else response.text


def _root_cause(error: BaseException) -> BaseException:
    """What requests and urllib3 have wrapped: "Connection refused" and the like."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _environment(**more: str) -> dict[str, str]:
    """The environment of a server: this process's, offline, quiet, without proxies."""
    own = {
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **own, **more}


def start_engine(
    model_dir: str | Path, port: int, log_dir: str | Path, seeded: bool = False
) -> ServerProcess:
    """Starts one SGLang server on `port`; returns at once (see `wait_healthy`).

    A `seeded` one samples by each request's `sampling_seed`; else it ignores that.

    Raises:
        UserError: when the port is in use, memory is short or `model_dir` holds no model.
    """
    if not (Path(model_dir) / "config.json").is_file():
        raise UserError(f"{model_dir} holds no Hugging Face checkpoint (no config.json)")
    require_port(port, "engine")
    require_memory(ENGINE_GB, "an SGLang engine")
    flags = [
        *("--model-path", str(model_dir), "--served-model-name", "policy"),
        *("--weight-version", "0"),
        *("--host", HOST, "--port", str(port)),
        *("--device", "cpu", "--attention-backend", "torch_native"),
        # The trainer's own log-probabilities; "auto" would mean float16 on a CPU.
        *("--dtype", "float32"),
        # A share of the memory that is free when the engine starts; the cache is far smaller
        # (max-total-tokens). Large, because the trainer starts at the same time and takes memory
        # meanwhile.
        *("--mem-fraction-static", "0.6"),
        *("--max-total-tokens", "60000", "--max-running-requests", "64"),
        "--enable-cache-report",
        "--sleep-on-idle",  # otherwise an idle engine takes a whole core from the update
        "--enable-metrics",
        "--constrained-json-disable-any-whitespace",
        *("--log-level", "warning"),
    ]
    server = ["-m", "sglang.launch_server"]
    if seeded:
        server = [str(COMPAT / "deterministic_server.py"), "--enable-deterministic-inference"]
    command = [sys.executable, *server, *flags]
    log = Path(log_dir) / f"engine-{port}.log"
    return ServerProcess.start(
        command,
        log,
        _engine_environment(log),
        name=f"the SGLang engine on port {port}",
        grace=0.0,  # it has nothing to save, and its own orderly shutdown takes 8 s
    )


def _engine_environment(log: Path) -> dict[str, str]:
    # For the rendezvous of its single rank torch would open a port to the network; a file does as
    # well.
    store = log.absolute().with_suffix(".store")
    store.unlink(missing_ok=True)
    python_path = [str(COMPAT)]
    if os.environ.get("PYTHONPATH"):
        python_path.append(os.environ["PYTHONPATH"])
    return _environment(
        PYTHONPATH=os.pathsep.join(python_path),
        SGLANG_USE_CPU_ENGINE="1",
        SGLANG_EXTERNAL_MODEL_PACKAGE="engine_models",
        SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE=f"file://{store}",
        GLOO_SOCKET_IFNAME="lo",
    )


def start_router(
    engine_urls: Iterable[str], port: int, log_dir: str | Path, policy: str = "manual"
) -> ServerProcess:
    """Starts the router on `port` and waits until it serves all `engine_urls`.

    The engines must be healthy. The policy "manual" sends equal `X-SMG-Routing-Key` headers to the
    same engine.

    Raises:
        UserError: when the port is in use, or an engine is not taken in.
        ServerDied: with the end of the router's log.
    """
    require_port(port, "router")
    settings = ROUTER_SETTINGS | {
        "host": HOST,
        "port": port,
        "policy": policy,
        "prometheus_host": HOST,
        "prometheus_port": free_port(),
    }
    command = [sys.executable, "-c", ROUTER_MAIN, json.dumps(settings)]
    log = Path(log_dir) / f"router-{port}.log"
    name = f"the router on port {port}"
    router = ServerProcess.start(command, log, _environment(), name=name, grace=3.0)
    url = f"http://{HOST}:{port}"
    try:
        wait_healthy(url, router, 60)
        add_engines(url, list(engine_urls), router)
    except BaseException:
        router.stop()
        raise
    return router


def wait_healthy(url: str, server: ServerProcess, seconds: float = 300.0) -> float:
    """Waits until GET `url`/health answers 200; returns the seconds waited.

    Raises:
        ServerDied: with the end of its log, when the process ends first.
        UserError: after `seconds`.
    """

    def healthy() -> bool:
        try:
            request(url + "/health", timeout=20)
        except (UserError, RequestRefused):  # nobody there yet, or 503 while it loads
            return False
        return True

    return server.wait_until(healthy, seconds, pause=0.5)


def add_engines(router_url: str, engine_urls: list[str], router: ServerProcess) -> None:
    """Tells the router about engines and waits until it reports every one as healthy."""
    for url in engine_urls:
        request(router_url + "/workers", {"url": url})  # answers 202: it looks at the engine later
    deadline = time.monotonic() + 60
    while missing := set(engine_urls) - healthy_engines(router_url):
        router.check()
        if time.monotonic() > deadline:
            names = ", ".join(sorted(missing))
            raise UserError(f"the router has not taken in {names} within 60 s; see {router.log}")
        time.sleep(0.1)


def healthy_engines(router_url: str) -> set[str]:
    """URLs of the engines that the router would send requests to."""
    workers = request(router_url + "/workers")["workers"]
    return {worker["url"] for worker in workers if worker["is_healthy"]}


def update_weights(urls: Iterable[str], hf_dir: str | Path, weight_version: str) -> None:
    """Loads the Hugging Face weights of `hf_dir` into every engine, as `weight_version`.

    `urls` are the engines' own, not the router's. Requests still running are aborted, so that no
    answer mixes two policies; each engine's prefix cache is emptied.

    Raises:
        RequestRefused: when an engine refuses, or does not report the new version afterwards.
    """
    urls = list(urls)
    new_weights = {
        "model_path": str(hf_dir),
        "weight_version": weight_version,
        "flush_cache": True,
    }
    for url in urls:
        request(url + "/pause_generation", {"mode": "abort"})
        try:
            request(url + "/update_weights_from_disk", new_weights, timeout=300)
        finally:
            request(url + "/continue_generation", {})
    for url in urls:
        served = request(url + "/model_info")["weight_version"]
        if served != weight_version:
            raise RequestRefused(f"{url} serves weight version {served}, not {weight_version}")
