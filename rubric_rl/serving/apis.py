"""The two kinds of endpoint: how a question becomes a request, and what comes back a reply.

Each has a `body(question)` and a `reply(question, payload)`, which raises Retryable when the
engine ended the request, and Unavailable where no retry can help.
"""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from rubric_rl.common.errors import UserError
from rubric_rl.common.tokenizer import THINK, THINK_END, THOUGHTS, ChatTokenizer, after_thoughts
from rubric_rl.serving.endpoint import GRADER, Endpoint
from rubric_rl.serving.payload import (
    count_of,
    is_complete,
    is_refusal,
    raise_error_in,
    text_of,
)
from rubric_rl.serving.question import Question, Refused, Reply, Retryable, Unavailable
from rubric_rl.serving.verdict_text import until_verdicts
from rubric_rl.serving.wire import encoded

CHOICES = (" true", " false")  # the two tokens after an opening, ...
CLOSE = ("true", "false")  # ... and as some write them: summed, if they are tokens too
LISTED = 20  # so many of the likeliest tokens come with their probabilities; others count as 0
MIN_MASS = 0.1  # below this probability of the two together, their shares say nothing
LEAST_SUM = 1e-6  # of the likeliest tokens: even a model without any idea of them gives more
MOST_MASS = 1.01  # what is above 1 by more than rounding is no probability
_SPACES = "\u0120\u2581"  # what vocabularies write for a space
_OF_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")
# How SGLang names the reply to one of our requests, and those to a list. Not those that it names
# itself, with 32 digits alone: some server between us may leave out our name.
_NAMED = re.compile("rubric-[0-9a-f]{32}|(?:rubric-)?[0-9a-f]{32}_.*")
_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
)


