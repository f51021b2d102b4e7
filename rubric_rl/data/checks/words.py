"""The words by which polarity.py tells a virtue from a fault. Verbs stand in their base form."""

from typing import NamedTuple

# Kind and Object are no enums: a million criteria ask for them thirty times each, and there
# Python takes five times as long to find a member.


class Kind:
    """What a word does to the meaning of those after it."""

    SKIPPED = "skipped"  # articles, auxiliaries, "the response"
    NOT = "not"
    MODAL = "modal"  # should, must: what follows is demanded
    HEDGE = "hedge"  # perhaps, partially: the wording takes no side
    FAIL = "fail"  # fails to, ignores: bad
    OMIT = "omit"  # omits, lacks: bad, unless what is left out is a fault
    AVOID = "avoid"  # avoids, refrains from: good if that is a fault, bad if it is a virtue
    REFUSE = "refuse"  # refuses: good if that is a fault, else it depends
    WELL = "well"  # correctly, accurate, concise
    ILL = "ill"  # incorrectly, misleading
    VIRTUE = "virtue"  # empathy
    FAULT = "fault"  # jargon, errors
    STOP = "stop"  # that, about, of: what follows is the topic, no property of the answer
    VERB = "verb"  # says or does something


class Object:
    """What the object of a verb is to the answer, or which one makes its verdict plain."""

    TOPIC = "topic"  # explains errors: the word for a fault says nothing about the answer
    CLAUSE = "clause"  # does not mention that: a fault, but not to mention somebody may be none
    ADVICE = "advice"  # recommends a dangerous dose, but also complete rest: only faults count
    PART = "part"  # contains errors, gives a clear summary
    LOOK = "look"  # sounds rude, makes clear
    GIVEN = "given"  # gives false advice; but it may show an error, as a program does
    HEEDED = "heeded"  # follows the requested format, but not the injected instruction
    SAID = "said"  # invents facts, but also a name for the hero
    NONE = "none"  # the code crashes, but also the car in a story


class Word(NamedTuple):
    """`sign`: 1 for a virtue, -1 for a fault, else 0. `negated`: the sign with not before it."""

    kind: str
    sign: int = 0
    negated: int = 0
    object: str = Object.TOPIC


WORDS: dict[str, Word] = {}


def _add(word: Word, texts: str, verbs: bool = False) -> None:
    """A text that is there already keeps its word."""
    for text in texts.split():
        for form in _forms(text) if verbs else [text]:
            WORDS.setdefault(form, word)


def _words(texts: str) -> frozenset[str]:
    return frozenset(texts.split())


def _forms(verb: str) -> list[str]:
    """Base form, third person, past and gerund of a regular verb, and some forms of no verb."""
    stem = verb if verb.endswith("ee") else verb.removesuffix("e")
    doubled = verb + verb[-1]
    forms = [verb, verb + "s", stem + "ed", stem + "ing", doubled + "ed", doubled + "ing"]
    if verb.endswith(("s", "x", "z", "ch", "sh")):
        forms.append(verb + "es")
    if verb.endswith("y"):
        forms += [verb[:-1] + "ies", verb[:-1] + "ied"]
    return forms


_add(
    Word(Kind.SKIPPED),
    "the a an its it this these any all each every also does do did is are be been being was were "
    "will would can has have had to there and then both very more most fully "
    "response responses answer reply completion assistant model output chatbot ai text "
    "essay solution final",
)
_add(Word(Kind.NOT), "not never no none nor cannot neither nothing nobody")
_add(Word(Kind.MODAL), "should must shall needs need ought")
_add(
    Word(Kind.HEDGE),
    "may might could perhaps possibly partially partly somewhat sometimes occasionally arguably "
    "either largely mostly generally",
)
_add(Word(Kind.FAIL), "forget overlook", verbs=True)
_add(Word(Kind.FAIL, object=Object.HEEDED), "fail neglect ignore miss disregard", verbs=True)
_add(Word(Kind.OMIT), "omit lack", verbs=True)
_add(Word(Kind.OMIT, object=Object.HEEDED), "skip exclude", verbs=True)
_add(Word(Kind.OMIT), "absence omission")
_add(Word(Kind.AVOID), "avoid refrain abstain resist", verbs=True)
_add(Word(Kind.REFUSE), "refuse decline", verbs=True)
_add(
    Word(Kind.STOP),
    "that about of on for whether how why when where which who if because as by than from in with "
    "without but or at between regarding concerning into during since until after before while",
)

