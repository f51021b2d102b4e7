"""Answers of every quality to the tiny world's patients: what policy and grader first learn from.

GRPO pushes answers towards whatever the grader misjudges. So the answers that the grader learns to
grade include spliced, cut, repeated and contradictory text besides whole sentences.
"""

from collections.abc import Sequence
from random import Random

from rubric_rl.tiny.oracle import ADVICE, CONDITIONS, STATEMENTS, WISH, Statement, sentences
from rubric_rl.tiny.world import Pair, bad_statements, good_statements


def _all_words() -> list[str]:
    found = set()
    for statement in STATEMENTS:
        for text in sentences(statement):
            found |= {word.strip(".") for word in text.split()}
    return sorted(found)


_WORDS = _all_words()
_KEY_WORDS = list(ADVICE)
_OPPOSITE = {"do": "not", "not": "do", "is": "is", "wish": "wish"}


def say(rng: Random, statement: Statement) -> str:
    """One of the sentences that state it."""
    ways = sentences(statement)
    return rng.choice(ways)


def opposite(statement: Statement) -> Statement:
    """The advice turned round, "take" to "avoid" and back; other statements stay."""
    kind, key = statement
    return Statement(_OPPOSITE[kind], key)


def mediocre_answer(rng: Random, pair: Pair) -> str:
    """What the warm start teaches the policy to say.

    A cause, often wrong, and 3 to 5 pieces of advice, few of them apt.
    """
    cause = _cause(rng, pair, right_share=0.65)
    said: list[Statement] = []
    count = rng.randint(3, 5)
    for _ in range(count):
        kind = rng.random()
        pool: Sequence[Statement]
        if kind < 0.42:
            _, *pool = good_statements(pair)  # the cause is said already
        elif kind < 0.52:
            pool = bad_statements(pair)
        else:
            pool = STATEMENTS
        statement = rng.choice(pool)
        is_cause = statement.kind == "is"
        if not is_cause and statement not in said:
            said.append(statement)
    if rng.random() < 0.15:
        said.append(WISH)
    texts = [say(rng, statement) for statement in said]
    advice = " ".join(texts)
    return f"This sounds like {cause}. {advice}"


def _cause(rng: Random, pair: Pair, right_share: float) -> str:
    """The condition that an answer names: the right one in `right_share` of all answers, or any."""
    if rng.random() < right_share:
        return pair.condition
    conditions = list(CONDITIONS)
    return rng.choice(conditions)


def graded_answer(rng: Random, pair: Pair, difficulty: float = 1.0) -> str:
    """An answer for the grader to learn from, anything from good to garbled.

    With a `difficulty` of 1 it is as long as a rollout may get, and most damaged; 0 is the easiest.
    """
    said = _mixed_statements(rng, pair, difficulty)
    whole = [say(rng, statement) for statement in said]
    style = rng.random()
    if style < 0.4:
        damaged_share = 0.0
    elif style < 0.75:
        damaged_share = 0.25 * difficulty
    else:
        damaged_share = 0.6 * difficulty
    texts = []
    for text in whole:
        if rng.random() < damaged_share:
            other = rng.choice(whole)
            text = garbled(rng, text, other)
        texts.append(text)
    answer = " ".join(texts)
    if rng.random() < 0.12:  # cut off by the length limit
        longest = len(answer)
        length = rng.randint(longest // 2, longest)
        beginning = answer[:length].rstrip()
        return beginning or answer
    return answer


def _mixed_statements(rng: Random, pair: Pair, difficulty: float) -> list[Statement]:
    """1 to 9 statements, good, bad or unrelated; some are repeated, some contradict another."""
    said: list[Statement] = []
    more = round(7 * difficulty)
    most = 2 + more
    count = rng.randint(1, most)
    for _ in range(count):
        roll = rng.random()
        if roll < 0.12 and said:
            statement = rng.choice(said)
            is_repeated = rng.random() < 0.4
            said.append(statement if is_repeated else opposite(statement))
            continue
        pool: Sequence[Statement]
        if roll < 0.35:
            pool = good_statements(pair)
        elif roll < 0.5:
            pool = bad_statements(pair)
        else:
            pool = STATEMENTS
        statement = rng.choice(pool)
        said.append(statement)
    if rng.random() < 0.7:
        cause = _cause(rng, pair, right_share=0.5)
        statement = Statement("is", cause)
        said.insert(0, statement)
    return said


_DAMAGES = (
    "lose a word",
    "insert a word",
    "replace a word",
    "splice with the other",
    "swap two words",
    "run on into the next sentence",
    "end with a key word",
    "only loose words",
)


def garbled(rng: Random, text: str, other: str) -> str:
    """A damaged sentence; `other` is the one that it may be spliced with."""
    words = text.split()
    last = len(words) - 1
    place = rng.randrange(len(words))
    damage = rng.choice(_DAMAGES)
    if damage == "lose a word" and last > 0:
        del words[place]
    elif damage == "insert a word":
        inserted = rng.choice(_WORDS)
        words.insert(place, inserted)
    elif damage == "replace a word":
        replacement = rng.choice(_WORDS)
        words[place] = replacement
        if place == last:
            words[place] += "."
    elif damage == "splice with the other":
        length = max(1, place)
        beginning = words[:length]
        other_words = other.split()
        other_length = len(other_words)
        start = rng.randrange(other_length)
        words = beginning + other_words[start:]
    elif damage == "swap two words" and last > 0:
        place = rng.randrange(last)
        following = place + 1
        first = words[place].strip(".")
        second = words[following].strip(".")
        words[place] = second
        words[following] = first
        if following == last:
            words[last] += "."
    elif damage == "run on into the next sentence":
        end = words[last]
        words[last] = end.strip(".")
    elif damage == "end with a key word":
        key_word = rng.choice(_KEY_WORDS)
        words[last] = key_word + "."
    else:
        count = rng.randint(2, 6)
        end = words[last]
        words = rng.choices(_WORDS + _KEY_WORDS, k=count)
        words.append(end)
    return " ".join(words)
