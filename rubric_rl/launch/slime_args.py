"""Runs slime's own argument parser on a command line and says what it thinks of it, as one JSON line (all stages).

A program of its own, run with slime and Megatron on PYTHONPATH: slime drops unknown flags without a word and takes
abbreviations of some, so every flag is held against the options that its parsers really define.
"""

import argparse
import difflib
import json
import math
import os
import sys

from rubric_rl.launch.slime_flags import REMOVED


def problems(words: list[str], known: dict[str, float]) -> list[str]:
    """One line for each flag among `words` that no parser defines by exactly this name, and for each stray word.

    `known` says of every flag how many words it takes at most.
    """
    found, left = [], 0.0
    for word in words:
        flag, equals, _ = word.partition("=")
        if not flag.startswith("--"):
            left -= 1
            if left < 0:
                found.append(f"{word} belongs to no flag and is ignored; flags begin with --")
            continue
        left = known.get(flag, math.inf) - len(equals)
        if flag in known:
            continue
        longer = sorted(option for option in known if option.startswith(flag))
        near = difflib.get_close_matches(flag, known, n=1)
        if (name := flag.removeprefix("--")) in REMOVED or name.startswith("slime-router-"):
            instead = REMOVED.get(name, "the router is SGLang: --router-*")
            found.append(f"{flag} was removed from slime and is ignored; {instead}")
        elif longer:
            found.append(f"{flag} is an abbreviation; write {' or '.join(longer[:3])}")
        else:
            hint = f"; did you mean {near[0]}?" if near else ""
            found.append(f"{flag} is unknown to this slime, which would ignore it{hint}")
    return found


def most_words(action: argparse.Action) -> float:
    """How many words may follow a flag."""
    if isinstance(action.nargs, int):
        return action.nargs
    return {None: 1, "?": 1}.get(action.nargs, math.inf)


def pretend_gpu() -> None:
    """Lets the parsers run where there is no GPU (a login node, a test): they only ask for its generation."""
    import types

    import torch

    if not torch.cuda.is_available():
        properties = types.SimpleNamespace(major=9, minor=0, total_memory=80 << 30, name="none")
        torch.cuda.get_device_properties = lambda *args, **kwargs: properties
        torch.cuda.get_device_capability = lambda *args, **kwargs: (9, 0)


def main() -> int:
    """Parses sys.argv as slime's train.py would; prints {"unknown": [...], "error": "..."} as the last line.

    Raises ImportError where slime or what it needs is not installed: the command has then not been looked at.
    """
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    words, known, error = sys.argv[1:], {}, ""
    parse = argparse.ArgumentParser.parse_known_args

    def record(parser, *args, **kwargs):
        for flag, action in parser._option_string_actions.items():
            known[flag] = max(most_words(action), known.get(flag, 0))
        return parse(parser, *args, **kwargs)

    argparse.ArgumentParser.parse_known_args = record
    try:
        pretend_gpu()
        from slime.utils.arguments import parse_args

        parse_args()
    except SystemExit:  # argparse wrote its reason to stderr
        error = "the parser refuses a value; see above"
    except ImportError:
        raise
    except Exception as problem:  # slime checks with assertions, Megatron with all kinds
        error = f"{type(problem).__name__}: {problem}"
    whole = (
        "--num-layers" in known
    )  # the last parser is Megatron's: before it, most flags would look unknown
    print(
        "\n"
        + json.dumps(
            {"unknown": problems(words, known) if whole else [], "error": " ".join(error.split())}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