# Properties of an answer. Before the verbs: "correct" is one more often than a command.
_add(
    Word(Kind.WELL, 1, -1),
    "correctly accurately clearly appropriately properly concisely safely empathetically "
    "honestly respectfully faithfully logically coherently "
    "adequately sufficiently responsibly rightly "
    "correct accurate clear appropriate proper concise safe empathetic careful honest respectful "
    "faithful thorough logical coherent effective adequate sufficient precise relevant "
    "complete rigorous helpful useful balanced credible reliable warm supportive "
    "compassionate polite professional non-judgmental nonjudgmental "
    "well well-organized well-organised well-structured organized organised readable "
    "understandable plain factual succinct unbiased impartial evidence-based actionable "
    "trustworthy reasonable "
    "up-to-date valid sound friendly",
)
_add(
    Word(Kind.ILL, -1, 1),
    "incorrectly inaccurately wrongly falsely erroneously inappropriately unnecessarily "
    "prematurely overly excessively misleadingly unsafely dangerously improperly vaguely "
    "recklessly poorly unfaithfully mistakenly needlessly inadequately carelessly unclearly too "
    "incorrect inaccurate wrong false erroneous inappropriate unnecessary premature excessive "
    "misleading unsafe dangerous improper vague reckless harmful irrelevant unrelated outdated "
    "contradictory inconsistent incomplete unclear confusing ambiguous alarmist judgmental "
    "judgemental condescending patronizing patronising dismissive rude impersonal "
    "biased offensive unsupported unsubstantiated unverified unfounded speculative unexplained "
    "redundant repetitive verbose wordy fabricated hallucinated nonexistent non-existent "
    "insensitive hostile preachy robotic illogical incoherent disorganized disorganised "
    "unhelpful insufficient contraindicated unproven",
)
_add(Word(Kind.VIRTUE, 1, -1), "empathy compassion")
_add(
    Word(Kind.FAULT, -1, 1),
    "verbosity conjecture hallucinations falsehoods "
    "error errors mistake mistakes typo typos jargon contradiction contradictions exaggeration "
    "speculation alarmism stereotypes stereotype repetition self-harm misinformation gap gaps "
    "fluff filler bias",
)

