"""The target input that a finished concept keeps: its encoding as it is, not as it was.

In training i* is a running mean (paper Sec. 4.4), and the word embedding moves on under it: after a
hundred steps i* can lie nearer to the super-category than to the concept's own encoding. What lies
between the two is in no gated term: no bias turns it down, and the gate judges by a place where the
concept no longer is. So when an adapter is taken, i* moves to where the concept's encoding is, and
the target outputs move along:

    i*'  = mean of e over the templates
    s    = ⟨i*, i*'⟩ / ⟨i*, i*⟩
    o*'  = o* + W (i*' − s i*)

At i*' and with an open gate the edit gives what it gave before, W (i*' − s i*) + o*.
Decision 32 has the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from perfuse import method
from perfuse.attach import BaseModel, encode_tokens, projected_by_keys, projected_by_values
from perfuse.method.operands import result_dtype
from perfuse_trainer.learning.learning import Learning


@torch.no_grad()
def settled(base: BaseModel, learning: Learning, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of `learning` with its target input at the concept's encoding.

    The same state gives the same bits, whatever `learning` has become since.

    Args:
        base: The base model, prepared.
        learning: Gives the templates, tokenised, and what is trained.
        state: `Learning.state()` of any step.

    Returns:
        The state with another `target_input` and `value_output`, and another `key_output` where
        keys are trained (a locked one does not depend on the target input); on the CPU.
    """
    device, name = base.device, learning.settings.placeholder
    words = {
        encoder.name: state[f"embedding.{encoder.name}"].to(device) for encoder in base.encoders
    }
    prompts = learning.prompts
    encodings = encode_tokens(base, prompts, [{name: words}] * len(prompts)).at_slots(name)
    before = state["target_input"].to(device)
    after = encodings.to(result_dtype(encodings, before)).mean(0)
    inverse = base.inverse_covariance
    similarity = method.similarities(after[None], before[None], inverse)[0, 0]
    moved = after - similarity * before
    changed = {
        "target_input": after,
        "value_output": state["value_output"].to(device) + projected_by_values(base, moved),
    }
    if isinstance(learning.key_output, torch.nn.Parameter):
        changed["key_output"] = state["key_output"].to(device) + projected_by_keys(base, moved)
    return dict(state) | {key: value.cpu() for key, value in changed.items()}
