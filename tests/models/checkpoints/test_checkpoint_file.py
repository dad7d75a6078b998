"""Files of weights are read without executing code, and other files are refused in one line."""

import argparse
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from headsweep.config import HeadConfig
from headsweep.errors import ConfigError, UserError
from headsweep.models import build_model
from headsweep.models.checkpoints.checkpoint_file import read_weights
from headsweep.models.registry import ARCHITECTURES

WEIGHTS = {"a.weight": torch.arange(4.0)}


def saved(content: object) -> bytes:
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue()


def zipped() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("readme.txt", "weights")
    return memory.getvalue()


def photo() -> bytes:
    memory = io.BytesIO()
    Image.new("RGB", (8, 8)).save(memory, "JPEG")
    return memory.getvalue()


class Payload:
    """A pickle of this runs a command where it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch '{marker}'"

    def __reduce__(self):
        return os.system, (self.command,)


NO_WEIGHTS = {
    "empty": (b"", "expected a file of weights, found an empty one"),
    "text": (b"these are the weights\n", "expected a file of weights"),
    "truncated": (saved(WEIGHTS)[:-200], "expected a file of weights, found another or a damaged one"),
    "zip": (zipped(), "expected a file of weights"),
    "jpeg": (photo(), "expected a file of weights"),
    "a list": (saved([torch.ones(1)]), "expected a state dict"),
    "numbers": (saved({"state_dict": {"accuracy": 0.9}}), "expected a state dict"),
    "no tensors": (saved({}), "expected a state dict"),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_other_files_are_refused_in_one_line(name, tmp_path):
    content, message = NO_WEIGHTS[name]
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


def test_absent_files_and_folders_are_reported(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_weights(tmp_path)


REFUSED = {
    (saved, ".pth"): "expected weights only, found objects that could run code",
    (saved, ".safetensors"): "expected a file of weights",
    (pickle.dumps, ".pth"): "expected a file of weights",
    (pickle.dumps, ".safetensors"): "expected a file of weights",
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [saved, pickle.dumps], ids=["torch", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_hostile_file_is_refused_and_nothing_runs(save, suffix, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / f"weights{suffix}"
    path.write_bytes(save({"state_dict": WEIGHTS, "more": Payload(marker)}))
    with pytest.raises(UserError, match=REFUSED[save, suffix]):
        read_weights(path)
    model = ARCHITECTURES["cct_2_3x2"]
    model = type(model)(**{**vars(model), "checkpoint": str(path)})
    sizes = {"heads": 1, "num_classes": 10, "image_size": 32, "channels": 3, "seed": 0}
    with pytest.raises(ConfigError, match=r"model\.checkpoint=.*weights"):
        build_model(model, HeadConfig("seqpool"), **sizes)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload works where it is let"


@pytest.mark.parametrize("kept", ["state_dict_ema", "model_ema", "state_dict", "model"])
def test_weights_are_found_and_averaged_ones_come_first(kept, tmp_path):
    others = {"optimizer": {"state": {}}, "args": argparse.Namespace(lr=1.0), "epoch": 3, "state_dict_ema": None}
    if kept != "model":
        others["model"] = {"b.weight": torch.zeros(1)}
    prefixed = {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}
    torch.save({**others, kept: prefixed}, tmp_path / "checkpoint.pt")
    read = read_weights(tmp_path / "checkpoint.pt")
    assert list(read) == list(WEIGHTS) and torch.equal(read["a.weight"], WEIGHTS["a.weight"])


def test_bare_weights_and_safetensors(tmp_path):
    torch.save(WEIGHTS, tmp_path / "bare.pth")
    safetensors.torch.save_file(WEIGHTS, tmp_path / "bare.safetensors")
    for name in ("bare.pth", "bare.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)["a.weight"], WEIGHTS["a.weight"])


def test_another_network_s_weights_are_foreign_to_timm_s_create_model_too(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(
        UserError, match=r"expected weights of this model .*, found conv1\.weight, bn1\.weight"
    ) as caught:
        timm.create_model("cct_2_3x2_32", checkpoint_path=str(tmp_path / "resnet.pth"))
    assert "\n" not in str(caught.value)


def test_names_that_are_no_text_are_no_state_dict(tmp_path):
    torch.save({"state_dict": {1: torch.ones(1)}}, tmp_path / "numbers.pth")
    with pytest.raises(UserError, match="expected a state dict"):
        read_weights(tmp_path / "numbers.pth")
