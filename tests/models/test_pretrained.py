"""Pretrained weights of timm, loaded as timm loads them from a file that was found when the run was planned."""

import dataclasses
import socket
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import PretrainedCfg

from composing import compose_run
from headsweep.config import BackboneMode, RunConfig
from headsweep.errors import ConfigError, UserError
from headsweep.models import model_of, pretrained
from headsweep.models.meta_device import on_meta_device
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.lookup import Lookup

pytestmark = pytest.mark.slow

NAME = "test_vit"
KEYS = ["model=timm", f"model.name={NAME}", "model.pretrained=true", "backbone=frozen", "augmentation=none"]
KEYS += ["dataset.image_size=80", "head=gap"]  # made for 160 pixels and three channels


def write(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """Weights in the cache of the Hugging Face hub, which is all that there is."""
    repository = tmp_path / "hub" / f"models--{timm.get_pretrained_cfg(NAME).hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return write(snapshot / "model.safetensors")


def planned(*overrides: str) -> RunConfig:
    return Lookup().resolved([compose_run(*KEYS, *overrides)])[0]


def test_weights_are_those_that_timm_loads_for_this_image_size_and_these_channels(cached):
    run = planned()
    assert Path(run.model.checkpoint).samefile(cached)
    of_timm = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay={"file": str(cached)}, num_classes=0, in_chans=1, img_size=80
    )
    of_timm.reset_classifier(0, "")
    found = model_of(run).backbone.model.state_dict()
    assert found.keys() == of_timm.state_dict().keys()
    assert all(torch.equal(value, found[name]) for name, value in of_timm.state_dict().items())
    with on_meta_device():  # as a plan checks it
        assert model_of(run).backbone.tokens == 25


def test_the_content_of_the_file_and_how_it_is_loaded_are_part_of_a_run_its_place_is_not(cached, tmp_path):
    copy, other = tmp_path / "copy.safetensors", write(tmp_path / "other.safetensors", seed=1)
    copy.write_bytes(cached.read_bytes())
    given = [f"model.checkpoint={path}" for path in (copy, other)]
    names = [fingerprint(planned(*overrides)) for overrides in ([], [given[0]], [given[1]])]
    assert names[0] == names[1] != names[2]
    assert fingerprint(planned(given[0], "model.pretrained=false")) not in names


def test_a_file_that_changed_is_one_line(cached):
    run = planned()
    cached.write_bytes(cached.read_bytes() + b" ")
    with pytest.raises(
        ConfigError, match=r"model.checkpoint=.*model.safetensors: has changed since the run was planned"
    ):
        model_of(run)


def test_weights_of_another_architecture_are_one_line(cached):
    run = planned("model.options={depth: 2}")
    with pytest.raises(ConfigError, match=r"model.checkpoint=.*: timm cannot build test_vit with it: .*Unexpected key"):
        model_of(run)


def test_without_cache_and_network_it_is_one_line_for_all_cells(cached, monkeypatch):
    cached.unlink()
    asked, download = [], pretrained._download
    monkeypatch.setattr(pretrained, "_download", lambda described: asked.append(described) or download(described))
    outcomes = Lookup().resolve([compose_run(*KEYS, f"seed={seed}") for seed in range(3)])
    message = "model.pretrained=true: expected the weights of test_vit in timm's cache, or a network to download timm/"
    assert all(str(outcome).startswith(message) for outcome in outcomes)
    assert "give them as model.checkpoint=FILE" in str(outcomes[0])
    assert len(asked) == 1


def test_without_a_network_the_hub_is_asked_once_without_waiting(cached, monkeypatch, caplog):
    cached.unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    asked = []

    def refuse(address, *rest, **keywords):
        asked.append(address)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError, match=r"checkpoint=FILE \(\[Errno -3\] Temporary failure in name resolution\)$"):
        planned()
    assert len(asked) == 1 and not caplog.records


def test_an_unknown_model_is_one_line():
    with pytest.raises(ConfigError, match=r"model.name=test_bit: unknown model of timm; did you mean test_vit"):
        model_of(planned("model.name=test_bit"))


def test_a_model_without_weights_is_one_line(monkeypatch):
    monkeypatch.setattr(pretrained, "get_pretrained_cfg", lambda name: PretrainedCfg())
    with pytest.raises(UserError, match=r"model.pretrained=true: expected false: timm has no weights of test_vit"):
        planned()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+model.pretrained=true"], "model.pretrained=true: expected false: timm has no weights of cct_2_3x2"),
        ([*KEYS, "backbone=random"], "model.pretrained=true: expected false with backbone=random"),
        ([*KEYS, "model.name=resnet18", "model.small_stem=true"], "model.small_stem=true: expected false with"),
        ([*KEYS, "model.options={pretrained: true}"], "model.options.pretrained=True: .* model.pretrained sets it"),
    ],
)
def test_what_excludes_each_other_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_run(*overrides)


def test_the_head_is_new_however_the_backbone_is_trained(cached):
    run = planned()
    trained = dataclasses.replace(run, backbone=BackboneMode.train)
    heads = [model_of(it).head.state_dict() for it in (run, trained)]
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())
