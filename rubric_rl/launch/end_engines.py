"""Ends the engines that slime 0.4 keeps in a Ray cluster after a job that failed.

    python -m rubric_rl.launch.end_engines --save SAVE_PATH      as a job of that cluster

slime keeps them in two detached actors, the rollout manager and its ServingCluster, whose names
follow from the run's folder; the next start of the same command takes them over.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.plain_text import one_line

NAMESPACE = "slime-training-recovery"  # slime/ray/training_recovery.py
SECONDS = 120  # for engines and routers to end in order


def session_name(identity: str) -> str:
    """slime's name of the rollout manager; the ServingCluster's has ":serving" behind it."""
    digest = hashlib.sha256(identity.encode())
    return "rollout:" + digest.hexdigest()


def end_engines(ray: Any, save: Path) -> list[str]:
    """Ends the actors of the run in `save`; returns their names.

    `ray` is the module, connected. Raises UserError when the cluster holds none of this run.
    """
    folder = save.expanduser().resolve()
    manager = session_name(str(folder))
    actors = ray.util.list_named_actors(all_namespaces=True)
    kept = [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]
    to_end = [name for name in (manager, f"{manager}:serving") if name in kept]
    if not to_end:
        others = [name for name in kept if name.startswith("rollout:")]
        hint = "give the --save of the failed run"
        raise UserError(f"{save}: no engines of this run, {len(others)} actors of others; {hint}")
    for name in to_end:
        handle = ray.get_actor(name, namespace=NAMESPACE)
        if name.endswith(":serving"):
            # In order, where it still can: placements and routers go too.
            try:
                ray.get(handle.dispose.remote(), timeout=SECONDS)
            except Exception as error:  # whatever ended the run may have ended parts of this
                reason = one_line(str(error), 200)
                print(f"note: {name} did not end in order ({reason})", file=sys.stderr)
        ray.kill(handle, no_restart=True)
    return to_end


def main() -> int:
    """Prints what was ended; returns the exit status."""
    parser = CommandParser("python -m rubric_rl.launch.end_engines", __doc__)
    parser.add_argument("--save", type=Path, required=True, help="SAVE_PATH of the failed run")
    return exit_status(lambda: _end(parser.parse_args()))


def _end(args: argparse.Namespace) -> int:
    try:
        import ray
    except ImportError as error:
        raise UserError(f"this Python has no Ray ({error}); use slime's interpreter") from None
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        hint = "run this as a job of the cluster: ray job submit"
        raise UserError(f"no Ray can be reached from here; {hint}") from None
    print("ended:", *end_engines(ray, args.save))
    return 0


if __name__ == "__main__":
    sys.exit(main())
