"""Conditioning of a diffusers pipeline: the library's only acquaintance with diffusers.

A prompt and the adapters that it names become a plan, the keys and values of every
cross-attention layer; plans become a batch; the denoiser reads the batch. Nothing of the base
model is changed on the way.
"""

from perfuse.attach.base_model import BaseModel, TextEncoder
from perfuse.attach.chunks import MAX_CHUNKS, Chunks, split, with_super_categories
from perfuse.attach.conditioning import Conditioning, concatenate
from perfuse.attach.covariance_asset import CovarianceAsset
from perfuse.attach.encoding import (
    Encoding,
    encode,
    encode_chunks,
    encode_tokens,
    super_category_encodings,
    tokenise,
)
from perfuse.attach.encoding_store import EncodingStore, TextEncoding
from perfuse.attach.layers import CrossAttentionLayer, cross_attention_layers
from perfuse.attach.plan import ConditioningPlan, plan, stack, unconditional
from perfuse.attach.planned_concept import PlannedConcept, gate_parameters
from perfuse.attach.prepare import prepare
from perfuse.attach.prepared_concept import PreparedConcept, prepare_concept
from perfuse.attach.processor import Attachment, attach, is_attached
from perfuse.attach.projection import (
    Projections,
    Strength,
    edited_projections,
    initial_value_outputs,
    locked_key_outputs,
    plain_keys,
    plain_projections,
    projected_by_keys,
    projected_by_values,
    split_outputs,
    strength,
)
from perfuse.attach.prompt import Named, Prompt
from perfuse.attach.render import denoise, generate, predict
from perfuse.attach.silence import silence_loading
from perfuse.attach.tokens import Slot, Tokens

__all__ = [
    "MAX_CHUNKS",
    "Attachment",
    "BaseModel",
    "Chunks",
    "Conditioning",
    "ConditioningPlan",
    "CovarianceAsset",
    "CrossAttentionLayer",
    "Encoding",
    "EncodingStore",
    "Named",
    "PlannedConcept",
    "PreparedConcept",
    "Projections",
    "Prompt",
    "Slot",
    "Strength",
    "TextEncoder",
    "TextEncoding",
    "Tokens",
    "attach",
    "concatenate",
    "cross_attention_layers",
    "denoise",
    "edited_projections",
    "encode",
    "encode_chunks",
    "encode_tokens",
    "gate_parameters",
    "generate",
    "initial_value_outputs",
    "is_attached",
    "locked_key_outputs",
    "plain_keys",
    "plain_projections",
    "plan",
    "predict",
    "prepare",
    "prepare_concept",
    "projected_by_keys",
    "projected_by_values",
    "silence_loading",
    "split",
    "split_outputs",
    "stack",
    "strength",
    "super_category_encodings",
    "tokenise",
    "unconditional",
    "with_super_categories",
]
