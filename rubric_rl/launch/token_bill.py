"""The tokens of a step's grading, by mode, and what an anchor adds to them; by arithmetic."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from rubric_rl.launch.slime_flags import CommandLine

# Tokens that are decoded for a verdict; with thoughts: --verdict-tokens. Of a cascade's criteria a
# tenth is assumed to be asked again, without thoughts.
DECODED = {"direct": 1, "cascade": 4, "explain": 30}


def prefilled_tokens(
    prompts: float, group: int, criteria: float, assumed: argparse.Namespace
) -> float:
    """Tokens of a step's grading that no cache holds yet.

    The instructions and a prompt are prefilled once for its whole group, where that meets one
    engine; an answer once for all its criteria, a criterion each time.
    """
    per_prompt = assumed.instruction_tokens + assumed.prompt_tokens
    per_answer = assumed.answer_tokens + criteria * assumed.criterion_tokens
    return prompts * (per_prompt + group * per_answer)


@dataclass(frozen=True)
class GradedAnswers:
    """How many answers a grader has in a step, on average."""

    prompts: float  # of training
    group: int  # answers to each of them
    evaluated: float  # answers of evaluations, one to a prompt

    @property
    def count(self) -> float:
        """All of them."""
        return self.prompts * self.group + self.evaluated

    def tokens(self, per_verdict: float, assumed: argparse.Namespace) -> float:
        """Prefilled and decoded tokens, with so many decoded per verdict."""
        criteria = assumed.criteria
        prefilled = prefilled_tokens(self.prompts, self.group, criteria, assumed)
        prefilled += prefilled_tokens(self.evaluated, 1, criteria, assumed)
        return prefilled + self.count * criteria * per_verdict


def bill_lines(flags: CommandLine, assumed: argparse.Namespace, evaluations: float) -> list[str]:
    """The bill, one line a figure; `evaluations`: how many there are per rollout."""
    prompts = flags.whole("rollout-batch-size", 1)
    group = flags.whole("n-samples-per-prompt", 1)
    decoded = DECODED | {"thoughts": assumed.verdict_tokens}
    verdicts = prompts * group * assumed.criteria
    prefilled = prefilled_tokens(prompts, group, assumed.criteria, assumed)
    fewer = assumed.ending_tokens
    in_reply = prefilled - verdicts * fewer
    lines = [
        f"  grading step  prefill {prefilled:12,.0f} tokens, whatever the mode",
        f"  grading step  prefill {in_reply:12,.0f} tokens, direct with grader_criterion_in_reply"
        f" = {fewer} a verdict fewer",
    ]
    for mode, tokens in decoded.items():
        total = verdicts * tokens
        derivation = f"{verdicts:,.0f} verdicts x {tokens}"
        lines.append(f"  grading step  {mode:8}{total:12,.0f} tokens decoded = {derivation}")
    return lines + _anchor_lines(prompts, group, evaluations, decoded, assumed)


def _anchor_lines(
    prompts: int,
    group: int,
    evaluations: float,
    decoded: Mapping[str, float],
    assumed: argparse.Namespace,
) -> list[str]:
    """What an anchor costs of each mode, and how much that is beside a policy of each mode."""
    evaluated = evaluations * assumed.eval_answers
    policys = GradedAnswers(prompts, group, evaluated)
    anchors = GradedAnswers(assumed.anchor_share * prompts, group, evaluated)
    counts = f"{anchors.count:.1f} of {policys.count:.1f} answers a step"
    lines = [f"  an anchor     {counts}, {evaluated:.1f} of them in evaluations"]
    for mode, per_verdict in decoded.items():
        tokens = anchors.tokens(per_verdict, assumed)
        shares = []
        for policys_mode, policys_per_verdict in decoded.items():
            share = tokens / policys.tokens(policys_per_verdict, assumed)
            shares.append(f"{share:.1%} of {policys_mode}")
        lines.append(f"  an anchor     {mode:8}{tokens:12,.0f} tokens = {', '.join(shares)}")
    return lines
