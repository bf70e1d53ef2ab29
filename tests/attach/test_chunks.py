"""A long prompt is its chunks side by side: nothing lost, no word cut, each encoded as if alone."""

from __future__ import annotations

import pytest
import torch
from bases import WORDS, load_prepared, random_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse.attach import (
    MAX_CHUNKS,
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    Prompt,
    attach,
    denoise,
    encode,
    encode_chunks,
    encode_tokens,
    generate,
    plan,
    split,
    stack,
    unconditional,
    with_super_categories,
)
from perfuse.errors import InvalidArgument, PromptRefused, WrongShape
from perfuse.method import KeyLock

lawful = settings(deadline=None, max_examples=60, derandomize=True)
# Words of one token, and words that are spelt out; a comma hangs on the word before it.
words = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=6),
    st.sampled_from(["cat,", "(dog)", "<tom>", "<hat>,", "<tom>"]),
)
texts = st.lists(words, max_size=110)

FIRST = " ".join(["a photo of <tom> in snow", *["big red cat"] * 23])
SECOND = " ".join(["<tom> wearing <hat>", *["small blue dog"] * 12, "and <hat>"])
LONG = f"{FIRST} {SECOND}"


def concepts(base: BaseModel) -> list[PlannedConcept]:
    return [
        PlannedConcept("tom", random_adapter(base, 1, "cat"), 0.6, 0.15),
        PlannedConcept("hat", random_adapter(base, 2, "teddy bear"), 0.5, 0.2),
    ]


@lawful
@given(texts)
def test_nothing_is_lost_and_no_word_is_cut(tiny_sd15: BaseModel, text: list[str]) -> None:
    base = tiny_sd15
    tokenizer = base.encoders[0].tokenizer
    prompt = Prompt.parse(" ".join(text), ["tom", "hat"])
    body = prompt.body([tokenizer])
    try:
        chunks = split(base, prompt, most=4)
    except PromptRefused:
        # Each chunk leaves less room than one word takes.
        assert len(body) > 4 * (75 - 24)
        return
    kept: list[int] = []
    for tokens in chunks.tokens:
        (ids,) = tokens.ids
        assert len(ids) == 77
        assert ids[0] == tokenizer.bos_token_id
        assert set(ids[tokens.end_of_text :]) == {tokenizer.eos_token_id}
        kept += ids[1 : tokens.end_of_text]
    assert tuple(kept) == body.ids[0]
    # Every written word is whole in one chunk: chunk by chunk they tokenise to what is there.
    left = list(text)
    for tokens in chunks.tokens:
        taken: list[str] = []
        while left and len(
            Prompt.parse(" ".join([*taken, left[0]]), ["tom", "hat"]).body([tokenizer])
        ) <= (tokens.end_of_text - 1):
            taken.append(left.pop(0))
        alone = Prompt.parse(" ".join(taken), ["tom", "hat"]).tokens([tokenizer])
        assert alone == tokens
    assert left == []


