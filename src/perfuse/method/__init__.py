"""The method of Perfusion (Tewel et al., SIGGRAPH 2023), one equation per function, in torch alone.

Every function takes any floating-point type, any device and any leading axes. The symbols and the
functions stand side by side in docs/method.md.
"""

from perfuse.key_lock import KeyLock
from perfuse.method.blend import (
    Activity,
    activity,
    blend,
    change,
    change_terms,
    coordinates,
    dual_inputs,
    similarities,
)
from perfuse.method.covariance import Covariance, CovarianceAccumulator
from perfuse.method.edit import edit
from perfuse.method.gate import gate, inner_product, similarity
from perfuse.method.key_lock import key_positions, locked_key_output
from perfuse.method.loss import PredictionType, diffusion_target, masked_loss, soft_mask
from perfuse.method.reach import Reach
from perfuse.method.remainder import Filled, Remainder, filled
from perfuse.method.target_input import running_mean

__all__ = [
    "Activity",
    "Covariance",
    "CovarianceAccumulator",
    "Filled",
    "KeyLock",
    "PredictionType",
    "Reach",
    "Remainder",
    "activity",
    "blend",
    "change",
    "change_terms",
    "coordinates",
    "diffusion_target",
    "dual_inputs",
    "edit",
    "filled",
    "gate",
    "inner_product",
    "key_positions",
    "locked_key_output",
    "masked_loss",
    "running_mean",
    "similarities",
    "similarity",
    "soft_mask",
]