class SGLang:
    """SGLang's /generate: the chat template is applied here, tokens are known by their ids."""

    takes_lists = True  # of questions in one request
    reads_ahead = True  # a prompt can be cached without a reply

    def __init__(self, endpoint: Endpoint, tokenizer: str, prefix: str = GRADER):
        self._endpoint = endpoint
        self._template = ChatTokenizer(endpoint.tokenizer or tokenizer)
        self._prefix = prefix
        # Some templates open the thoughts themselves.
        self._thought = self._opened_thoughts(endpoint.thinking)
        if not endpoint.thinking:
            self.check_thoughtless(f"set {prefix}thinking true")
        self.switch: dict = {}  # see OpenAI; here the template is told
        self.thoughts_seen = False
        # Token id -> met; looked up when first needed: not every model has them.
        self._choice_ids: dict[int, bool] = {}

    def break_up(self, text: str) -> str:
        """The text without any special token of the model's tokenizer, such as <|im_end|>."""
        return self._template.break_up(text)

    def usual_thoughts(self, response: str, prompt: str = "") -> str:
        """See ChatTokenizer."""
        return self._template.usual_thoughts(response, prompt)

    def _header(self, thinking: bool) -> str:
        """What the chat template writes before a reply."""
        rendered = self._template.render([{"role": "user", "content": "Hello"}], thinking)
        return rendered.rpartition("Hello")[2]

    def check_thoughtless(self, hint: str) -> None:
        """Raises UserError for a template that cannot be kept from thoughts before a reply.

        Those that open with `<think>` are closed (ChatTokenizer.render).
        """
        if opening := self._opened_thoughts(thinking=False):
            what = f"its chat template opens the thoughts by itself ({opening})"
            raise UserError(f"{self._prefix}tokenizer: {what}; {hint}")

    def _opened_thoughts(self, thinking: bool) -> str:
        """How the chat template opens thoughts before a reply; "" where it does not."""
        header = self._header(thinking)
        for opening, closing in THOUGHTS:
            if header.rfind(opening) > header.rfind(closing):
                return opening
        return ""

    def check_choices(self) -> None:
        """Raises UserError for a tokenizer to which a verdict is more than one token."""
        if self._choice_ids:
            return
        ids = [self._template.token_id(text) for text in CHOICES]
        with suppress(UserError):
            ids += [self._template.token_id(text) for text in CLOSE]
        self._choice_ids = dict(zip(ids, (True, False, True, False), strict=False))

    def check(self, messages: list[dict]) -> None:
        """Raises UserError when the chat template refuses this conversation."""
        self._template.render(messages, self._endpoint.thinking)

    def body(self, *questions: Question) -> dict:
        """The request for one question, or for several that differ in what is asked and seed alone.

        Those read for a token go as token ids, which the engine schedules all at once. Others go as
        texts: it schedules them one by one, but we need not encode them. Ids also where the
        engine's tokenizer would add tokens of its own.
        """
        first = questions[0]
        conversations = [question.messages for question in questions]
        thinking = self._endpoint.thinking and not first.thoughtless
        try:
            rendered = self._template.render_alike(conversations, thinking)
        except UserError as error:  # this conversation; others can be asked
            raise Refused(str(error)) from None
        pairs = zip(rendered, questions, strict=True)
        texts = [text + question.opening for text, question in pairs]
        as_ids = self._template.adds_tokens or (first.opening and len(questions) > 1)
        prompts = self._template.encode_alike(texts) if as_ids else texts
        field = "input_ids" if as_ids else "text"
        wanted = self._wanted(first)
        name = f"rubric-{uuid4().hex}"
        if len(questions) == 1:
            return {field: prompts[0], **wanted, "rid": name}
        sampling = wanted["sampling_params"]
        seeds = [question.seed for question in questions]
        if "sampling_seed" in sampling and len(set(seeds)) > 1:  # votes have a seed each
            wanted["sampling_params"] = [sampling | {"sampling_seed": seed} for seed in seeds]
        return {field: prompts, **wanted, "rid": name}

    def _wanted(self, question: Question) -> dict:
        """What the request says besides the prompt."""
        endpoint = self._endpoint
        if question.only_read:
            return {"sampling_params": {"max_new_tokens": 0, "temperature": 1.0}}
        if question.opening:
            self.check_choices()
            return {
                # Read at temperature 1: what is sampled does not matter.
                "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
                "return_logprob": True,
                # Not token_ids_logprob, which names the two: a request without it in the same batch
                # ends SGLang 0.5.10 to 0.5.20; slime's image has 0.5.15 (sglang issue 34719).
                "top_logprobs_num": LISTED,
            }
        sampling = {
            "temperature": endpoint.temperature,
            "top_p": endpoint.top_p,
            "top_k": endpoint.top_k,
            "max_new_tokens": endpoint.max_tokens,
            "sampling_seed": question.seed,
        }
        if self._template.hides_thoughts:
            # The marks of thoughts would be left out: a verdict in them could pass for the reply's.
            sampling["skip_special_tokens"] = False
        if question.schema and not endpoint.thinking:  # a schema would forbid the thoughts
            sampling["json_schema"] = encoded(question.schema).decode()
        return {"sampling_params": sampling}

    def continuations(self, question: Question, reply: Reply, opening: str) -> list[Question]:
        """Ask for the verdict's token at the end of that very reply.

        A reply that gives its verdict is read up to it, as often as it does; any other is continued
        with `opening`, its thoughts closed. None where a verdict is more than one token.
        """
        try:
            self.check_choices()
        except UserError:
            return []
        written = reply.text.encode(errors="replace").decode()  # without lone surrogates
        before = until_verdicts(written) if reply.complete else []
        openings = [self._as_written(text) for text in before]
        openings = openings or [f"{self._as_written(written)}\n{opening}"]
        return [replace(question, opening=text) for text in openings]

    def _as_written(self, reply: str) -> str:
        """What the model wrote as text to go on from, its thoughts closed.

        It ends no turn when it is read again: its letters may form a special token.
        """
        opens, closes = next((pair for pair in THOUGHTS if reply.startswith(pair[0])), THOUGHTS[0])
        thoughts, closing, rest = reply.rpartition(closes)
        opened = opens if reply.startswith(opens) else ""
        if opened and not closing:
            thoughts, closing, rest = rest, f"\n{closes}", ""
        thoughts = self.break_up(thoughts.removeprefix(opened))
        return f"{opened}{thoughts}{closing}{self.break_up(rest)}".removeprefix(self._thought)

    def reply(self, question: Question, payload: Any) -> Reply:
        raise_error_in(payload)
        meta, probability, mass = payload["meta_info"], None, None
        ending = meta["finish_reason"]
        if ending is None:
            raise Retryable("ended by the engine without a reason")
        complete = is_complete(ending, payload["text"])
        if question.opening:
            probability, mass = self._share_and_mass(meta["output_top_logprobs"][0])
        return Reply(
            text=self._thought + payload["text"],
            complete=complete,
            probability=probability,
            prompt_tokens=count_of(meta.get("prompt_tokens")),
            cached_tokens=count_of(meta.get("cached_tokens")),
            completion_tokens=count_of(meta.get("completion_tokens")),
            weight_version=str(meta.get("weight_version", "")),
            mass=mass,
        )

    def _share_and_mass(self, entries: list) -> tuple[float | None, float]:
        """From [log-probability, token id, text] of the likeliest tokens, in any order."""
        likeliest: dict[int, float] = {}
        for logarithm, token, *_ in _listed(entries):
            probability = _probability_of(logarithm)
            if type(token) is not int or token in likeliest:
                raise Retryable("a likeliest token that is no id, or listed twice")
            # A model may have a few more ids than its tokenizer, but does not mean them.
            if probability > MIN_MASS and not self._template.knows(token):
                raise Retryable("a likeliest token that the tokenizer does not know")
            likeliest[token] = probability
        _check_sum(likeliest.values())
        mass = {True: 0.0, False: 0.0}
        for token, met in self._choice_ids.items():
            mass[met] += likeliest.get(token, 0.0)
        return _share(mass[True], mass[False])


