"""The target input of a finished concept: where its encoding is, and nothing else changed there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perfuse import method
from perfuse.adapter import Adapter
from perfuse.attach import (
    BaseModel,
    attach,
    edited_projections,
    encode_tokens,
    locked_key_outputs,
    strength,
)
from perfuse.method import KeyLock
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.settling import settled
from trainer.test_loop import BASES, finish, loop

OPEN = -1e6
"""A bias at which every gate is open."""


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest) -> BaseModel:
    found: BaseModel = request.getfixturevalue(request.param)
    return found


def run_of(base: BaseModel, lock: KeyLock) -> TrainingLoop:
    # A word that moves fast leaves the running mean behind.
    return finish(loop(base, key_lock=lock, embedding_rate=0.5, bias=0.3), base)


def encodings_of(base: BaseModel, run: TrainingLoop, adapter: Adapter) -> Tensor:
    """The concept's encoding in each template."""
    name, prompts = run.learning.settings.placeholder, run.learning.prompts
    words = [{name: adapter.embeddings}] * len(prompts)
    return encode_tokens(base, prompts, words).at_slots(name)


def similarity_to(base: BaseModel, encodings: Tensor, adapter: Adapter) -> Tensor:
    return method.similarities(encodings, adapter.target_input[None], base.inverse_covariance)


def opened(base: BaseModel, encodings: Tensor, adapter: Adapter) -> tuple[Tensor, ...]:
    """Keys and values of encodings [M, d] by Eq. 3 with the gate open."""
    on = strength(base, encodings, adapter.target_input[None], OPEN, 0.1)
    keys = adapter.key_output
    if keys is None:
        keys = locked_key_outputs(base, adapter.super_category_encoding)
    made = edited_projections(base, encodings, on, adapter.value_output[None], keys[None])
    return (*made.values, *(made.keys if adapter.key_output is not None else ()))


@pytest.mark.parametrize("lock", [KeyLock.LOCAL, KeyLock.TRAINED_K])
def test_at_the_concepts_encoding_the_edit_gives_what_it_gave(
    base: BaseModel, lock: KeyLock
) -> None:
    run = run_of(base, lock)
    before, after = (
        run.adapter(best=False, settle=settle, dtype="float32") for settle in (False, True)
    )
    place = encodings_of(base, run, after).mean(0, keepdim=True)
    assert not torch.allclose(similarity_to(base, place, before), torch.ones(1, 1), atol=0.05)
    torch.testing.assert_close(similarity_to(base, place, after), torch.ones(1, 1))
    torch.testing.assert_close(after.target_input, place[0])
    for ours, theirs in zip(opened(base, place, after), opened(base, place, before), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_with_the_gate_shut_nothing_of_the_concept_is_left_there(base: BaseModel) -> None:
    """Before, W (e − s i*) was no gate's."""
    run = run_of(base, KeyLock.LOCAL)
    lengths = []
    for settle in (False, True):
        adapter = run.adapter(best=False, settle=settle, dtype="float32")
        place = encodings_of(base, run, adapter).mean(0, keepdim=True)
        shut = strength(base, place, adapter.target_input[None], -OPEN, 0.1)
        zero = torch.zeros_like(adapter.value_output)[None]
        made = edited_projections(base, place, shut, zero, zero)
        lengths.append(torch.cat(made.values, dim=-1).norm().item())
    assert lengths[1] < 1e-3 * lengths[0]


def test_what_training_fixes_stays(base: BaseModel) -> None:
    run = run_of(base, KeyLock.LOCAL)
    before, after = (run.adapter(settle=settle, dtype="float32") for settle in (False, True))
    assert torch.equal(after.super_category_encoding, before.super_category_encoding)
    for name, word in before.embeddings.items():
        assert torch.equal(after.embeddings[name], word)
    assert after.key_output is None
    assert after.metadata == before.metadata


def test_a_state_settles_alike_whatever_was_learned_since(base: BaseModel) -> None:
    run = loop(base, steps=4)
    with attach(base.unet):
        run.step()
        state = run.learning.state()
        kept = {name: value.clone() for name, value in state.items()}
        first = settled(base, run.learning, state)
        run.step()
    again = settled(base, run.learning, state)
    assert first.keys() == again.keys() == state.keys()
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(state[name], kept[name])


def test_settled_once_it_stays(base: BaseModel) -> None:
    run = run_of(base, KeyLock.TRAINED_K)
    once = settled(base, run.learning, run.learning.state())
    for name, value in settled(base, run.learning, once).items():
        torch.testing.assert_close(value, once[name], rtol=1e-4, atol=1e-5)
