"""Attention that takes its keys and values from a conditioning.

Attaching puts a processor of ours on every attention layer of the denoiser. The conditioning
itself comes with each call, through diffusers' `cross_attention_kwargs`, and is stored nowhere:
no call can see another's, and a call without one is served by the stock processor as before.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.nn import functional

from perfuse.attach.conditioning import Conditioning
from perfuse.attach.layers import cross_attention_layers
from perfuse.errors import BaseModelUnsuitable, FailedPrecondition, WrongShape

KEYWORD = "conditioning"
"""The entry of `cross_attention_kwargs` that carries a `Conditioning`."""


class ConditionedAttention:
    """The processor of one cross-attention layer.

    Args:
        index: which layer of the conditioning to take, in the declared order.
        stock: the processor to fall back on where a call carries no conditioning.
    """

    def __init__(self, index: int, stock: Any) -> None:
        self.index = index
        self.stock = stock

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        conditioning: Conditioning | None = None,
    ) -> torch.Tensor:
        """Attention over the conditioning's keys and values, in diffusers' own arithmetic.

        Args:
            attn: the layer.
            hidden_states: what asks, [B, N, c].
            encoder_hidden_states: not read where there is a conditioning.
            attention_mask: added to the scores, as diffusers prepares it.
            temb: read by the stock processor alone.
            conditioning: keys and values for B rows.

        Raises:
            WrongShape: the conditioning has another number of rows than the batch.
        """
        if conditioning is None:
            result: torch.Tensor = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )
            return result
        key, value = conditioning.keys[self.index], conditioning.values[self.index]
        rows, positions, width = key.shape
        if rows != hidden_states.shape[0]:
            raise WrongShape(
                f"the conditioning has {rows} rows and the batch {hidden_states.shape[0]}; with "
                "guidance the batch is the unconditional rows, then the conditional ones"
            )
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, positions, rows)
            attention_mask = attention_mask.view(rows, attn.heads, -1, attention_mask.shape[-1])
        heads = (rows, -1, attn.heads, width // attn.heads)
        attended = functional.scaled_dot_product_attention(
            attn.to_q(hidden_states).view(heads).transpose(1, 2),
            key.view(heads).transpose(1, 2),
            value.view(heads).transpose(1, 2),
            attn_mask=attention_mask,
            dropout_p=0.0,
            is_causal=False,
        )
        attended = attended.transpose(1, 2).reshape(rows, -1, width)
        # to_out is the output projection and a dropout that a frozen base never applies.
        attended = attn.to_out[1](attn.to_out[0](attended))
        if attn.residual_connection:
            attended = attended + hidden_states
        output: torch.Tensor = attended / attn.rescale_output_factor
        return output


class SelfAttention:
    """The processor of one self-attention layer: the stock one, deaf to the conditioning.

    diffusers hands `cross_attention_kwargs` to self-attention too, and a stock processor logs a
    warning for each argument that it does not know.
    """

    def __init__(self, stock: Any) -> None:
        self.stock = stock

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        conditioning: Conditioning | None = None,
    ) -> torch.Tensor:
        """The stock processor's output."""
        result: torch.Tensor = self.stock(
            attn, hidden_states, encoder_hidden_states, attention_mask, temb
        )
        return result


class Attachment:
    """Our processors on a denoiser; a context manager that takes them off at its end."""

    def __init__(self, unet: Any) -> None:
        layers = cross_attention_layers(unet)
        crossing = {id(layer.attention): index for index, layer in enumerate(layers)}
        self._places: list[tuple[Any, Any, Any]] = []
        places = [module for module in unet.modules() if isinstance(module, Attention)]
        for attention in places:
            stock = attention.processor
            if not isinstance(stock, AttnProcessor2_0):
                raise BaseModelUnsuitable(
                    f"an attention layer has the processor {type(stock).__name__}; attach to a "
                    "pipeline with diffusers' default processors (AttnProcessor2_0), once"
                )
            index = crossing.get(id(attention))
            ours = SelfAttention(stock) if index is None else ConditionedAttention(index, stock)
            self._places.append((attention, stock, ours))
        for attention, _, ours in self._places:
            attention.processor = ours

    def detach(self) -> None:
        """Put the very processors back that were there before. Detaching twice does nothing.

        Raises:
            FailedPrecondition: someone else has replaced a processor meanwhile.
        """
        if any(attention.processor is not ours for attention, _, ours in self._places):
            raise FailedPrecondition(
                "a processor was replaced after attaching; undo that first, then detach"
            )
        for attention, stock, _ in self._places:
            attention.processor = stock
        self._places = []

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()


def attach(unet: Any) -> Attachment:
    """Put our processors on a denoiser: of a `BaseModel`, or of any Stable Diffusion pipeline.

    It may stay attached for as long as the process lives; calls without a conditioning give what
    they gave before, bit for bit. Use it as a context manager, or call `detach`.

    Args:
        unet: a `UNet2DConditionModel`.

    Raises:
        BaseModelUnsuitable: layers that cannot be edited, or processors that are not stock.
    """
    return Attachment(unet)


def is_attached(unet: Any) -> bool:
    """Whether our processors are on a denoiser."""
    return any(
        isinstance(getattr(module, "processor", None), ConditionedAttention)
        for module in unet.modules()
    )
