"""The fingerprint names weights, not files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bases import BEGIN
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection

from perfuse.attach import BaseModel
from perfuse.errors import BaseModelUnsuitable, NotFound

DENOISER = Path("unet") / "diffusion_pytorch_model.safetensors"


def fingerprint(directory: Path) -> str:
    return BaseModel.load(directory).fingerprint


@pytest.fixture
def copy(tiny_sdxl_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sdxl_dir, tmp_path / "copy"))


def test_does_not_depend_on_the_dtype_loaded_in(directory: Path) -> None:
    names = {
        BaseModel.load(directory, dtype=dtype).fingerprint
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    }
    assert len(names) == 1
    assert names.pop().startswith("sha256:")


def test_is_the_same_for_shards_and_for_half_precision_files(copy: Path) -> None:
    expected = fingerprint(copy)
    for component, kind in (
        ("unet", UNet2DConditionModel),
        ("vae", AutoencoderKL),
        ("text_encoder", CLIPTextModel),
        ("text_encoder_2", CLIPTextModelWithProjection),
    ):
        module = kind.from_pretrained(copy / component)
        for path in (copy / component).glob("*.safetensors"):
            path.unlink()
        if component == "text_encoder":
            module.half().save_pretrained(copy / component)
        elif component == "text_encoder_2":
            module.save_pretrained(copy / component, max_shard_size="60KB")
        elif component == "vae":
            module.half().save_pretrained(copy / component)
        else:
            module.save_pretrained(copy / component, max_shard_size="400KB")
    assert len(list((copy / "unet").glob("*.safetensors"))) > 2
    assert len(list((copy / "text_encoder_2").glob("*.safetensors"))) > 2
    assert fingerprint(copy) == expected


@pytest.mark.parametrize(
    "components", [("unet",), ("unet", "vae", "text_encoder", "text_encoder_2")]
)
def test_is_the_same_where_only_the_fp16_variant_is_there(
    copy: Path, components: tuple[str, ...]
) -> None:
    expected = fingerprint(copy)
    loaded = BaseModel.load(copy).pipeline
    for component in components:
        for path in (copy / component).glob("*.safetensors"):
            path.unlink()
        getattr(loaded, component).half().save_pretrained(copy / component, variant="fp16")
    assert (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    assert fingerprint(copy) == expected


def test_is_the_same_for_the_names_that_older_releases_wrote(copy: Path) -> None:
    expected = fingerprint(copy)
    path = copy / "text_encoder" / "model.safetensors"
    old = {f"text_model.{name}": tensor for name, tensor in load_file(path).items()}
    old["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(old, path, {"format": "pt"})
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, former in renames.items():
            name = name.replace(f".{new}.", f".{former}.")
        tensors[name] = tensor
    assert any(".query." in name for name in tensors)
    save_file(tensors, path, {"format": "pt"})
    assert fingerprint(copy) == expected


def test_is_the_same_for_a_tokenizer_as_vocabulary_and_merges(copy: Path) -> None:
    expected = fingerprint(copy)
    home = copy / "tokenizer"
    model = json.loads((home / "tokenizer.json").read_text())["model"]
    (home / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "".join(f"{first} {second}\n" for first, second in model["merges"])
    (home / "merges.txt").write_text("#version: 0.2\n" + merges)
    (home / "tokenizer.json").unlink()
    assert AutoTokenizer.from_pretrained(home)("a cat").input_ids
    assert fingerprint(copy) == expected


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_changes_with_one_weight(copy: Path, component: str) -> None:
    before = fingerprint(copy)
    path = next((copy / component).glob("*.safetensors"))
    tensors = load_file(path)
    name = sorted(tensors)[len(tensors) // 2]
    tensors[name].view(-1)[0] += 0.01
    save_file(tensors, path, {"format": "pt"})
    assert fingerprint(copy) != before


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("scheduler/scheduler_config.json", "prediction_type", "v_prediction"),
        ("unet/config.json", "attention_head_dim", [4, 4]),
        ("text_encoder/config.json", "hidden_act", "gelu"),
    ],
)
def test_changes_with_the_function_computed(copy: Path, file: str, key: str, value: object) -> None:
    before = fingerprint(copy)
    config = json.loads((copy / file).read_text())
    assert config[key] != value
    (copy / file).write_text(json.dumps(config | {key: value}))
    assert fingerprint(copy) != before


def test_changes_with_the_vocabulary(copy: Path) -> None:
    before = fingerprint(copy)
    path = copy / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    tokens = content["model"]["vocab"]
    tokens["cat</w>"], tokens["dog</w>"] = tokens["dog</w>"], tokens["cat</w>"]
    path.write_text(json.dumps(content))
    assert fingerprint(copy) != before


def test_covers_every_weight_that_is_loaded(copy: Path) -> None:
    path = copy / DENOISER
    tensors = load_file(path)
    del tensors["conv_out.bias"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(BaseModelUnsuitable, match=r"unet lack 1 of .*conv_out\.bias"):
        BaseModel.load(copy)


@pytest.mark.filterwarnings("ignore")
def test_refuses_what_it_cannot_load_in_words(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not a directory"):
        BaseModel.load(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"model_index\.json is missing"):
        BaseModel.load(tmp_path)
    shutil.move(copy / "vae", tmp_path / "vae")
    with pytest.raises(NotFound, match="lacks vae/"):
        BaseModel.load(copy)
    shutil.move(tmp_path / "vae", copy / "vae")
    (copy / DENOISER).rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseModelUnsuitable, match="pickled weights are never opened"):
        BaseModel.load(copy)
    (copy / "unet" / "diffusion_pytorch_model.bin").rename(copy / DENOISER)
    whole = (copy / DENOISER).read_bytes()
    (copy / DENOISER).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BaseModelUnsuitable):
        BaseModel.load(copy)
    (copy / DENOISER).write_bytes(whole)
    index = json.loads((copy / "model_index.json").read_text())
    index["unet"] = ["diffusers", "FluxTransformer2DModel"]
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelUnsuitable, match="FluxTransformer2DModel"):
        BaseModel.load(copy)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(BaseModelUnsuitable, match="not readable JSON"):
        BaseModel.load(copy)


def test_loads_frozen_and_says_what_it_is(base: BaseModel) -> None:
    stated = (base.architecture, base.prediction_type, base.pooled, base.positions)
    assert stated in {
        ("sd-32", "epsilon", False, 77),
        ("sd-40", "v_prediction", False, 77),
        ("sdxl-56", "epsilon", True, 77),
    }
    assert base.conditioning_width == base.layers[0].key_weight.shape[1]
    modules = [base.unet, base.vae, *(encoder.module for encoder in base.encoders)]
    assert not any(weight.requires_grad for module in modules for weight in module.parameters())
    assert not any(module.training for module in modules)
    assert all(BEGIN in encoder.tokenizer.get_vocab() for encoder in base.encoders)
