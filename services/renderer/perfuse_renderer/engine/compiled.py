"""The denoiser compiled: one graph for each shape of batch, whatever the batch holds.

Concepts, timesteps, guidance and schedulers reach the denoiser as values of tensors whose shapes
are the batch's, so that no request makes a new graph. Only shapes that were prepared have one;
others are stepped as they are, for a compilation takes minutes and everyone would wait.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from perfuse.attach import BaseModel, Conditioning, denoise, predict
from perfuse.errors import FailedPrecondition

Backend = str | Callable[..., Any]
Shape = tuple[int, ...]


class CompiledDenoiser:
    """`perfuse.attach.denoise`, for rendering alone: it computes no gradients.

    Args:
        base: the base model, attached before the first step and until the last.
        backend: of `torch.compile`.
        cuda_graphs: record each graph's kernels and replay them at once, where the device is CUDA;
            costs a copy of the batch's keys and values a step, and saves the launches.
    """

    def __init__(
        self, base: BaseModel, *, backend: Backend = "inductor", cuda_graphs: bool = True
    ) -> None:
        self._backend = backend
        self._replayed = cuda_graphs and backend == "inductor" and base.device.type == "cuda"
        self._graphs: dict[Shape, Any] = {}
        self._made: set[Shape] = set()

    @property
    def shapes(self) -> frozenset[Shape]:
        """Lanes, channels, height and width of latents, and positions of text, with a graph."""
        return frozenset(self._made)

    def prepare(self, latents: torch.Tensor, conditioning: Conditioning) -> None:
        """Have batches of this shape compiled, when the first one is stepped."""
        shape = _shape(latents, conditioning)
        if shape not in self._graphs:
            self._graphs[shape] = torch.compile(
                _copy(predict, f"predict_{len(self._graphs)}"),
                fullgraph=True,
                dynamic=False,
                backend=self._backend,
                mode="reduce-overhead" if self._replayed else None,
            )

    def __call__(
        self,
        base: BaseModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """As `denoise`.

        Raises:
            FailedPrecondition: the denoiser cannot be compiled here.
        """
        shape = _shape(latents, conditioning)
        graph = self._graphs.get(shape)
        if graph is None:
            return denoise(base, latents, timesteps, conditioning)
        # Rows whose latents lie otherwise in memory would count as another shape.
        latents = latents.contiguous()
        if self._replayed:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            prediction = denoise(base, latents, timesteps, conditioning, call=graph)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if shape in self._made:
                raise
            del self._graphs[shape]
            raise FailedPrecondition(
                f"the denoiser cannot be compiled on this machine ({type(error).__name__}). "
                "Install what torch.compile needs, a C++ compiler for one, or do not compile"
            ) from error
        self._made.add(shape)
        # A replay writes where the one before it wrote, and schedulers keep predictions.
        return prediction.clone() if self._replayed else prediction


def _shape(latents: torch.Tensor, conditioning: Conditioning) -> Shape:
    return (*latents.shape, conditioning.encodings.shape[1])


def _copy(function: Any, name: str) -> Any:
    """The same function with code of its own: torch counts and limits graphs by code."""
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, function.__defaults__)