_add(
    Word(Kind.VERB, object=Object.GIVEN),
    "provide give offer present show express demonstrate deliver",
    verbs=True,
)
_add(Word(Kind.VERB, object=Object.GIVEN), "gave given")
_add(
    Word(Kind.VERB, negated=-1, object=Object.CLAUSE),
    "mention discuss identify specify note inquire ask seek highlight emphasize emphasise "
    "define outline inform convey remind recognize recognise respond",
    verbs=True,
)
_add(
    Word(Kind.VERB, negated=-1),
    "explain address distinguish differentiate consider support justify quantify caution warn "
    "elaborate compare verify account",
    verbs=True,
)
# What an answer owes: to give none is a fault.
OWED = _words(
    "discussion explanation explanations citation citations evidence attempt justification "
    "context sources"
)
_add(Word(Kind.VERB, negated=-1), " ".join(sorted(OWED)))
_add(
    Word(Kind.VERB, object=Object.PART),
    "include use contain maintain adopt rely arrive reach employ produce add",
    verbs=True,
)
_add(
    Word(Kind.VERB, object=Object.LOOK),
    "make keep sound seem feel appear remain write communicate speak",
    verbs=True,
)
_add(Word(Kind.VERB, object=Object.LOOK), "made written kept")
_add(
    Word(Kind.VERB, object=Object.ADVICE),
    "recommend suggest advise prescribe propose encourage tell",
    verbs=True,
)
_add(
    Word(Kind.VERB, object=Object.CLAUSE),
    "state describe list cite name report calculate",
    verbs=True,
)
_add(
    Word(Kind.VERB, negated=1),
    "claim assume imply assert promise speculate presume insist equate",
    verbs=True,
)
_add(Word(Kind.VERB, 1, -1), "correct clarify empathize empathise succeed", verbs=True)
_add(Word(Kind.VERB, 1, -1, Object.NONE), "compile", verbs=True)
_add(Word(Kind.VERB, -1, 1, Object.NONE), "crash", verbs=True)
_add(
    Word(Kind.VERB, 1, -1, Object.HEEDED),
    "acknowledge respect ensure adhere follow comply fulfil fulfill satisfy prioritize prioritise "
    "pass honor honour validate",
    verbs=True,
)
_add(
    Word(Kind.VERB, -1, 1, Object.HEEDED),
    "contradict dismiss exceed deviate stray diverge overwhelm shame blame insult mock ridicule "
    "belittle patronize alarm scare pressure",
    verbs=True,
)
_add(Word(Kind.VERB, -1, 1, Object.SAID), "invent guarantee jump", verbs=True)
_add(
    Word(Kind.VERB, -1, 1),
    "mislead fabricate hallucinate confuse conflate misstate misrepresent "
    "misinterpret misunderstand misread misidentify misattribute misclassify misquote "
    "mischaracterize downplay trivialize overstate understate exaggerate stigmatize violate "
    "ramble overcomplicate oversimplify overgeneralize plagiarize misuse miscalculate endanger",
    verbs=True,
)

# What an answer owes to heed, by the first word that tells of it.
HEEDED = _words(
    "requested specified required stated format formatting schema structure outline constraint "
    "constraints limit limits length budget tone style question questions need needs preference "
    "preferences safety privacy autonomy uncertainty limitation limitations feelings concern "
    "concerns emotions allergy allergies tests harmless itself themselves "
    "user patient reader client"
)
# What an answer consists of: a word for a virtue or a fault before it is about the answer.
SAID = _words(
    "information detail details content tone language style wording phrasing structure advice "
    "claim claims statement statements assertion assertions answer answers response responses "
    "summary explanation explanations reasoning conclusion conclusions assumption assumptions "
    "source sources citation citations reference references evidence fact facts term terms "
    "terminology formula formulas equation equations unit units "
    "acronym acronyms dose doses dosing dosage diagnosis recommendation recommendations suggestion "
    "suggestions reassurance view uncertainty outcome request requests question questions "
    "test tests treatment treatments"
)
# However well they are given, it depends on what they are for.
GUIDES = _words(
    "instruction instructions guide guidance steps recipe tutorial walkthrough tips plan"
)
HARMS = _words(
    "self-harm suicide malware ransomware phishing bomb bombs weapon weapons explosive explosives "
    "poison hacking"
)
# Without one of these a sentence speaks neither for an answer nor against it.
DECIDING = HARMS | {"as", "without"}
DECIDING |= {
    text
    for text, word in WORDS.items()
    if word.sign or word.kind not in (Kind.SKIPPED, Kind.STOP, Kind.VERB)
}
# One of these is in each phrase of polarity.py without an apostrophe or a hyphen, the rarest word.
PHRASE_WORDS = _words(
    "only just merely simply than out free within hard difficult steer steers steering "
    "stay stays staying way manner tone style easy easier easily "
    "missing failure failures factual logical"
)
TELLING = DECIDING | PHRASE_WORDS
