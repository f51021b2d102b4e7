"""Answers of every quality to the world's patients, and what a good grader says of them (stages 2 and 3).

GRPO pushes answers towards whatever the grader misjudges, so the graded ones include spliced, cut, repeated and
contradictory text besides whole sentences.
"""

import random
import re

from rubric_rl.tiny.knowledge import ADVICE, CONDITIONS, STATEMENTS, Statement, sentences
from rubric_rl.tiny.oracle import statements
from rubric_rl.tiny.world import Pair, bad_statements, good_statements

NOTHING = "nothing"
_CHUNK = re.compile(r"[^.!?]+[.!?]*")
_WORDS = sorted(
    {word.strip(".") for s in STATEMENTS for text in sentences(s) for word in text.split()}
)


def say(rng: random.Random, statement: Statement) -> str:
    """One of the sentences that state it."""
    return rng.choice(sentences(statement))


def mediocre_answer(rng: random.Random, pair: Pair) -> str:
    """What the warm start teaches the policy to say: a cause, often wrong, and 3 to 5 pieces of advice, few apt."""
    cause = pair[0] if rng.random() < 0.65 else rng.choice(list(CONDITIONS))
    said = [("is", cause)]
    for _ in range(rng.randint(3, 5)):
        kind = rng.random()
        pool = (
            good_statements(pair)[1:]
            if kind < 0.42
            else bad_statements(pair)
            if kind < 0.52
            else STATEMENTS
        )
        statement = rng.choice(pool)
        if statement[0] != "is" and statement not in said:
            said.append(statement)
    if rng.random() < 0.15:
        said.append(("wish", "well"))
    return f"This sounds like {cause}. " + " ".join(say(rng, s) for s in said[1:])


def graded_answer(rng: random.Random, pair: Pair, difficulty: float = 1.0) -> str:
    """An answer for the grader to learn from: from good to garbled, as long as a rollout may get at `difficulty` 1."""
    said = []
    for _ in range(rng.randint(1, 2 + round(7 * difficulty))):
        roll = rng.random()
        if roll < 0.12 and said:  # repeated, or contradicted
            kind, key = rng.choice(said)
            opposite = {"do": "not", "not": "do"}.get(kind, kind)
            said.append((kind if rng.random() < 0.4 else opposite, key))
        else:
            pool = (
                good_statements(pair)
                if roll < 0.35
                else bad_statements(pair)
                if roll < 0.5
                else STATEMENTS
            )
            said.append(rng.choice(pool))
    if rng.random() < 0.7:
        said.insert(0, ("is", pair[0] if rng.random() < 0.5 else rng.choice(list(CONDITIONS))))
    texts = [say(rng, s) for s in said]
    style = rng.random()
    rate = difficulty * (0.0 if style < 0.4 else 0.25 if style < 0.75 else 0.6)
    texts = [
        garbled(rng, text, rng.choice(texts)) if rng.random() < rate else text for text in texts
    ]
    answer = " ".join(texts)
    if rng.random() < 0.12:  # cut off by the length limit
        answer = answer[: rng.randint(len(answer) // 2, len(answer))].rstrip() or answer
    return answer


def garbled(rng: random.Random, text: str, other: str) -> str:
    """A damaged sentence: words lost, doubled, swapped, foreign, or the halves of two sentences spliced."""
    words, more = text.split(), other.split()
    place = rng.randrange(len(words))
    damage = rng.randrange(8)
    if damage == 0 and len(words) > 1:
        del words[place]
    elif damage == 1:
        words.insert(place, rng.choice(_WORDS))
    elif damage == 2:
        words[place] = rng.choice(_WORDS) + ("." if place == len(words) - 1 else "")
    elif damage == 3:
        words = words[: max(1, place)] + more[rng.randrange(len(more)) :]
    elif damage == 4 and len(words) > 1:
        place = rng.randrange(len(words) - 1)
        first, second = words[place].strip("."), words[place + 1].strip(".")
        words[place : place + 2] = (second, first + ("." if place == len(words) - 2 else ""))
    elif damage == 5:
        words[-1] = words[-1].strip(".")  # runs on into the next sentence
    elif damage == 6:  # a sentence of key words, or another phrase's key word
        words[-1] = rng.choice(list(ADVICE)) + "."
    else:
        words = rng.choices(_WORDS + list(ADVICE), k=rng.randint(2, 6)) + [words[-1]]
    return " ".join(words)


def key_words(statement: Statement) -> tuple[str, ...]:
    """The words that a sentence about it holds."""
    return ("hope", "wish") if statement[0] == "wish" else (statement[1],)


def mentions(text: str, statement: Statement) -> bool:
    """Whether the text contains a key word of the statement, in any sense."""
    return not set(key_words(statement)).isdisjoint(re.findall(r"\w+", text.lower()))


def explanation(answer: str, statement: Statement) -> str:
    """The grader's reason: the key word in the place that decides, with the word before it; or that there is none."""
    chunks = [chunk.split() for chunk in _CHUNK.findall(answer)]
    place = next((c for c in chunks if statement in statements(" ".join(c))), None)
    place = place or next((c for c in chunks if mentions(" ".join(c), statement)), None)
    if place is None:
        return NOTHING
    at = next(i for i, word in enumerate(place) if mentions(word, statement))
    return re.sub(r"[^\w ]", "", " ".join(place[max(0, at - 1) : at + 1]))


def asked_statements(rng: random.Random, pair: Pair, answer: str, count: int) -> list[Statement]:
    """What to ask of an answer: what is met, what is mentioned but not met (or contradicted), and what rubrics ask."""
    stated = sorted(set(statements(answer)))
    near = [s for s in STATEMENTS if mentions(answer, s) and s not in stated]
    usual = (
        good_statements(pair)
        + bad_statements(pair)
        + [("is", rng.choice(list(CONDITIONS))), ("wish", "well")]
    )
    pools = [
        (pool, weight) for pool, weight in ((stated, 0.4), (near, 0.27), (usual, 0.33)) if pool
    ]
    chosen = rng.choices([pool for pool, _ in pools], [weight for _, weight in pools], k=count)
    return [rng.choice(pool) for pool in chosen]
