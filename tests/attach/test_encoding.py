"""Placeholders are new words; everything else is encoded as diffusers encodes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from bases import WORDS, tiny_tokenizer
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse.attach import BaseModel, Prompt, encode, encode_tokens, tokenise
from perfuse.errors import BaseModelUnsuitable, InvalidArgument, PromptRefused, WrongShape

PROMPTS = ("", "a photo of a cat", "A  red\tDog,\nwearing SUNGLASSES! 3 caf\u00e9s, it's <3 & 100%")
TOKENIZER = tiny_tokenizer()

lawful = settings(deadline=None, max_examples=60, derandomize=True)
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


def supplied(base: BaseModel, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        encoder.name: torch.randn(encoder.width, generator=generator) for encoder in base.encoders
    }


def stock_pipeline(directory: Path) -> object:
    kind = StableDiffusionXLPipeline
    arguments = {}
    if not (directory / "text_encoder_2").exists():
        kind, arguments = StableDiffusionPipeline, {"safety_checker": None}
    return kind.from_pretrained(directory, **arguments)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_without_placeholders_it_is_the_stock_encoding_bit_for_bit(
    directory: Path, base: BaseModel, prompt: str
) -> None:
    pipeline = stock_pipeline(directory)
    expected = pipeline.encode_prompt(  # type: ignore[attr-defined]
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    encoding = encode(base, prompt)
    assert torch.equal(encoding.encodings, expected[0])
    if base.pooled:
        assert torch.equal(encoding.pooled, expected[2])
    else:
        assert encoding.pooled is None


@lawful
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<>"), max_size=30))
def test_ids_are_the_shipped_tokenizers(text: str) -> None:
    expected = TOKENIZER(text, padding="max_length", max_length=77, truncation=True).input_ids
    tokens = Prompt.parse(text).tokens([TOKENIZER], truncate=True)
    assert list(tokens.ids[0]) == expected
    assert tokens.ids[0][tokens.end_of_text] == TOKENIZER.eos_token_id
    assert tokens.slots == ()


@lawful
@given(before=words, after=words, spaces=st.sampled_from(["", " ", "  "]))
def test_a_placeholder_is_one_position_and_changes_no_other_id(
    before: str, after: str, spaces: str
) -> None:
    text = f"{before}{spaces}<tom>{spaces}{after}"
    tokens = Prompt.parse(text, ["tom"]).tokens([TOKENIZER])
    ((position, name),) = tokens.placeholders
    assert name == "tom"
    assert position == 1 + len(before.split())
    ids = list(tokens.ids[0])
    del ids[position]
    expected = TOKENIZER(f"{before} {after}", padding="max_length", max_length=77).input_ids
    assert ids == expected[:76]


@lawful
@given(before=words, category=words, after=words)
def test_a_super_category_in_its_place_reads_as_if_written(
    before: str, category: str, after: str
) -> None:
    prompt = Prompt.parse(f"{before} <tom> {after}", ["tom"])
    tokens = prompt.with_super_categories({"tom": category}).tokens([TOKENIZER])
    written = f"{before} {category} {after}"
    assert list(tokens.ids[0]) == TOKENIZER(written, padding="max_length", max_length=77).input_ids
    (slot,) = tokens.slots
    assert slot.sub_tokens == len(category.split())
    assert slot.position == len(before.split()) + slot.sub_tokens
    assert tokens.placeholders == ()


def test_repeated_and_adjacent_placeholders_have_a_position_each() -> None:
    tokens = Prompt.parse("<a><b> and <a>, <b>.", ["a", "b"]).tokens([TOKENIZER])
    assert tokens.placeholders == ((1, "a"), (2, "b"), (4, "a"), (6, "b"))


def test_supplying_a_shipped_embedding_is_writing_the_word(base: BaseModel) -> None:
    written = encode(base, "a photo of a cat in snow")
    place = 5
    word = {
        encoder.name: encoder.text_model.embeddings.token_embedding.weight[
            written.tokens[0].ids[index][place]
        ]
        for index, encoder in enumerate(base.encoders)
    }
    named = encode(base, "a photo of a <tom> in snow", {"tom": word})
    assert named.tokens[0].placeholders == ((place, "tom"),)
    assert torch.equal(named.encodings, written.encodings)
    assert base.pooled == (named.pooled is not None)
    assert named.pooled is None or torch.equal(named.pooled, written.pooled)
    assert torch.equal(named.at_slots("tom"), written.encodings[0, place : place + 1])


def test_many_tenants_alter_nothing_and_do_not_meet(base: BaseModel) -> None:
    tables = [encoder.text_model.embeddings.token_embedding for encoder in base.encoders]
    before = [table.weight.clone() for table in tables]
    sizes = [len(encoder.tokenizer) for encoder in base.encoders]
    text = "a photo of <it> wearing a <hat>"
    requests = [{"it": supplied(base, n), "hat": supplied(base, 900 + n)} for n in range(64)]
    alone = [encode(base, text, request) for request in requests]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda request: encode(base, text, request), requests))
    for first, second in zip(alone, together, strict=True):
        assert torch.equal(first.encodings, second.encodings)
    assert len({tuple(result.encodings[0, 4].tolist()) for result in alone}) == 64
    tokens = [result.tokens[0] for result in alone]
    batch = encode_tokens(base, tokens, requests)
    difference = batch.encodings - torch.cat([result.encodings for result in alone])
    assert difference.abs().max() < 1e-5
    assert [len(encoder.tokenizer) for encoder in base.encoders] == sizes
    for table, weight in zip(tables, before, strict=True):
        assert table.weight.shape == weight.shape
        assert torch.equal(table.weight, weight)


def test_the_gradient_of_a_supplied_embedding_is_the_derivative(double_base: BaseModel) -> None:
    base = double_base
    prompts = [
        tokenise(base, Prompt.parse(text, ["tom"]))
        for text in ("a <tom>", "<tom> and <tom> in the snow")
    ]
    word = {name: vector.double().requires_grad_() for name, vector in supplied(base, 1).items()}
    probe = torch.randn(2, 77, base.conditioning_width, dtype=torch.float64)

    def loss(vectors: dict[str, torch.Tensor]) -> torch.Tensor:
        encoding = encode_tokens(base, prompts, [{"tom": vectors}] * 2)
        total = (encoding.encodings * probe).sum()
        return total if encoding.pooled is None else total + encoding.pooled.sum()

    gradients = torch.autograd.grad(loss(word), list(word.values()))
    step = 1e-6
    for name, gradient in zip(word, gradients, strict=True):
        direction = torch.randn_like(word[name])
        ahead, behind = (
            loss(word | {name: word[name].detach() + sign * step * direction}) for sign in (1, -1)
        )
        slope = (ahead - behind).item() / (2 * step)
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_refusals_say_what_and_where(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    with pytest.raises(PromptRefused, match=r"<bob>.*\(<tom>\)"):
        Prompt.parse("a <bob>", ["tom"])
    with pytest.raises(PromptRefused, match="endoftext"):
        Prompt.parse("a <|EndOfText|> b")
    long = " ".join(["cat"] * 74 + ["<tom>", "dog", "snow"])
    with pytest.raises(PromptRefused, match=r"77 tokens .* 75; .*<tom>' and before 'dog snow"):
        encode(base, long, {"tom": supplied(base, 0)})
    cut = tokenise(base, Prompt.parse(long + " <tom>", ["tom"]), truncate=True)
    assert cut.placeholders == ((75, "tom"),)
    assert cut.end_of_text == 76
    with pytest.raises(InvalidArgument, match="no word embedding for text_encoder"):
        encode(base, "a <tom>", {"tom": {}})
    with pytest.raises(WrongShape, match=r"\[31\].*\[32\]"):
        encode(base, "a <tom>", {"tom": {"text_encoder": torch.zeros(31)}})
    with pytest.raises(InvalidArgument, match="<bob>"):
        encode(base, "a cat").at_slots("bob")
    with pytest.raises(PromptRefused, match="no token"):
        Prompt.parse("<tom>", ["tom"]).with_super_categories({"tom": " "}).tokens([TOKENIZER])
    with pytest.raises(BaseModelUnsuitable, match="two positions"):
        Prompt.parse("a teddy bear").tokens([TOKENIZER, tiny_tokenizer(words=("bear",))])
