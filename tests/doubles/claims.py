"""Made-up results of runs, for the tables of experiments/."""

from experiments.results import Result

PROMPTS = ("a", "b", "c", "d")


def result(true: float, start: float = 0.2, **figures: float) -> Result:
    """A run whose held-out true score rises from `start` to `true` at every prompt."""
    known = {"true": true, "self": true, "accuracy": 0.9, "false_positives": 0.1, "length": 30.0}
    known |= figures
    evaluations = [{"kind": "evaluation", "weight_version": 0} | known | {"true": start}]
    for version in (12, 24, 36):
        evaluations.append({"kind": "evaluation", "weight_version": version} | known)
    return Result(
        [
            {"kind": "run", "arm": "self", "seed": 1, "rollouts": 36},
            *evaluations,
            {"kind": "prompts", "true": dict.fromkeys(PROMPTS, true)},
            {"kind": "probe", "ordinary": 0.95, "hostile": 0.93},
            {
                "kind": "training",
                "step_seconds": [9.0, 5.0, 6.0],
                "reward_seconds": [4.0, 2.0, 3.0],
                "prefilled": [100, 110, 120],
                "decoded": [1, None, 3],
            },
        ]
    )