def test_chunks_are_as_few_as_hold_it(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15

    def ends(text: str, most: int = 4, least: int = 1) -> tuple[int, ...]:
        return split(base, Prompt.parse(text), most=most, least=least).ends

    assert ends("") == (0,)
    assert ends("cat " * 75) == (75,)
    assert ends("cat " * 76) == (75, 76)
    assert ends("cat " * 300) == (75, 150, 225, 300)
    # `cat,` is two tokens and one word.
    assert ends("cat " * 74 + "cat, dog") == (74, 77)
    # Without white space the tokenizer's words decide.
    assert ends("cat,dog," * 40) == (75, 150, 160)
    assert ends("cat", least=3) == (1, 1, 1)
    with pytest.raises(PromptRefused, match=r"4 chunks of 75 .* falls after '... cat cat .*dog"):
        ends("cat " * 300 + "dog")
    with pytest.raises(PromptRefused, match="longer than the 75 tokens"):
        ends("x" * 1 + "qz" * 60)
    with pytest.raises(PromptRefused, match="or have it split"):
        ends("cat " * 76, most=1)
    for wrong in ({"most": 0}, {"most": MAX_CHUNKS + 1}, {"least": MAX_CHUNKS + 1}):
        with pytest.raises(InvalidArgument, match="1 to 4"):
            ends("cat", **wrong)


def test_every_chunk_is_encoded_as_if_alone(double_base: BaseModel) -> None:
    base = double_base
    embeddings = {entry.name: entry.adapter.embeddings for entry in concepts(base)}
    chunks = split(base, Prompt.parse(LONG, embeddings), most=2).tokens
    encodings, pooled = encode_chunks(base, chunks, embeddings)
    assert encodings.shape == (1, 154, base.conditioning_width)
    for index, text in enumerate((FIRST, SECOND)):
        alone = encode(base, text, embeddings)
        assert alone.tokens == (chunks[index],)
        part = encodings[:, 77 * index : 77 * (index + 1)]
        torch.testing.assert_close(part, alone.encodings, rtol=1e-12, atol=1e-12)
    first = encode_tokens(base, chunks[:1], [embeddings]).pooled
    assert (pooled is None) == (first is None)
    if pooled is not None:
        torch.testing.assert_close(pooled, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lock", [KeyLock.LOCAL, KeyLock.GLOBAL])
def test_edits_and_gates_are_each_position_s_own(double_base: BaseModel, lock: KeyLock) -> None:
    base = double_base
    both = concepts(base)
    long = plan(base, LONG, both, key_lock=lock, max_chunks=2)
    # A plan has the concepts that its prompt names. The encoders look back only, so that up to
    # the two words that make room for <hat> the first text is the first chunk.
    first = " ".join([*FIRST.split()[:-2], "<hat>"])
    parts = [plan(base, text, both, key_lock=lock) for text in (first, SECOND)]
    for index, same in enumerate((slice(0, 74), slice(0, 77))):
        part = parts[index]
        shifted = slice(77 * index + same.start, 77 * index + same.stop)
        pairs = zip((*long.keys, *long.values), (*part.keys, *part.values), strict=True)
        for whole, alone in pairs:
            torch.testing.assert_close(whole[shifted], alone[same], rtol=1e-10, atol=1e-10)
    second = slice(77, 154)
    for name in ("tom", "hat"):
        assert long.similarity[name].shape == long.gate[name].shape == (154,)
        torch.testing.assert_close(long.gate[name][second], parts[1].gate[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_chunk_without_a_concept_is_not_edited(tiny_sd15: BaseModel, dtype: torch.dtype) -> None:
    base = load_prepared(tiny_sd15.directory, dtype=dtype)
    both = concepts(base)[:1]
    plain, named = " ".join(["big red cat"] * 25), "a small <tom> in snow"
    made = plan(base, f"{plain} {named}", both, key_lock=KeyLock.LOCAL, max_chunks=2)
    bare = plan(base, f"{plain} {named.replace('<tom>', 'cat')}", max_chunks=2)
    at = 77 + made.chunks[1].slots[0].position
    assert not made.chunks[0].slots
    for ours, own in zip((*made.keys, *made.values), (*bare.keys, *bare.values), strict=True):
        assert torch.equal(ours[:at], own[:at])
        assert not torch.equal(ours[at], own[at])


def test_global_leaves_room_for_super_categories(tiny_sd15: BaseModel) -> None:
    """76 tokens with `teddy bear` written out, in 75 with the placeholder."""
    base = tiny_sd15
    prompt = Prompt.parse("cat " * 74 + "<tom>", ["tom"])
    supers = {"tom": "teddy bear"}
    assert split(base, prompt, most=2).ends == (75,)
    chunks = split(base, prompt, most=2, super_categories=supers)
    assert chunks.ends == (74, 75)
    replaced = with_super_categories(base, prompt, chunks, supers)
    assert [tokens.end_of_text for tokens in replaced] == [75, 3]
    with pytest.raises(PromptRefused, match="super-categories written out"):
        with_super_categories(base, prompt, split(base, prompt, least=2), supers)


def test_a_short_prompt_is_no_other_for_being_allowed_to_be_long(base: BaseModel) -> None:
    both = concepts(base)
    usual = plan(base, SECOND, both)
    allowed = plan(base, SECOND, both, max_chunks=4)
    assert allowed.digest == usual.digest
    assert all(map(torch.equal, allowed.values, usual.values))
    padded = plan(base, SECOND, both, min_chunks=2)
    assert padded.digest != usual.digest
    empty = plan(base, "", max_chunks=1)
    for layer, (whole, part) in enumerate(zip(padded.keys, usual.keys, strict=True)):
        torch.testing.assert_close(whole[:77], part, rtol=1e-4, atol=1e-4)
        assert whole.shape[0] == 154
        assert empty.keys[layer].shape == part.shape


def test_the_denoiser_attends_to_all_chunks(double_base: BaseModel) -> None:
    """Without concepts, stock diffusers with the encodings side by side is the reference."""
    base = double_base
    text = LONG.replace("<", "").replace(">", "")
    made = plan(base, text, max_chunks=2)
    encodings, pooled = encode_chunks(base, made.chunks)
    latents = torch.randn(
        1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    added = None
    if base.pooled:
        sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]], dtype=torch.float64)
        added = {"text_embeds": pooled, "time_ids": sizes}
    with torch.no_grad():
        expected = base.unet(latents, 400, encodings, added_cond_kwargs=added).sample
        with attach(base.unet):
            found = denoise(base, latents, torch.tensor([400]), made.conditioning)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_long_pictures_are_rendered_against_as_long_a_nothing(base: BaseModel) -> None:
    made = plan(base, LONG, concepts(base), max_chunks=2)
    found = generate(base, [made], seeds=[1], steps=2, output="latent")
    nothing: ConditioningPlan = unconditional(base, 2)
    assert nothing.encodings.shape == made.encodings.shape
    again = generate(base, [made], seeds=[1], negative=nothing, steps=2, output="latent")
    assert torch.equal(found, again)
    with pytest.raises(WrongShape, match="77, 154 positions"):
        generate(base, [made], seeds=[1], negative=unconditional(base), steps=2)
    with pytest.raises(WrongShape, match="min_chunks"):
        stack([made, unconditional(base)])
