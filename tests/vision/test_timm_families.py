"""Families of timm: maps of the chosen size, gradients, and a sentence where a size does not go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision.backbones import RANDOM, Backbone, build_backbone
from qpm_vision.backbones.timm_models import import_timm
from qpm_vision.backbones.trial import try_out
from qpm_vision.checkpoint import load_checkpoint, save_checkpoint
from qpm_vision.cli import main
from qpm_vision.model import DenseClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.training import train
from qpm_vision.training_settings import TrainingSettings

FAMILIES: dict[str, tuple[int, tuple[int, int, int]]] = {
    # name in timm: side of an image; features and sides of the maps
    "beit_base_patch16_224": (32, (768, 2, 2)),
    "botnet26t_256": (128, (2048, 4, 4)),
    "cait_xxs24_224": (32, (192, 2, 2)),
    "coat_lite_tiny": (64, (320, 2, 2)),
    "coat_tiny": (64, (152, 2, 2)),
    "coatnet_nano_rw_224": (64, (512, 2, 2)),
    "convit_tiny": (64, (192, 4, 4)),
    "convmixer_768_32": (28, (768, 4, 4)),
    "convnext_atto": (64, (320, 2, 2)),
    "crossvit_tiny_240": (48, (192, 14, 14)),
    "cs3darknet_focus_s": (64, (512, 2, 2)),
    "davit_tiny": (64, (768, 2, 2)),
    "deit_tiny_distilled_patch16_224": (64, (192, 4, 4)),
    "densenet121": (64, (1024, 2, 2)),
    "dla46_c": (64, (256, 2, 2)),
    "edgenext_xx_small": (64, (168, 2, 2)),
    "efficientformer_l1": (224, (448, 7, 7)),
    "efficientformerv2_s0": (64, (176, 2, 2)),
    "efficientnet_b0": (64, (1280, 2, 2)),
    "efficientvim_m1": (128, (320, 2, 2)),
    "efficientvit_b0": (64, (128, 2, 2)),
    "efficientvit_m0": (224, (192, 4, 4)),
    "eva02_tiny_patch14_224": (56, (192, 4, 4)),
    "fastvit_t8": (64, (768, 2, 2)),
    "focalnet_tiny_srf": (64, (768, 2, 2)),
    "gcvit_xxtiny": (64, (512, 2, 2)),
    "ghostnet_050": (64, (480, 2, 2)),
    "gmixer_12_224": (64, (384, 4, 4)),
    "gmlp_ti16_224": (64, (128, 4, 4)),
    "hgnetv2_b0": (64, (1024, 2, 2)),
    "hiera_tiny_224": (64, (768, 2, 2)),
    "inception_next_atto": (64, (320, 2, 2)),
    "inception_v4": (96, (1536, 1, 1)),
    "levit_128s": (128, (384, 2, 2)),
    "lcnet_035": (64, (176, 2, 2)),
    "mambaout_femto": (64, (288, 2, 2)),
    "maxvit_rmlp_pico_rw_256": (64, (256, 2, 2)),
    "mixer_s32_224": (64, (512, 2, 2)),
    "mobilenetv3_small_050": (64, (288, 2, 2)),
    "mobilevit_xxs": (64, (320, 2, 2)),
    "mobileone_s0": (64, (1024, 2, 2)),
    "mvitv2_tiny": (64, (768, 2, 2)),
    "naflexvit_base_patch16_gap": (64, (768, 4, 4)),
    "nest_tiny": (64, (384, 4, 4)),
    "pit_ti_224": (224, (256, 7, 7)),
    "poolformer_s12": (64, (512, 2, 2)),
    "pvt_v2_b0": (64, (256, 2, 2)),
    "regnetx_002": (64, (368, 2, 2)),
    "repvit_m0_9": (64, (384, 2, 2)),
    "resmlp_12_224": (64, (384, 4, 4)),
    "resnet10t": (64, (512, 2, 2)),
    "rexnet_100": (64, (1280, 2, 2)),
    "sequencer2d_s": (56, (384, 4, 4)),
    "shvit_s1": (128, (320, 2, 2)),
    "starnet_s050": (64, (128, 2, 2)),
    "swiftformer_xs": (64, (220, 2, 2)),
    "swin_tiny_patch4_window7_224": (64, (768, 2, 2)),
    "swinv2_cr_tiny_ns_224": (64, (768, 2, 2)),
    "test_vit": (64, (64, 4, 4)),
    "test_vit_relpos": (64, (96, 4, 4)),
    "tiny_vit_5m_224": (64, (320, 2, 2)),
    "tnt_s_patch16_224": (64, (384, 4, 4)),
    "twins_svt_small": (64, (512, 2, 2)),
    "visformer_tiny": (64, (384, 2, 2)),
    "vit_tiny_patch16_224": (96, (192, 6, 6)),
    "vitamin_small_224": (64, (384, 4, 4)),
    "volo_d1_224": (64, (384, 4, 4)),
    "xcit_nano_12_p16_224": (64, (128, 4, 4)),
}
QUICK = (
    "eva02_tiny_patch14_224",
    "gmlp_ti16_224",
    "lcnet_035",
    "levit_128s",
    "mambaout_femto",
    "pit_ti_224",
    "pvt_v2_b0",
    "test_vit",
    "test_vit_relpos",
    "xcit_nano_12_p16_224",
)
"""Of every way in which timm has maps one: in front, behind, tokens with and without others, inside only; all sizes."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_family_gives_maps_and_can_be_trained(name: str, tmp_path: Path) -> None:
    size, shape = FAMILIES[name]
    torch.manual_seed(0)
    backbone = build_backbone(f"timm:{name}", weights=RANDOM, size=size)
    assert backbone.preprocessing.size == size
    try_out(backbone, size)
    images, labels = torch.randn(4, 3, size, size), torch.tensor([0, 1, 0, 1])
    model = DenseClassifier(backbone, 2)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    settings = TrainingSettings(epochs=1, batch_size=4, learning_rate=1e-3, augmentation="none")
    train(model, lambda _epoch: [(images, labels)], settings)
    moved = [key for key, tensor in backbone.state_dict().items() if not torch.equal(before[key], tensor)]
    assert len(moved) > len(before) / 4
    with torch.no_grad():
        maps = backbone(images)
    assert maps.shape == (4, *shape)
    assert backbone.n_features == shape[0]
    # The same weights once more, as another program has to find them.
    loaded = load_checkpoint(save_checkpoint(tmp_path / "m.safetensors", model, backbone.preprocessing))[0]
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), maps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "pit_ti_224", "mambaout_femto", "test_vit_relpos"])
def test_places_of_maps_are_those_of_the_image(name: str) -> None:
    """What changes most is where the image changes, in networks that carry each place on."""
    size = FAMILIES[name][0]
    torch.manual_seed(0)
    backbone = build_backbone(f"timm:{name}", weights=RANDOM, size=size).eval()
    image = torch.randn(1, 3, size, size)
    changed = image.clone()
    changed[:, :, : size // 2, size // 2 :] = torch.randn(1, 3, size // 2, size // 2)
    with torch.no_grad():
        moved = (backbone(changed) - backbone(image)).abs().sum(1)[0]
    half = len(moved) // 2
    quarters = {
        (down, right): float(moved[down * half : (down + 1) * half, right * half : (right + 1) * half].mean())
        for down in (0, 1)
        for right in (0, 1)
    }
    assert max(quarters, key=lambda place: quarters[place]) == (0, 1)


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        pytest.param("efficientformer_l1", 96, r"'size'.*Got 96: .*use 224, which it takes", marks=pytest.mark.slow),
        ("eva02_tiny_patch14_224", 64, r"Got 64: .*divisible by patch size.*use 56 or 70 or 224"),
        pytest.param("inception_v4", 64, r"Got 64: .*[Kk]ernel.*use .*299", marks=pytest.mark.slow),
        ("test_vit", 50, r"Got 50: .*use 32 or 48 or 64"),
    ],
)
def test_sizes_that_do_not_go_name_some_that_do(name: str, size: int, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        build_backbone(f"timm:{name}", weights=RANDOM, size=size)


def test_a_model_without_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = import_timm("timm:test_resnet")

    class Pooled(nn.Conv2d):
        default_cfg = timm.create_model("test_resnet").default_cfg
        num_features = 4

        def forward_features(self, images: Tensor) -> Tensor:
            return self(images).mean((2, 3))

    monkeypatch.setattr(timm, "create_model", lambda *_, **__: Pooled(3, 4, 1))
    with pytest.raises(InvalidInputError, match=r"'timm:test_resnet' must give maps or patch tokens.*shape \(1, 4\)"):
        build_backbone("timm:test_resnet", weights=RANDOM)


@pytest.mark.parametrize("name", ["test_vit_relpos", "gmlp_ti16_224"])
def test_published_weights_fit_a_network_of_another_size_where_timm_knows_how(name: str, tmp_path: Path) -> None:
    published = build_backbone(f"timm:{name}", weights=RANDOM)
    torch.save({"state_dict": published.module.network.state_dict(), "n": torch.ones(())}, tmp_path / "w.pth")  # type: ignore[union-attr]
    size = FAMILIES[name][0]
    try:
        backbone = build_backbone(f"timm:{name}", weights=tmp_path / "w.pth", size=size)
    except InvalidInputError as error:
        assert "instead of" in str(error)  # noqa: PT017
    else:
        assert backbone(torch.zeros(2, 3, size, size)).shape[1] == backbone.n_features


# -- any module ----------------------------------------------------------------------------------------------------


class _Reordered(nn.Module):
    """A patch embedding, in the forms that libraries give maps in."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 8, 8)
        self.form = form

    def forward(self, images: Tensor) -> Tensor:
        maps = self.embed(images)
        tokens = maps.flatten(2).transpose(1, 2)
        front = tokens.new_zeros(len(tokens), 1, 6)
        forms: dict[str, Any] = {
            "in front": maps,
            "behind": maps.permute(0, 2, 3, 1),
            "tokens": tokens,
            "a token for the whole": torch.cat([front, tokens], 1),
            "registers too": torch.cat([front] * 5 + [tokens], 1),
        }
        form: Tensor = forms[self.form]
        return form


@pytest.mark.parametrize("form", ["in front", "behind", "tokens", "a token for the whole", "registers too"])
@pytest.mark.parametrize("counted", [True, False])
def test_maps_of_any_module_are_found_in_whatever_form_it_has_them(form: str, counted: bool) -> None:
    module = _Reordered(form)
    backbone = Backbone(module, n_features=6 if counted else None, preprocessing=Preprocessing(32, (0,) * 3, (1,) * 3))
    images = torch.randn(2, 3, 32, 32)
    assert backbone.n_features == 6
    torch.testing.assert_close(backbone(images), module.embed(images))
    wide = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(backbone(wide), module.embed(wide))


@pytest.mark.parametrize(
    ("make", "layer", "shape"),
    [
        ("mobilenet_v3_small", "features", (576, 2, 2)),
        ("swin_t", "features", (768, 2, 2)),
        ("vit_b_16", "encoder", (768, 14, 14)),
        ("shufflenet_v2_x0_5", "conv5", (1024, 2, 2)),
        ("convnext_tiny", "features", (768, 2, 2)),
        ("squeezenet1_1", "features", (512, 3, 3)),
        ("mnasnet0_5", "layers", (1280, 2, 2)),
    ],
)
def test_models_of_torchvision_are_wrapped_by_a_layer(make: str, layer: str, shape: tuple[int, int, int]) -> None:
    from torchvision import models

    size = 224 if make == "vit_b_16" else 64
    with torch.device("meta"):
        module = getattr(models, make)(weights=None)
        backbone = Backbone(module, layer=layer, preprocessing=Preprocessing(size, (0.5,) * 3, (0.5,) * 3))
    assert backbone.eval()(torch.zeros(2, 3, size, size, device="meta")).shape == (2, *shape)


def test_a_size_that_does_not_go_is_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "digits", str(tmp_path / "run"), "--backbone", "timm:eva02_tiny_patch14_224", "--size", "64"]
    assert main([*command, "--weights", "random", "--n-select", "20", "--n-per-class", "5"]) != 0
    told = capsys.readouterr().err
    assert "use 56 or 70 or 224, which it takes" in told
    assert not (tmp_path / "run").exists()
