"""ImageNet, staged to a disk of each node that trains it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import RUN, Cluster, began, calm, jobs_of, lingering, output_of, sabotage, sweep, wait_until
from PIL import Image
from sklearn.datasets import load_sample_images

from comparing import differences
from factories import by_seed, planned
from headsweep.run.train_run import train_folder

pytestmark = pytest.mark.slow

CLASSES = ("n01440764", "n02102040", "n03888257")
IMAGES = [
    "dataset=imagenet",
    "dataset.num_classes=3",
    "dataset.image_size=32",
    "dataset.validation=0.1",
    "tracking=none",
]
IMAGES += ["augmentation=paper_imagenet", "loader.resident_gib=0", "duration='2 epochs'"]


def test_a_staged_run_goes_on_in_mid_epoch_on_another_node(cluster: Cluster, tmp_path: Path):
    """The folder is named by a variable that each node sets; the second node copies the images for itself."""
    run_of = [*IMAGES, f"dataset.root={write_imagenet(tmp_path / 'imageNet')}"]
    output, disks = tmp_path / "staged", tmp_path / "disks"
    staged = ["loader.stage='$NODE_DISK/images'", "loader.workers=1", "hydra.launcher.threads=1"]
    setup = f"['unset NO_TORCH','export NODE_DISK={disks}/$SLURMD_NODENAME']"
    staged += [f"hydra.launcher.setup={setup}", "+hydra.launcher.extra.hold=true"]
    answer = cluster.train_without_torch(*run_of, *staged, f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    sabotage(output)
    runs, (job,) = by_seed(output), jobs_of(sweep(output)).values()
    cluster.ask("scontrol", "release", job)
    lingering(runs, [0])
    first = cluster.node(job)
    assert copies(disks) == {first: 180 + 12}
    cluster.ask("scontrol", "update", f"nodename={first}", "state=DRAIN", "reason=test")
    cluster.send_usr2(job)
    wait_until(lambda: "stopping:" in output_of(output, job))
    calm(runs, [0])
    wait_until(lambda: runs[0].result() is not None)
    cluster.ask("scontrol", "update", f"nodename={first}", "state=RESUME")
    assert began(runs[0]) == [0, 7]
    assert len(copies(disks)) == 2 and set(copies(disks).values()) == {180 + 12}
    plain = planned(tmp_path / "plain", *RUN, *run_of, "loader.workers=0")
    train_folder(plain, lambda progress: None)
    assert differences(runs[0], plain) == []


def write_imagenet(root: Path) -> Path:
    """ImageNet's own names of folders and files: 60 images a class to train, 4 to test."""
    photos, count = load_sample_images().images, 0
    for label, wordnet in enumerate(CLASSES):
        for split, images in (("train", 60), ("val", 4)):
            (root / split / wordnet).mkdir(parents=True)
            for number in range(images):
                count += 1
                name = f"{wordnet}_{count}" if split == "train" else f"ILSVRC2012_val_{count:08}"
                y, x = 2 * number + 40 * label, 3 * number
                picture = Image.fromarray(photos[label % 2][y : y + 60 + number, x : x + 80])
                picture.save(root / split / wordnet / f"{name}.JPEG")
    return root


def copies(disks: Path) -> dict[str, int]:
    """Node -> the images on its disk."""
    return {disk.name: len(list(disk.glob("images/imagenet-*/*/*/*.JPEG"))) for disk in disks.iterdir()}
