"""Prompts longer than the text encoder reads: cut into chunks, each a text of its own.

Every chunk has its own start, end and padding, is encoded alone, and the encodings stand one after
the other, as the common user interfaces do it. The denoiser's attention takes them all in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from perfuse.attach.base_model import BaseModel
from perfuse.attach.prompt import Prompt
from perfuse.attach.tokens import Body, Break, Tokens, around
from perfuse.errors import InvalidArgument, PromptRefused

MAX_CHUNKS = 4
"""The most that any prompt is split into; every chunk more lengthens each step's attention."""


@dataclass(frozen=True)
class Chunks:
    """A prompt in chunks.

    Attributes:
        tokens: of each chunk.
        ends: of each chunk, in tokens of the prompt as a whole.
    """

    tokens: tuple[Tokens, ...]
    ends: tuple[int, ...]

    @property
    def reached(self) -> tuple[slice, ...]:
        """Of each chunk with a concept: from the first one through the end of the text."""
        starts = accumulate((len(tokens.ids[0]) for tokens in self.tokens), initial=0)
        return tuple(
            slice(start + tokens.slots[0].position, start + tokens.end_of_text + 1)
            for start, tokens in zip(starts, self.tokens, strict=False)
            if tokens.slots
        )


def split(
    base: BaseModel,
    prompt: Prompt,
    *,
    most: int = 1,
    least: int = 1,
    super_categories: Mapping[str, str] | None = None,
) -> Chunks:
    """Tokenise a prompt in as few chunks as hold it.

    A chunk ends at white space; where there is none, between two words of the tokenizer's; never
    inside a word or a placeholder.

    Args:
        base: the base model.
        prompt: as it was cut at its placeholders.
        most: chunks allowed, up to `MAX_CHUNKS`.
        least: chunks wanted; those that are lacking are chunks of the empty prompt.
        super_categories: placeholder's name → super-category, where each chunk must have room for
            them in the placeholders' places (GLOBAL).

    Raises:
        PromptRefused: it is too long; the message says where the limit falls.
        InvalidArgument: `most` or `least` is not between 1 and `MAX_CHUNKS`.
    """
    if not (1 <= most <= MAX_CHUNKS and 1 <= least <= MAX_CHUNKS):
        raise InvalidArgument(
            f"chunks are to be {least} at least and {most} at most; both must be 1 to {MAX_CHUNKS}"
        )
    tokenizers = [encoder.tokenizer for encoder in base.encoders]
    if most == 1:
        tokens = prompt.tokens(tokenizers)
        found, ends = [tokens], [tokens.end_of_text - 1]
    else:
        body = prompt.body(tokenizers)
        ends = _ends(body, base, most, _widths(base, body, prompt, super_categories))
        found = [
            body.tokens(tokenizers, start, end)
            for start, end in zip([0, *ends], ends, strict=False)
        ]
    if missing := max(0, least - len(found)):
        found += [Prompt(()).tokens(tokenizers)] * missing
        ends += ends[-1:] * missing
    return Chunks(tuple(found), tuple(ends))


def with_super_categories(
    base: BaseModel, prompt: Prompt, chunks: Chunks, super_categories: Mapping[str, str]
) -> tuple[Tokens, ...]:
    """The same chunks with every placeholder replaced by its super-category.

    Raises:
        PromptRefused: a chunk is too long with the super-categories written out.
    """
    tokenizers = [encoder.tokenizer for encoder in base.encoders]
    body = prompt.with_super_categories(super_categories).body(tokenizers)
    room = _room(base)
    found, start, passed = [], 0, 0
    for tokens, end in zip(chunks.tokens, chunks.ends, strict=True):
        passed += len(tokens.slots)
        shifted = end + sum(slot.sub_tokens - 1 for slot in body.slots[:passed])
        if shifted - start > room:
            raise PromptRefused(
                f"with the super-categories written out, a chunk has {shifted - start} tokens and "
                f"the text encoder reads {room}; the limit falls "
                f"{around(tokenizers[0], body, start + room)}: shorten the prompt"
            )
        found.append(body.tokens(tokenizers, start, shifted))
        start = shifted
    return tuple(found)


def _room(base: BaseModel) -> int:
    """Tokens of a chunk without its start and end."""
    return base.positions - 2


def _widths(
    base: BaseModel, body: Body, prompt: Prompt, super_categories: Mapping[str, str] | None
) -> list[int]:
    """The room that each token takes: one, or at a placeholder as much as its super-category."""
    widths = [1] * len(body)
    if super_categories is not None:
        tokenizers = [encoder.tokenizer for encoder in base.encoders]
        replaced = prompt.with_super_categories(super_categories).body(tokenizers)
        for slot, other in zip(body.slots, replaced.slots, strict=True):
            widths[slot.position - 1] = other.sub_tokens
    return widths


def _ends(body: Body, base: BaseModel, most: int, widths: Sequence[int]) -> list[int]:
    """Where chunks end that each take in as much as they can."""
    tokenizer, room = base.encoders[0].tokenizer, _room(base)
    ends: list[int] = []
    start = 0
    while True:
        end, used = start, 0
        while end < len(body) and used + widths[end] <= room:
            used += widths[end]
            end += 1
        if end == len(body):
            return [*ends, end]
        if len(ends) + 1 == most:
            raise PromptRefused(
                f"the prompt has {len(body)} tokens, which {most} chunks of {room} do not hold; "
                f"the limit falls {around(tokenizer, body, end)}: shorten it by about "
                f"{len(body) - end} tokens"
            )
        places = range(end, start, -1)
        cut = next((at for at in places if body.breaks[at] is Break.SPACE), None) or next(
            (at for at in places if body.breaks[at] is Break.WORD), None
        )
        if cut is None:
            raise PromptRefused(
                f"a word of the prompt is longer than the {room} tokens that the text encoder "
                f"reads; the limit falls {around(tokenizer, body, end)}: put spaces into it"
            )
        ends.append(cut)
        start = cut
