"""A base model: a frozen diffusers checkpoint, loaded from a local directory and named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from perfuse.attach import fingerprint as naming
from perfuse.attach.covariance_asset import CovarianceAsset
from perfuse.attach.layers import CrossAttentionLayer, cross_attention_layers
from perfuse.attach.suitability import pipeline_class, require_complete, require_supported
from perfuse.errors import BaseModelUnsuitable, FailedPrecondition
from perfuse.method import PredictionType

PREDICTIONS: dict[str, PredictionType] = {name: name for name in get_args(PredictionType)}


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """One text encoder with its tokenizer.

    Attributes:
        name: "text_encoder" or "text_encoder_2", as in the diffusers layout.
        tokenizer: the shipped CLIP tokenizer; never grown.
        module: the shipped CLIP text model; its embedding matrix is never touched.
    """

    name: str
    tokenizer: Any
    module: Any

    @property
    def width(self) -> int:
        """Width of its word embeddings and encodings."""
        return int(self.module.config.hidden_size)

    @property
    def text_model(self) -> Any:
        """The transformer proper, without the projection that pooling adds."""
        return getattr(self.module, "text_model", self.module)


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen base model with everything that conditioning needs to know about it.

    Attributes:
        directory: where it was loaded from.
        pipeline: the stock diffusers pipeline over the same modules.
        fingerprint: "sha256:...", the same for the same weights in any file layout.
        architecture: family and conditioning width, such as "sd-768" or "sdxl-2048".
        layers: cross-attention layers in the declared order.
        encoders: text encoders in the order in which their encodings are concatenated.
        prediction_type: "epsilon" or "v_prediction".
        covariance: the prepared asset, or None before `perfuse base prepare`.
    """

    directory: Path
    pipeline: Any
    fingerprint: str
    architecture: str
    layers: tuple[CrossAttentionLayer, ...]
    encoders: tuple[TextEncoder, ...]
    prediction_type: PredictionType
    covariance: CovarianceAsset | None

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        with_covariance: bool = True,
    ) -> BaseModel:
        """Load a Stable-Diffusion-type directory (SD1.x, SD2.x, SDXL) from local disk.

        Nothing is ever fetched, only safetensors files are opened, and a shipped safety checker
        is not loaded. All weights are frozen.

        Args:
            directory: in diffusers layout, as `save_pretrained` of a pipeline writes it.
            dtype: that the weights are converted to.
            device: that they are moved to.
            with_covariance: read the prepared covariance, where there is one.

        Raises:
            NotFound: the directory or one of its parts is not there.
            BaseModelUnsuitable: it is there, but cannot be loaded or edited.
            DataLoss: the covariance beside it is damaged.
            BaseModelMismatch: the covariance beside it belongs to other weights.
        """
        home = Path(directory)
        family = pipeline_class(home)
        variant = naming.file_variant(home)
        without = {}
        if family is StableDiffusionPipeline:
            without = {"safety_checker": None, "requires_safety_checker": False}
        try:
            pipeline = family.from_pretrained(
                str(home),
                dtype=dtype,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                **without,
            )
        except (OSError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise BaseModelUnsuitable(
                f"{home} cannot be loaded by diffusers' {family.__name__}: {error}"
            ) from error
        return cls._of(pipeline, home, device, with_covariance)

    @classmethod
    def _of(
        cls, pipeline: Any, directory: Path, device: str | torch.device, with_covariance: bool
    ) -> BaseModel:
        """Judge a pipeline that was loaded from `directory` and name it."""
        encoders = _encoders(pipeline)
        unet = pipeline.unet
        require_supported(unet)
        layers = cross_attention_layers(unet)
        width = int(layers[0].value_weight.shape[1])
        if width != sum(encoder.width for encoder in encoders):
            raise BaseModelUnsuitable(
                f"the denoiser reads encodings {width} wide, but the text encoders give "
                f"{' + '.join(str(encoder.width) for encoder in encoders)}"
            )
        prediction = str(pipeline.scheduler.config.get("prediction_type", "epsilon"))
        if prediction not in PREDICTIONS:
            raise BaseModelUnsuitable(
                f"the scheduler's prediction_type is {prediction!r}; {' or '.join(PREDICTIONS)} "
                "is supported"
            )
        digests = naming.tensor_digests(directory)
        require_complete(pipeline, digests)
        name = naming.combine(digests, _function(pipeline, encoders, prediction))
        family = "sd" if len(encoders) == 1 else "sdxl"
        for module in (unet, pipeline.vae, *(encoder.module for encoder in encoders)):
            module.requires_grad_(False)
            module.eval()
        pipeline.to(device)
        return cls(
            directory=directory,
            pipeline=pipeline,
            fingerprint=name,
            architecture=f"{family}-{width}",
            layers=layers,
            encoders=encoders,
            prediction_type=PREDICTIONS[prediction],
            covariance=(
                CovarianceAsset.find(directory, fingerprint=name, width=width)
                if with_covariance
                else None
            ),
        )

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.pipeline.unet

    @property
    def vae(self) -> Any:
        """The autoencoder between pictures and latents."""
        return self.pipeline.vae

    @property
    def device(self) -> torch.device:
        """Where the denoiser's weights are."""
        return self.layers[0].value_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the weights were loaded in."""
        return self.layers[0].value_weight.dtype

    @property
    def conditioning_width(self) -> int:
        """d, the width of the text encoding that keys and values are computed from."""
        return sum(encoder.width for encoder in self.encoders)

    @property
    def positions(self) -> int:
        """M, the number of positions of a text, padding included; of each chunk of a long one."""
        return int(self.encoders[0].tokenizer.model_max_length)

    @property
    def pooled(self) -> bool:
        """Whether the denoiser also reads a pooled encoding and the picture's size (SDXL)."""
        return len(self.encoders) > 1

    @property
    def inverse_covariance(self) -> torch.Tensor:
        """C⁻¹ [d, d] on the base's device, in float32 or in float64 where the base is.

        Raises:
            FailedPrecondition: the base has not been prepared.
        """
        if self.covariance is None:
            raise FailedPrecondition(
                f"the base model in {self.directory} has no covariance, which every edit needs; "
                f"run: perfuse base prepare {self.directory} --captions FILE"
            )
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return self.covariance.inverse(device=self.device, dtype=dtype)


def _encoders(pipeline: Any) -> tuple[TextEncoder, ...]:
    found = []
    for suffix in ("", "_2"):
        module = getattr(pipeline, f"text_encoder{suffix}", None)
        if module is not None:
            tokenizer = getattr(pipeline, f"tokenizer{suffix}")
            found.append(TextEncoder(f"text_encoder{suffix}", tokenizer, module))
    for encoder in found:
        if not isinstance(encoder.module, CLIPTextModel | CLIPTextModelWithProjection):
            raise BaseModelUnsuitable(
                f"{encoder.name} is a {type(encoder.module).__name__}; CLIP text models are "
                "supported"
            )
        limit = encoder.tokenizer.model_max_length
        room = encoder.module.config.max_position_embeddings
        if limit > room:
            raise BaseModelUnsuitable(
                f"the tokenizer of {encoder.name} allows {limit} positions, but the encoder has "
                f"{room}; set model_max_length in its tokenizer_config.json"
            )
    if len({encoder.tokenizer.model_max_length for encoder in found}) > 1:
        raise BaseModelUnsuitable("the two tokenizers pad prompts to different lengths")
    return tuple(found)


def _function(pipeline: Any, encoders: tuple[TextEncoder, ...], prediction: str) -> dict[str, Any]:
    """What decides the function computed and is not in a tensor's shape or values."""
    heads = pipeline.unet.config
    return {
        "prediction_type": prediction,
        "latent_scale": pipeline.vae.config.scaling_factor,
        # diffusers calls head counts "attention_head_dim" in these denoisers, for historic reasons.
        "denoiser_heads": _listed(heads.num_attention_heads or heads.attention_head_dim),
        "encoders": {
            encoder.name: {
                "vocabulary": _vocabulary(encoder.tokenizer),
                "positions": encoder.tokenizer.model_max_length,
                "special": [
                    encoder.tokenizer.bos_token_id,
                    encoder.tokenizer.eos_token_id,
                    encoder.tokenizer.pad_token_id,
                ],
                "activation": encoder.module.config.hidden_act,
                "heads": encoder.module.config.num_attention_heads,
            }
            for encoder in encoders
        },
    }


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    """Tokens and merges as the tokenizer uses them, whichever files it came from."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    return {"tokens": tokenizer.get_vocab(), "merges": merges}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
