"""All processes of one run: Ray, engines, router, rollout manager, training actors."""

import os
import time
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
import ray

from rubric_rl import ROOT
from rubric_rl.common.progress import StageBar
from rubric_rl.cpu import local_ray
from rubric_rl.cpu.engine import (
    HOST,
    free_port,
    start_engine,
    start_router,
    update_weights,
    wait_healthy,
)
from rubric_rl.cpu.engine_plan import engine_plan
from rubric_rl.cpu.flags import training_processes
from rubric_rl.cpu.process import ServerProcess
from rubric_rl.cpu.rollout_manager import RolloutManager

Engines = dict[str, ServerProcess]  # by their URL


class TrainingActor:
    """An `actor.Actor` in a Ray actor.

    It is imported there, because Megatron would cost this process seconds and memory; and made with
    the first call, because from a constructor Ray hands on no exception of ours.
    """

    def __init__(self, *arguments):
        self.arguments = arguments
        self.actor = None

    def call(self, method: str, *arguments) -> Any:
        """Calls a method of the Actor."""
        if self.actor is None:
            from rubric_rl.cpu.actor import Actor

            self.actor = Actor(*self.arguments)
        bound = getattr(self.actor, method)
        return bound(*arguments)


class Cluster:
    """Starts all processes in parallel and stops them in order. Use it as a context manager."""

    def __init__(self, args, directory: Path):
        self.args = args
        self.logs = directory / "logs"
        self.weights_directory = directory / "sync"
        self.private = local_ray.make_private_folder()
        self.servers: list[ServerProcess] = []
        self.engine_urls: list[str] = []  # the policy's: only these get new weights
        self.routers: dict[str, tuple[str, int]] = {}  # model -> (host, port), the policy first
        self.manager: Any = None
        self.actors: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if ray.is_initialized():
            ray.shutdown()
        for server in reversed(self.servers):
            server.stop()
        local_ray.keep_logs(self.private, self.logs)

    def start(self, initial: str, checkpoint: Path | None, data_state: dict | None) -> None:
        """Starts everything.

        Engines take longest and are started first; Ray and the actors start meanwhile.

        Args:
            initial: the Hugging Face directory that training begins with.
            checkpoint: of the rollout to go on after, None for a new run.
            data_state: of the data source after that rollout.
        """
        self._set_environment()
        parts = 4 + self.args.rollout_num_gpus
        with StageBar("starting engines, Ray and actors", parts, "part") as bar:
            engines = self._start_engines()
            ray_head = local_ray.start(self.private, self.logs)
            self.servers.append(ray_head)
            local_ray.connect(self.private)
            bar.move_to(1)

            manager = ray.remote(RolloutManager).options(num_cpus=0, max_concurrency=2)
            self.manager = manager.remote(self.args)
            reading = self.manager.load.remote()
            if self.args.num_rollout is None:  # the learning rate's schedule needs it
                (prompts,) = self.wait([reading])
                per_epoch = prompts // self.args.rollout_batch_size
                self.args.num_rollout = self.args.num_epoch * per_epoch
            loading = self._start_actors(initial, checkpoint)
            self.wait([reading])
            if data_state is not None:
                restoring = self.manager.restore.remote(data_state)
                self.wait([restoring])
            bar.move_to(2)
            self.wait(loading)
            bar.move_to(3)

            everyone = ChainMap(*engines.values())
            for number, (url, engine) in enumerate(everyone.items(), 4):
                wait_healthy(url, engine)
                bar.move_to(number)
            self._start_routers(engines)
            policy = next(iter(engines))
            self.engine_urls = list(engines[policy])
            connecting = self.manager.connect.remote(self.engine_urls, self.routers)
            self.wait([connecting])

    def _set_environment(self) -> None:
        """For all processes that will be started."""
        python_path = [str(ROOT)]
        more = os.environ.get("PYTHONPATH")
        if more:
            python_path.append(more)
        os.environ |= {
            "PYTHONPATH": os.pathsep.join(python_path),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }

    def _start_engines(self) -> dict[str, Engines]:
        """The engines of each model by its name, the policy's first; they still load."""
        seeded = self.args.sglang_enable_deterministic_inference
        of_models = {}
        for model in engine_plan(self.args):
            engines = {}
            for _ in range(model.engines):
                port = free_port()
                engine = start_engine(model.folder, port, self.logs, seeded)
                self.servers.append(engine)
                url = f"http://{HOST}:{port}"
                engines[url] = engine
            of_models[model.name] = engines
        return of_models

    def _start_routers(self, of_models: dict[str, Engines]) -> None:
        """A router before the engines of each model, which are healthy."""
        chosen = self.args.sglang_router_port  # the policy's
        for name, engines in of_models.items():
            port = chosen or free_port()
            chosen = None
            router = start_router(engines, port, self.logs, self.args.router_policy)
            self.servers.append(router)
            self.routers[name] = (HOST, port)

    def _start_actors(self, initial: str, checkpoint: Path | None) -> list:
        """Starts the training actors; returns their pending calls that load the weights."""
        world_size = training_processes(self.args)
        store = str(self.private / "ranks")  # by which they find each other
        actor_class = ray.remote(TrainingActor).options(num_cpus=0)
        for rank in range(world_size):
            actor = actor_class.remote(self.args, rank, world_size, store)
            self.actors.append(actor)
        checkpoint_dir = str(checkpoint) if checkpoint else None
        return self._begin_calls("load", initial, checkpoint_dir)

    def _begin_calls(self, method: str, *arguments) -> list:
        """Pending calls of a method on every training actor."""
        return [actor.call.remote(method, *arguments) for actor in self.actors]

    def call_actors(self, method: str, *arguments) -> list:
        """Calls a method on every training actor; the results."""
        pending = self._begin_calls(method, *arguments)
        return self.wait(pending)

    def wait(self, references: list, poll: Callable[[], None] = lambda: None) -> list:
        """The results of Ray calls.

        Meanwhile it calls `poll` four times a second, and raises when a server has died.
        """
        pending = list(references)
        while pending:
            done, pending = ray.wait(pending, num_returns=1, timeout=0.25)
            for server in self.servers:
                server.check()
            ray.get(done)  # a failed call raises here, without waiting for the others
            poll()
        return ray.get(list(references))

    def sync(self, weight_version: int) -> None:
        """Loads the actors' weights into every engine, as `weight_version`."""
        folder = self.weights_directory
        self.call_actors("export_hf", str(folder))
        update_weights(self.engine_urls, folder, str(weight_version))

    def watch(self, reference, bar: StageBar, report: Callable[[dict], None]) -> Any:
        """The result of a rollout or evaluation.

        Meanwhile the bar moves, and `report` gets the progress.
        """
        query = self.manager.progress.remote()
        asked_at = time.monotonic()

        def poll() -> None:
            nonlocal query, asked_at
            answered, _ = ray.wait([query], timeout=0)
            waited = time.monotonic() - asked_at
            if waited < 0.2 or not answered:
                return
            progress: Any = ray.get(query)
            total = progress.get("total")
            if total:
                generated = progress["generated"]
                bar.move_to(progress["graded"], total, f"{generated} answered")
                report(progress)
            query = self.manager.progress.remote()
            asked_at = time.monotonic()

        (result,) = self.wait([reference], poll)
        return result

    def memory_gb(self) -> float:
        """Memory of this process and all its descendants in GB.

        Shared pages count once (proportional set size).
        """
        own = psutil.Process()
        total = 0
        for process in [own, *own.children(recursive=True)]:
            try:
                memory = process.memory_full_info()
                total += memory.pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e9