class OpenAI:
    """Any OpenAI-compatible chat endpoint.

    For an opening it must continue the last message and return logprobs.
    """

    takes_lists = False
    reads_ahead = False

    def __init__(self, endpoint: Endpoint, prefix: str):
        if not endpoint.model:
            what = f"{prefix}api openai needs {prefix}model"
            raise UserError(f"{what}, the name under which the endpoint serves the model")
        self._endpoint, self._prefix = endpoint, prefix
        self.switch: dict = {}  # what keeps a hybrid model from thinking, once it is seen to think
        self.thoughts_seen = False

    def break_up(self, text: str) -> str:
        """The text as it is: the model's tokenizer is not known here."""
        return text

    def usual_thoughts(self, response: str, prompt: str = "") -> str:
        """The response; of its marks only `<think>` is known, as the model's family is not.

        Where a template writes that one, a route without a parser sends the rest of the thoughts.
        """
        is_rest = THINK_END in response and THINK not in response
        return THINK + response if is_rest and self._endpoint.thinking else response

    def check(self, messages: list[dict]) -> None:
        """Nothing can be said before the endpoint is asked."""

    def continuations(self, question: Question, reply: Reply, opening: str) -> list[Question]:
        """None: few of these endpoints continue a reply, and none continues thoughts."""
        return []

    def body(self, question: Question) -> dict:
        """A field that `extra_body` gives as null is left out: some services refuse it."""
        endpoint = self._endpoint
        body: dict = {
            "model": endpoint.model,
            "messages": question.messages,
            "seed": question.seed,
        }
        if question.opening:
            beginning = {"role": "assistant", "content": question.opening}
            body["messages"] = [*question.messages, beginning]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
            body |= {"max_tokens": 1, "temperature": 1.0, "logprobs": True}
            body["top_logprobs"] = LISTED
        else:
            body |= {
                "max_tokens": endpoint.max_tokens,
                "temperature": endpoint.temperature,
                "top_p": endpoint.top_p,
            }
            if question.schema and not endpoint.thinking:
                form = {"name": "verdict", "schema": question.schema, "strict": True}
                body["response_format"] = {"type": "json_schema", "json_schema": form}
        body |= self.switch | endpoint.extra_body
        if question.opening:
            body |= {name: 1 for name in _LIMITS if body.get(name) is not None}
        return {name: value for name, value in body.items() if value is not None}

    def reply(self, question: Question, payload: Any) -> Reply:
        raise_error_in(payload)
        choice, usage = payload["choices"][0], _fields(payload.get("usage"))
        raise_error_in({"choices": [choice], "error": choice.get("error")})
        message = choice["message"]
        text = text_of(message.get("content"))
        thoughts = any(message.get(name) for name in _OF_THOUGHTS)
        thinks = thoughts or THINK_END in text or after_thoughts(text) != text
        self.thoughts_seen = self.thoughts_seen or thinks
        probability = mass = None
        if question.opening:
            probability, mass = self._share_and_mass(choice)
        return Reply(
            text=text,
            complete=is_complete(choice.get("finish_reason"), text),
            probability=probability,
            prompt_tokens=count_of(usage.get("prompt_tokens")),
            cached_tokens=count_of(
                _fields(usage.get("prompt_tokens_details")).get("cached_tokens")
            ),
            completion_tokens=count_of(usage.get("completion_tokens")),
            weight_version=str(_fields(payload.get("metadata")).get("weight_version", "")),
            thoughts=thoughts,
            tools=bool(message.get("tool_calls") or message.get("function_call")),
            refusal=is_refusal(message),
            mass=mass,
        )

    def _share_and_mass(self, choice: dict) -> tuple[float | None, float]:
        mass = {"true": 0.0, "false": 0.0}
        likeliest = []
        for token in _listed(self._first_likeliest(_fields(choice.get("logprobs")))):
            text = token["token"]
            probability = _probability_of(token["logprob"])
            word = text.strip().lstrip(_SPACES)
            if word in mass:
                # Two tokens may have one text, but then not one probability.
                if (text, probability) in likeliest:
                    raise Retryable("a likeliest token that is listed twice")
                mass[word] += probability
            likeliest.append((text, probability))
        _check_sum(probability for _, probability in likeliest)
        return _share(mass["true"], mass["false"])

    def _first_likeliest(self, logprobs: dict) -> list:
        """The likeliest tokens of a reply's first place, as they are listed today."""
        if tokens := logprobs.get("content"):
            return tokens[0]["top_logprobs"]
        if places := logprobs.get("top_logprobs"):  # as OpenAI's first API wrote them
            return [{"token": text, "logprob": log} for text, log in places[0].items()]
        hint = f"the endpoint returns no logprobs; use {self._prefix}mode explain"
        raise Unavailable(f"{self._prefix}mode direct and cascade: {hint}")


