"""What a plan holds: the paper's edit of real layers, for every lock, and a name for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from bases import load_prepared, random_adapter

from perfuse.adapter import Adapter
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    Projections,
    TextEncoding,
    attach,
    denoise,
    edited_projections,
    encode,
    encode_tokens,
    locked_key_outputs,
    plan,
    prepare_concept,
    stack,
    strength,
    tokenise,
    unconditional,
)
from perfuse.attach.conditioning import Conditioning
from perfuse.attach.prompt import Prompt
from perfuse.errors import (
    BaseModelMismatch,
    DependentConcepts,
    FailedPrecondition,
    InvalidArgument,
    PromptRefused,
)
from perfuse.method import KeyLock, Reach, Remainder

TEXT = "a photo of <tom> and <teddy> wearing <hat> next to <tom> in the snow"
WRITTEN = "a photo of cat and teddy bear wearing hat next to cat in the snow"


def adapters(base: BaseModel, **metadata: str) -> dict[str, Adapter]:
    return {
        "tom": random_adapter(base, 1, "cat", **metadata),
        "teddy": random_adapter(base, 2, "teddy bear", **metadata),
        "hat": random_adapter(base, 3, "hat", **metadata),
    }


def planned(found: dict[str, Adapter], names: Sequence[str] = ("tom", "teddy", "hat")) -> list:
    gates = {"tom": (0.6, 0.15), "teddy": (0.5, 0.2), "hat": (0.7, 0.1)}
    return [PlannedConcept(name, found[name], *gates[name]) for name in names]


def reference(
    base: BaseModel,
    concepts: Sequence[PlannedConcept],
    weight: torch.Tensor,
    outputs: list,
    remainder: Remainder,
) -> torch.Tensor:
    """h = W(e − Pe) + Σ σ_j o*_j as the paper writes it: C⁻¹ = LLᵀ and a QR decomposition.

    And what remains, Σ (c_j − σ_j) W e_super_j, with c from the pseudo-inverse of the same P.
    """
    covariance = base.covariance
    assert covariance is not None
    matrix = covariance.covariance.matrix
    ridge = covariance.ridge * torch.trace(matrix) / len(matrix)
    inverse = torch.linalg.inv(matrix + ridge * torch.eye(len(matrix), dtype=torch.float64))
    factor = torch.linalg.cholesky((inverse + inverse.T) / 2)
    words = {concept.name: concept.adapter.embeddings for concept in concepts}
    encodings = encode(base, TEXT, words).encodings[0]
    inputs = torch.stack([concept.adapter.target_input for concept in concepts])
    turned = encodings @ factor
    directions, _ = torch.linalg.qr((inputs @ factor).T)
    left = torch.linalg.solve(factor.T, (turned - turned @ directions @ directions.T).T).T
    result = left @ weight.T
    for concept, output in zip(concepts, outputs, strict=True):
        vector = concept.adapter.target_input
        similarity = encodings @ inverse @ vector / (vector @ inverse @ vector)
        gate = torch.sigmoid((similarity - concept.bias) / concept.temperature)
        result = result + gate[:, None] * output
        if remainder is Remainder.SUPER_CATEGORY:
            result = result - gate[:, None] * (concept.adapter.super_category_encoding @ weight.T)
    if remainder is Remainder.SUPER_CATEGORY:
        supers = torch.stack([concept.adapter.super_category_encoding for concept in concepts])
        taken = turned @ directions @ directions.T
        result = result + taken @ torch.linalg.pinv(inputs @ factor) @ supers @ weight.T
    return result


@pytest.mark.parametrize("remainder", list(Remainder))
@pytest.mark.parametrize("lock", list(KeyLock))
def test_keys_and_values_are_the_papers(
    double_base: BaseModel, lock: KeyLock, remainder: Remainder
) -> None:
    base = double_base
    found = adapters(base, key_lock="TRAINED_K" if lock is KeyLock.TRAINED_K else "LOCAL")
    concepts = planned(found)
    made = plan(base, TEXT, concepts, key_lock=lock, remainder=remainder, reach=Reach.EVERYWHERE)
    # The super-category prompt, written out, and which of its positions each position looks at.
    written = encode(base, WRITTEN).encodings[0]
    assert made.chunks[0].placeholders == ((4, "tom"), (6, "teddy"), (8, "hat"), (11, "tom"))
    shifted = [position if position < 6 else min(position + 1, 76) for position in range(77)]
    for index, layer in enumerate(base.layers):
        values = [concept.adapter.value_outputs()[index] for concept in concepts]
        expected = reference(base, concepts, layer.value_weight, values, remainder)
        torch.testing.assert_close(made.values[index], expected, rtol=1e-9, atol=1e-10)
        if lock is KeyLock.GLOBAL:
            expected = (written @ layer.key_weight.T)[shifted]
        elif lock is KeyLock.LOCAL:
            keys = [c.adapter.super_category_encoding @ layer.key_weight.T for c in concepts]
            expected = reference(base, concepts, layer.key_weight, keys, remainder)
        else:
            keys = [concept.adapter.key_outputs()[index] for concept in concepts]
            expected = reference(base, concepts, layer.key_weight, keys, remainder)
        torch.testing.assert_close(made.keys[index], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("lock", list(KeyLock))
def test_before_the_first_concept_and_after_the_text_nothing_is_changed(
    double_base: BaseModel, lock: KeyLock
) -> None:
    base = double_base
    found = adapters(base, key_lock="TRAINED_K" if lock is KeyLock.TRAINED_K else "LOCAL")
    concepts = planned(found)
    made = plan(base, TEXT, concepts, key_lock=lock)
    whole = plan(base, TEXT, concepts, key_lock=lock, reach=Reach.EVERYWHERE)
    (tokens,) = made.chunks
    first, after = tokens.slots[0].position, tokens.end_of_text + 1
    assert 0 < first < after < len(made.encodings)
    for index, layer in enumerate(base.layers):
        edited = [(made.values, whole.values, layer.value_weight)]
        if lock is not KeyLock.GLOBAL:
            edited.append((made.keys, whole.keys, layer.key_weight))
        for ours, theirs, weight in edited:
            plain = (made.encodings[None] @ weight.T)[0]
            torch.testing.assert_close(
                ours[index][first:after], theirs[index][first:after], rtol=1e-12, atol=1e-12
            )
            for outside in (slice(0, first), slice(after, None)):
                torch.testing.assert_close(
                    ours[index][outside], plain[outside], rtol=1e-12, atol=1e-12
                )
                assert not torch.allclose(theirs[index][outside], plain[outside], atol=1e-9)
    for gate in made.gate.values():
        assert not gate[:first].any()
        assert not gate[after:].any()
        assert gate[first:after].all()


def test_what_is_named_before_a_concept_is_the_prompts_without_it_to_the_bit(
    base: BaseModel,
) -> None:
    made = plan(base, "a dog wearing a <hat>", planned(adapters(base))[2:])
    plain = plan(base, "a dog wearing a hat")
    assert made.chunks[0].slots[0].position == 5
    for ours, own in zip((*made.keys, *made.values), (*plain.keys, *plain.values), strict=True):
        assert torch.equal(ours[:5], own[:5])
        assert not torch.equal(ours[5], own[5])


def test_without_concepts_keys_and_values_are_the_layers_own(base: BaseModel) -> None:
    made = plan(base, "a red cat")
    encodings = encode(base, "a red cat").encodings
    for layer, key, value in zip(base.layers, made.keys, made.values, strict=True):
        assert torch.equal(key, layer.attention.to_k(encodings)[0])
        assert torch.equal(value, layer.attention.to_v(encodings)[0])
    assert made.key_lock is None
    assert made.similarity == {}


def test_the_unconditional_plan_is_never_edited(base: BaseModel) -> None:
    made = unconditional(base)
    zeros = base.pooled and base.pipeline.config.force_zeros_for_empty_prompt
    assert zeros == (base.architecture == "sdxl-56")
    assert bool((made.encodings == 0).all()) == zeros
    if not zeros:
        assert made.digest == plan(base, "").digest


def test_similarity_says_which_words_are_the_concept(double_base: BaseModel) -> None:
    base = double_base
    tom = adapters(base)["tom"]
    encoding = encode(base, "a photo of <tom>", {"tom": tom.embeddings}).encodings[0]
    at = replace(tom, target_input=encoding[4])
    made = plan(base, "a photo of <tom>", [PlannedConcept("tom", at, 0.5, 0.1)])
    assert made.similarity["tom"].shape == (77,)
    assert float(made.similarity["tom"][4]) == pytest.approx(1)
    gate = torch.sigmoid((made.similarity["tom"] - 0.5) / 0.1)
    # The last word, and the end of the text.
    assert torch.equal(made.gate["tom"].nonzero()[:, 0], torch.tensor([4, 5]))
    torch.testing.assert_close(made.gate["tom"][4:6], gate[4:6])
    for layer, value, output in zip(base.layers, made.values, at.value_outputs(), strict=True):
        rest = (1 - float(gate[4])) * layer.value_weight @ at.super_category_encoding
        torch.testing.assert_close(value[4], float(gate[4]) * output + rest)


def test_the_digest_names_everything_that_decides_the_tensors(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    found = adapters(base)
    text = "a <tom> and <hat>"
    concepts = planned(found, ("tom", "hat"))

    def digest(
        text: str = text,
        concepts: Sequence[PlannedConcept] = concepts,
        lock: KeyLock = KeyLock.LOCAL,
        base: BaseModel = base,
    ) -> str:
        return plan(base, text, concepts, key_lock=lock).digest

    usual = digest()
    assert usual == digest()
    assert usual == digest(concepts=concepts[::-1])
    assert usual == digest(text="A  <tom> AND <hat> ")
    other_covariance = replace(base.covariance, ridge=0.1)
    variants = [
        digest(text="a <hat> and <tom>"),
        digest(text="a <tom> and <hat> <tom>"),
        digest(lock=KeyLock.GLOBAL),
        plan(base, text, concepts, key_lock=KeyLock.LOCAL, remainder=Remainder.NOTHING).digest,
        plan(base, text, concepts, key_lock=KeyLock.LOCAL, reach=Reach.EVERYWHERE).digest,
        digest(concepts=[replace(concepts[0], bias=0.61), concepts[1]]),
        digest(concepts=[replace(concepts[0], temperature=0.16), concepts[1]]),
        digest(concepts=[replace(concepts[0], adapter=found["teddy"]), concepts[1]]),
        digest(base=replace(base, covariance=other_covariance)),
        plan(base, "a cat").digest,
    ]
    assert len({usual, *variants}) == 1 + len(variants)


def test_the_request_decides_then_the_adapter_then_the_lock(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    found = random_adapter(base, 1, "cat", bias=0.65, temperature=0.12)

    def gate(lock: KeyLock | None, *request: float) -> torch.Tensor:
        concept = PlannedConcept("tom", found, *request)
        made = plan(base, "a <tom>", [concept], key_lock=lock, reach=Reach.EVERYWHERE)
        return made.similarity["tom"], made.gate["tom"]

    for lock, request, bias, temperature in (
        (None, (), 0.65, 0.12),
        (KeyLock.LOCAL, (), 0.65, 0.12),
        (KeyLock.GLOBAL, (), 0.4, 0.12),
        (KeyLock.GLOBAL, (0.4, 0.2), 0.4, 0.2),
        (KeyLock.LOCAL, (0.4, 0.2), 0.4, 0.2),
    ):
        similarity, opened = gate(lock, *request)
        torch.testing.assert_close(opened, torch.sigmoid((similarity - bias) / temperature))


def test_half_precision_rounds_the_outcome_and_not_the_gate(tiny_sd15: BaseModel) -> None:
    found = adapters(tiny_sd15)
    exact = plan(tiny_sd15, TEXT, planned(found))
    half = load_prepared(tiny_sd15.directory, dtype=torch.float16)
    half = replace(half, covariance=tiny_sd15.covariance)
    made = plan(half, TEXT, planned(found))
    assert made.similarity["tom"].dtype == torch.float32
    assert {tensor.dtype for tensor in (*made.keys, *made.values)} == {torch.float16}
    assert made.digest == exact.digest
    for value, expected in zip(made.values, exact.values, strict=True):
        assert (value.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("lock", list(KeyLock))
def test_a_prepared_concept_changes_nothing(base: BaseModel, lock: KeyLock) -> None:
    found = adapters(base, key_lock="TRAINED_K" if lock is KeyLock.TRAINED_K else "LOCAL")
    concepts = planned(found)
    prepared = [replace(c, prepared=prepare_concept(base, c.adapter)) for c in concepts]
    alone, again = (plan(base, TEXT, each, key_lock=lock) for each in (concepts, prepared))
    assert again.digest == alone.digest
    for one, other in zip((*alone.keys, *alone.values), (*again.keys, *again.values), strict=True):
        assert torch.equal(one, other)


def test_a_concept_prepared_for_something_else_is_refused(tiny_sd15: BaseModel) -> None:
    found = adapters(tiny_sd15)
    prepared = prepare_concept(tiny_sd15, found["tom"])
    with pytest.raises(InvalidArgument, match="<tom> was prepared for another"):
        plan(tiny_sd15, "a <tom>", [PlannedConcept("tom", found["hat"], prepared=prepared)])
    other = replace(tiny_sd15)
    with pytest.raises(InvalidArgument, match="another base model"):
        plan(other, "a <tom>", [PlannedConcept("tom", found["tom"], prepared=prepared)])


class Kept(dict[str, TextEncoding]):
    """A store that keeps everything, and counts what it had."""

    hits = 0

    def get(self, key: str, /) -> TextEncoding | None:  # type: ignore[override]
        self.hits += key in self
        return super().get(key)

    def put(self, key: str, value: TextEncoding, /) -> None:
        self[key] = value


def test_text_is_encoded_once_however_it_is_edited(base: BaseModel) -> None:
    found, store = adapters(base), Kept()

    def made(text: str, concept: PlannedConcept, lock: KeyLock) -> tuple[int, int]:
        before = store.hits
        kept = plan(base, text, [concept], key_lock=lock, store=store)
        fresh = plan(base, text, [concept], key_lock=lock)
        assert kept.digest == fresh.digest
        for one, other in zip(
            (*kept.keys, *kept.values), (*fresh.keys, *fresh.values), strict=True
        ):
            assert torch.equal(one, other)
        return len(store), store.hits - before

    tom, hat = (PlannedConcept("it", found[name]) for name in ("tom", "hat"))
    assert made("a photo of <it>", tom, KeyLock.LOCAL) == (1, 0)
    assert made("a photo of <it>", replace(tom, bias=0.3), KeyLock.LOCAL) == (1, 1)
    assert made("a photo of <it>", tom, KeyLock.GLOBAL) == (2, 1)
    # Another concept of the same super-category would share the second; this one is of another.
    assert made("a photo of <it>", hat, KeyLock.LOCAL) == (3, 0)
    assert made("a photo of <cat>", replace(tom, name="cat"), KeyLock.LOCAL) == (3, 1)
    twin = PlannedConcept("it", random_adapter(base, 9, "cat"))
    assert made("a photo of <it>", twin, KeyLock.GLOBAL) == (4, 1)


def test_rows_with_concepts_of_their_own_are_the_rows_alone(double_base: BaseModel) -> None:
    base = double_base
    found = list(adapters(base).values())
    prompts = [tokenise(base, Prompt.parse("a <it> in snow", ["it"]))] * 3
    encodings = encode_tokens(base, prompts, [{"it": a.embeddings} for a in found]).encodings

    def project(rows: list[int]) -> Projections:
        inputs = torch.stack([found[row].target_input for row in rows])[:, None]
        supers = torch.stack([found[row].super_category_encoding for row in rows])[:, None]
        values = torch.stack([found[row].value_output for row in rows])[:, None]
        picked = encodings[rows]
        on = strength(base, picked, inputs, 0.75, 0.1)
        return edited_projections(base, picked, on, values, locked_key_outputs(base, supers))

    together = project([0, 1, 2])
    for row in range(3):
        alone = project([row])
        for layer in range(len(base.layers)):
            for whole, part in zip(together, alone, strict=True):
                torch.testing.assert_close(
                    whole[layer][row], part[layer][0], rtol=1e-12, atol=1e-12
                )


def test_gradients_reach_outputs_and_embeddings_through_the_denoiser(
    double_base: BaseModel,
) -> None:
    base = double_base
    found = adapters(base)["tom"]
    tokens = [tokenise(base, Prompt.parse("a photo of <it>", ["it"]))]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64)
    parameters = {
        "value": found.value_output.clone().requires_grad_(),
        "key": locked_key_outputs(base, found.super_category_encoding).requires_grad_(),
        **{name: word.clone().requires_grad_() for name, word in found.embeddings.items()},
    }

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        words = {encoder.name: values[encoder.name] for encoder in base.encoders}
        encoding = encode_tokens(base, tokens, [{"it": words}])
        on = strength(base, encoding.encodings, found.target_input[None], 0.5, 0.3)
        projections = edited_projections(
            base, encoding.encodings, on, values["value"][None], values["key"][None]
        )
        conditioning = Conditioning.of(projections, encoding.encodings, encoding.pooled)
        with attach(base.unet):
            return denoise(base, latents, torch.tensor([500]), conditioning).square().sum()

    gradients = torch.autograd.grad(loss(parameters), list(parameters.values()))
    fixed = {name: tensor.detach() for name, tensor in parameters.items()}
    step = 1e-5
    for name, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (
            loss(fixed | {name: fixed[name] + sign * step * direction}).item() for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-4)
        assert abs(slope) > 1e-6


def test_refusals_name_the_concept_and_the_remedy(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    tom = adapters(base)["tom"]
    one = [PlannedConcept("tom", tom)]
    with pytest.raises(PromptRefused, match="<bob>"):
        plan(base, "a <bob>", one)
    with pytest.raises(PromptRefused, match="does not name <tom>"):
        plan(base, "a cat", one)
    with pytest.raises(InvalidArgument, match="same name"):
        plan(base, "a <tom>", one * 2)
    with pytest.raises(InvalidArgument, match="TRAINED_K needs stored keys"):
        plan(base, "a <tom>", one, key_lock=KeyLock.TRAINED_K)
    with pytest.raises(DependentConcepts, match=r"tom.*twin"):
        plan(base, "a <tom> and <twin>", [*one, PlannedConcept("twin", tom)])
    own = PlannedConcept("own", random_adapter(base, 5, "hat", key_lock="TRAINED_K"))
    with pytest.raises(InvalidArgument, match="different key locks"):
        plan(base, "a <tom> and <own>", [*one, own])
    assert plan(base, "a <own>", [own]).key_lock is KeyLock.TRAINED_K
    with pytest.raises(FailedPrecondition, match="perfuse base prepare"):
        plan(replace(base, covariance=None), "a <tom>", one)
    foreign = replace(tom, metadata=replace(tom.metadata, base_model="sha256:" + "1" * 64))
    with pytest.raises(BaseModelMismatch, match=r"<tom> was trained on .*sha256:1111"):
        plan(base, "a <tom>", [PlannedConcept("tom", foreign)])


def test_a_batch_has_one_base_model(tiny_sd15: BaseModel, tiny_sd21: BaseModel) -> None:
    plans: list[ConditioningPlan] = [plan(tiny_sd15, "a cat"), plan(tiny_sd21, "a cat")]
    with pytest.raises(BaseModelMismatch, match="2 base models"):
        stack(plans)
    with pytest.raises(InvalidArgument, match="at least one row"):
        stack([])


def test_added_in_place_or_not_the_edit_is_the_same(double_base: BaseModel) -> None:
    """Without gradients W e itself becomes the outcome; training has memory of its own for it."""
    base, found = double_base, adapters(double_base)
    ready = [prepare_concept(base, found[name]) for name in ("tom", "teddy")]
    encodings = encode(base, "a photo of a cat in the snow").encodings
    inputs = torch.stack([each.target_input for each in ready])
    outputs = torch.stack([each.value_output for each in ready])

    def edited() -> Projections:
        on = strength(base, encodings, inputs, 0.6, 0.15)
        return edited_projections(base, encodings, on, outputs, outputs)

    before = encodings.clone()
    with torch.no_grad():
        ours = edited()
    theirs = edited()
    for one, other in zip((*ours.keys, *ours.values), (*theirs.keys, *theirs.values), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert torch.equal(encodings, before)


def test_what_another_caller_told_the_tokenizer_cuts_no_prompt(base: BaseModel) -> None:
    """Stock pipelines have it cut and fill what it reads, and leave it so."""
    prompt = Prompt.parse(TEXT, ("tom", "teddy", "hat"))
    tokenizers = [encoder.tokenizer for encoder in base.encoders]
    before = prompt.body(tokenizers)
    for tokenizer in tokenizers:
        tokenizer("a photo", padding="max_length", truncation=True, max_length=4)
        assert tokenizer.backend_tokenizer.truncation is not None
    assert prompt.body(tokenizers) == before
    assert prompt.body(tokenizers) == before
