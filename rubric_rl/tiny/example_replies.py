"""What to ask about an answer, and what a good grader replies: the grader's first lessons."""

import re
from random import Random

from rubric_rl.tiny.oracle import CONDITIONS, STATEMENTS, WISH, Statement, statements_of
from rubric_rl.tiny.world import Pair, bad_statements, good_statements

NOTHING = "nothing"  # the reason where an answer does not even touch on what is asked
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")


def key_words(statement: Statement) -> tuple[str, ...]:
    """The words that a sentence about it holds, one of them at least."""
    if statement == WISH:
        return ("hope", "wish")
    return (statement.key,)


def mentions(text: str, statement: Statement) -> bool:
    """Whether the text contains a key word of the statement, in any sense."""
    lower = text.lower()
    words = re.findall(r"\w+", lower)
    return any(key_word in words for key_word in key_words(statement))


def explanation(answer: str, statement: Statement) -> str:
    """The grader's reason: two words from the place that decides, e.g. "avoid aspirin", or NOTHING.

    They are the key word and the word before it. The place is the sentence that states it, or else
    the first one that mentions it.
    """
    place = _deciding_sentence(answer, statement)
    if place is None:
        return NOTHING
    words = place.split()
    is_key_word = [mentions(word, statement) for word in words]
    key = is_key_word.index(True)
    decisive = words[max(0, key - 1) : key + 1]
    return re.sub(r"[^\w ]", "", " ".join(decisive))


def _deciding_sentence(answer: str, statement: Statement) -> str | None:
    texts = _SENTENCE.findall(answer)
    for text in texts:
        if statement in statements_of(text):
            return text
    for text in texts:
        if mentions(text, statement):
            return text
    return None


def asked_statements(rng: Random, pair: Pair, answer: str, count: int) -> list[Statement]:
    """What to ask about an answer, `count` times.

    What is met; what is mentioned but not met, or contradicted; and what rubrics usually ask.
    """
    stated = set(statements_of(answer))
    mentioned = []
    for statement in STATEMENTS:
        if statement in stated:
            continue
        if mentions(answer, statement):
            mentioned.append(statement)
    names = list(CONDITIONS)
    any_name = rng.choice(names)
    any_cause = Statement("is", any_name)
    usual = good_statements(pair)
    usual += bad_statements(pair)
    usual += [any_cause, WISH]
    pools: list[list[Statement]] = []
    weights: list[float] = []
    if stated:
        pools.append(sorted(stated))
        weights.append(0.4)
    if mentioned:
        pools.append(mentioned)
        weights.append(0.27)
    pools.append(usual)
    weights.append(0.33)
    chosen = rng.choices(pools, weights, k=count)
    return [rng.choice(pool) for pool in chosen]