def check_name(reply: Any, body: dict) -> None:
    """Raises Retryable for SGLang's reply to another of our requests.

    It comes late on a connection that is kept, or from a gateway that mixes replies up. What names
    its replies in another way, or not at all, is believed.
    """
    name = str(_fields(_fields(reply).get("meta_info")).get("id"))
    request = body.get("rid", "")
    # A gateway may make a list of one question: its reply is named by its place.
    if name != f"{request}_0" and _is_anothers(name, request):
        raise Retryable("the reply is that to another question")


def _is_anothers(name: str, request: str) -> bool:
    """Whether a reply of this name is to another request than that, as far as names tell."""
    return name != request and _NAMED.fullmatch(name) is not None


def check_places(replies: list, body: dict) -> None:
    """Raises Retryable for the replies to a list that do not stand where their questions do.

    SGLang names each after the request and its place: after another one, it is that to another
    list. What names them in another way, such as a stub, is only known to err where one name
    returns, or the length of another prompt; where texts were sent, whose lengths are not known, it
    is not believed at all.
    """
    request = body["rid"]
    lengths = [len(ids) for ids in body.get("input_ids", ())]
    names = []
    for place, reply in enumerate(replies):
        meta = _fields(_fields(reply).get("meta_info"))
        name = str(meta.get("id", ""))
        count = count_of(meta.get("prompt_tokens"))
        is_ours = name == f"{request}_{place}"
        is_other = not is_ours and (_is_anothers(name, request) or not lengths)
        if is_other or (lengths and count != lengths[place] and count in lengths):
            raise Retryable(f"reply {place + 1} of {len(replies)} is that to another question")
        names.append(name)
    if 1 < len(set(names)) < len(names):  # one name for all is none
        raise Retryable("one of the replies to a list comes twice")


def _fields(value: Any) -> dict:
    """An object of a reply that may be null or missing."""
    return value if isinstance(value, dict) else {}


def _listed(likeliest: list) -> list:
    """Raises Retryable where no token is listed with its probability."""
    if not likeliest:
        raise Retryable("no probability of any token")
    return likeliest


def _probability_of(logarithm: Any) -> float:
    """Raises Retryable for what is the logarithm of no probability, such as NaN."""
    if isinstance(logarithm, bool) or not isinstance(logarithm, float | int):
        raise Retryable(f"a log-probability that is no number, {logarithm!r:.40}")
    if math.isnan(logarithm) or logarithm > math.log(MOST_MASS):
        raise Retryable(f"a log-probability of {logarithm}")
    return math.exp(logarithm)


def _check_sum(probabilities: Iterable[float]) -> None:
    """Raises Retryable where they add up to more than rounding explains, or to nothing.

    The likeliest token of any model has more; some servers mix up the requests of a batch.
    """
    total = sum(probabilities)
    if not LEAST_SUM <= total <= MOST_MASS:
        raise Retryable(f"probabilities that add up to {total:.3g}")


def _share(true: float, false: float) -> tuple[float | None, float]:
    """The share of `true` in the mass of both, None where that is next to nothing; and the mass."""
    mass = true + false
    share = true / mass if mass >= MIN_MASS else None
    return share, min(mass, 1.0)
