"""Serves a model on the CPU, for peek, evaluate and meta_eval.

python -m rubric_rl.cpu.serve --model rubric_rl/tiny/model --port 30000      until Ctrl-C
"""

import argparse
import signal
import sys
import tempfile
import time

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.cpu.engine import HOST, start_engine, wait_healthy


def main(argv: list[str] | None = None) -> int:
    """Runs one engine until a signal. Exit status: 0 after Ctrl-C or SIGTERM, 2 for an error."""
    parser = CommandParser("python -m rubric_rl.cpu.serve", __doc__)
    add = parser.add_argument
    default = "(default: %(default)s)"
    add("--model", default="rubric_rl/tiny/model", help=f"Hugging Face folder {default}")
    add("--port", type=int, default=30000, help=f"port on the loopback address {default}")
    add("--log-dir", default=tempfile.gettempdir(), help=f"of the engine's log {default}")
    return exit_status(lambda: _serve(parser.parse_args(argv)))


def _serve(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    engine = None
    try:
        engine = start_engine(args.model, args.port, args.log_dir)
        print(f"starting, log in {engine.log} ...", flush=True)
        url = f"http://{HOST}:{args.port}"
        seconds = wait_healthy(url, engine)
        print(f"ready after {seconds:.0f} s: {url}; Ctrl-C ends it", flush=True)
        while True:
            engine.check()
            time.sleep(1)
    except KeyboardInterrupt:
        return 0
    finally:
        if engine:
            engine.stop()


if __name__ == "__main__":
    sys.exit(main())
