"""A prompt's tokens, where concepts stand among them, and where a text may be cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any
from weakref import WeakKeyDictionary


@dataclass(frozen=True)
class Slot:
    """Where a concept stands in a tokenised prompt.

    Attributes:
        name: the placeholder's name, without its angle brackets.
        position: of the placeholder, or of the last sub-token of the super-category in its place.
        sub_tokens: 1, or how many tokens the super-category in its place has.
        supplied: whether the word embedding at this position comes with the request.
    """

    name: str
    position: int
    sub_tokens: int
    supplied: bool


@dataclass(frozen=True)
class Tokens:
    """A tokenised prompt.

    Attributes:
        ids: per text encoder, M token ids: start, words, end of text, padding.
        end_of_text: position of the end-of-text token; padding follows.
        slots: every occurrence of a concept, in order of position.
    """

    ids: tuple[tuple[int, ...], ...]
    end_of_text: int
    slots: tuple[Slot, ...]

    @property
    def placeholders(self) -> tuple[tuple[int, str], ...]:
        """The positions whose word embedding is supplied, with the concept's name."""
        return tuple((slot.position, slot.name) for slot in self.slots if slot.supplied)


class Break(IntEnum):
    """How well a text may be cut before a token."""

    NEVER = 0
    """Inside a word, or inside a super-category that stands in a concept's place."""
    WORD = 1
    """Between what the tokenizer takes for words, as before the comma of `cat, dog`."""
    SPACE = 2
    """After white space."""


@dataclass(frozen=True)
class Body:
    """A prompt's tokens between start and end of text, however many.

    Attributes:
        ids: per text encoder, n token ids.
        slots: every occurrence of a concept; positions count from 1, as if all were one text.
        breaks: per token, how well the text may be cut before it.
    """

    ids: tuple[tuple[int, ...], ...]
    slots: tuple[Slot, ...]
    breaks: tuple[Break, ...]

    def __len__(self) -> int:
        return len(self.breaks)

    def tokens(self, tokenizers: Sequence[Any], start: int, end: int) -> Tokens:
        """The tokens `start` to `end` as a text of their own, padded."""
        rows = []
        for tokenizer, ids in zip(tokenizers, self.ids, strict=True):
            row = [tokenizer.bos_token_id, *ids[start:end], tokenizer.eos_token_id]
            row += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(row))
            rows.append(tuple(row))
        slots = tuple(
            replace(slot, position=slot.position - start)
            for slot in self.slots
            if start < slot.position <= end
        )
        return Tokens(tuple(rows), end - start + 1, slots)


def around(tokenizer: Any, body: Body, place: int) -> str:
    """The words on both sides of a place in a prompt, for a message."""
    names = {slot.position - 1: slot.name for slot in body.slots if slot.supplied}
    words = [
        f"<{names[at]}>" if at in names else tokenizer.decode([token]).strip()
        for at, token in enumerate(body.ids[0])
    ]
    kept, lost = " ".join(words[max(0, place - 4) : place]), " ".join(words[place : place + 4])
    return f"after '... {kept}' and before '{lost} ...'"


def breaks_of(
    text: str, spans: Sequence[tuple[int, int]], words: Sequence[int | None], spaced: bool
) -> list[Break]:
    """How well a text may be cut before each of its tokens; `spaced`: white space precedes it."""
    breaks = []
    for place, (start, _) in enumerate(spans):
        if text[start - 1].isspace() if start else spaced:
            breaks.append(Break.SPACE)
        elif place and words[place] == words[place - 1]:
            breaks.append(Break.NEVER)
        else:
            breaks.append(Break.WORD)
    return breaks


def encoding_of(tokenizer: Any, text: str) -> Any:
    """A text's ids, offsets and word_ids, without special tokens, as `tokenizers` gives them.

    From the tokenizer within the tokenizer, a tenth of the time, unless another caller had the
    latter cut or fill what it reads and left the former so.
    """
    within = tokenizer.backend_tokenizer
    if within.truncation is None and within.padding is None:
        return within.encode(text, add_special_tokens=False)
    return tokenizer(text, add_special_tokens=False, verbose=False).encodings[0]


def stand_in(tokenizer: Any) -> int:
    """An id that is neither special nor the highest: pooling looks for those."""
    found = _stand_ins.get(tokenizer)
    if found is None:
        special = set(tokenizer.all_special_ids)
        found = next(token for token in range(len(tokenizer)) if token not in special)
        _stand_ins[tokenizer] = found
    return found


# A base model's tokenizers learn nothing more, and asking them for it takes a while.
_stand_ins: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
