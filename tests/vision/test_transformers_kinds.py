"""More kinds of models of the transformers library: whatever gives maps or patch tokens works at any size it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qpm_opt import InvalidInputError
from qpm_vision import _torchvision  # noqa: F401  (first: transformers imports torchvision)
from qpm_vision.backbones import RANDOM, BackboneWeightsError, build_backbone
from qpm_vision.backbones.trial import try_out

pytest.importorskip("transformers")

_VIT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 16,
    "image_size": 64,
}
_STAGES: dict[str, Any] = {
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "image_size": 64,
}
_SWIN: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 64}
KINDS: dict[str, tuple[dict[str, Any], int, tuple[int, int]]] = {
    # kind: its configuration; side of an image; features and side of the maps
    "beit": (_VIT, 96, (16, 6)),
    "clip": ({"vision_config": _VIT}, 96, (16, 6)),
    "data2vec-vision": (_VIT, 64, (16, 4)),
    "deit": (_VIT, 96, (16, 6)),
    "dinov3_convnext": ({"hidden_sizes": [8, 8, 8, 24], "depths": [1] * 4}, 96, (24, 3)),
    "dinov3_vit": ({**_VIT, "num_register_tokens": 4}, 96, (16, 6)),
    "focalnet": ({"embed_dim": 8, "depths": [1, 1], "hidden_sizes": [8, 16], "image_size": 64}, 64, (16, 8)),
    "glpn": ({**_STAGES, "decoder_hidden_size": 16}, 64, (16, 2)),
    "ijepa": (_VIT, 96, (16, 6)),
    "mobilenet_v1": ({"depth_multiplier": 0.25}, 64, (256, 2)),
    "mobilevit": (
        {
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
            "num_attention_heads": 2,
            "image_size": 64,
        },
        96,
        (32, 3),
    ),
    "poolformer": ({"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4}, 64, (16, 2)),
    "pvt": ({**_STAGES, "sequence_reduction_ratios": [4, 2, 1, 1], "mlp_ratios": [2] * 4}, 64, (16, 2)),
    "pvt_v2": (_STAGES, 64, (16, 2)),
    "segformer": (_STAGES, 64, (16, 2)),
    "siglip": ({"vision_config": _VIT}, 96, (16, 6)),
    "swiftformer": ({"embed_dims": [8, 16, 16, 16], "depths": [1] * 4}, 64, (16, 2)),
    "swinv2": (_SWIN, 96, (16, 12)),
    "vit": (_VIT, 96, (16, 6)),
    "vit_mae": (_VIT, 96, (16, 6)),
    "vitdet": (_VIT, 64, (16, 4)),
    "yolos": ({**_VIT, "image_size": [64, 64], "num_detection_tokens": 5}, 64, (16, 4)),
}


def _folder(kind: str, folder: Path, config: dict[str, Any]) -> Path:
    from transformers import AutoConfig

    (folder / "config.json").write_text(json.dumps(AutoConfig.for_model(kind, **config).to_dict()))
    settings = {"size": {"shortest_edge": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_gives_maps_of_the_chosen_size(kind: str, tmp_path: Path) -> None:
    config, size, (features, side) = KINDS[kind]
    torch.manual_seed(0)
    backbone = build_backbone(f"hf:{_folder(kind, tmp_path, config)}", weights=RANDOM, size=size)
    try_out(backbone, size)
    maps = backbone.eval()(torch.randn(2, 3, size, size))
    assert maps.shape == (2, features, side, side)
    maps.square().mean().backward()
    reached = sum(parameter.grad is not None for parameter in backbone.parameters())
    assert reached > 0.6 * len(list(backbone.parameters()))


def test_a_masked_autoencoder_sees_the_whole_image_in_its_order(tmp_path: Path) -> None:
    backbone = build_backbone(f"hf:{_folder('vit_mae', tmp_path, _VIT)}", weights=RANDOM).eval()
    image = torch.randn(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, 16:32, 32:48] += 2
    with torch.no_grad():
        moved = (backbone(changed) - backbone(image)).abs().sum(1)[0]
    assert divmod(int(moved.argmax()), 4) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "config", "size", "match"),
    [
        ("pvt", KINDS["pvt"][0], 96, r"'size'.*Got 96: .*use 64, which it takes"),
        ("bert", {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}, 64, r"must give maps or patch"),
    ],
)
def test_what_does_not_go_is_told(kind: str, config: dict[str, Any], size: int, match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=match):
        build_backbone(f"hf:{_folder(kind, tmp_path, config)}", weights=RANDOM, size=size)


def test_a_folder_of_timm_is_told_from_one_of_transformers(tmp_path: Path) -> None:
    folder = _folder("vit", tmp_path, _VIT)
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet50", "num_classes": 1000}))
    with pytest.raises(InvalidInputError, match=r"Got one of timm; give the backbone 'timm:resnet50'"):
        build_backbone(f"hf:{folder}", weights=RANDOM)


def test_spoilt_weights_in_a_folder_are_refused(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = _folder("vit", tmp_path, _VIT)
    build_backbone(f"hf:{folder}", weights=RANDOM)
    from transformers import AutoConfig

    network = AutoModel.from_config(AutoConfig.for_model("vit", **_VIT))
    with torch.no_grad():
        next(iter(network.parameters())).view(-1)[0] = torch.nan
    network.save_pretrained(folder)
    with pytest.raises(BackboneWeightsError, match=r"must be finite. Got 1 NaN"):
        build_backbone(f"hf:{folder}")
