"""`batch_size=auto`: the largest power of two at which every cell of a grid fits, and the same again next time."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from commands import TINY_RUN, give, train
from composing import compose_run
from headsweep.autotune import batch_size, host_memory, sharing
from headsweep.autotune.batch_size import Answer, Room, fitting
from headsweep.autotune.sharing import ALONE, Sharing
from headsweep.errors import ConfigError, UserError
from headsweep.launch.local import gpus
from headsweep.launch.local.slots import Slots
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.lookup import Lookup
from headsweep.run import trial

SHORT = [word for word in TINY_RUN if not word.startswith("batch_size")]
IMAGES = 50_000


@cache
def composed(*overrides):
    return compose_run("batch_size=96", *overrides)


def cell(output, *overrides):
    run = composed(*overrides)
    return replace(run, paths=replace(run.paths, output=str(output)))


class Model:
    """Stands in for the processes that measure: memory is linear, up to what there is."""

    def __init__(self, fixed=0.5, image=0.01, there=1000.0, images=IMAGES, **more):
        self.fixed, self.image, self.there, self.images = fixed, image, there, images
        self.more, self.asked, self.durations = more, [], []

    def __call__(self, room, say):
        return self.measure

    def measure(self, run):
        self.asked.append((run.head.name, run.heads, run.batch_size))
        self.durations.append(run.duration)
        gib = self.more.get(f"at_{run.batch_size}", self.fixed + self.image * run.heads * run.batch_size)
        return Answer(gib, self.images) if gib <= self.there else Answer(None, None)


@pytest.fixture
def find(tmp_path, monkeypatch):
    """The batch size of cells in so many GiB, how it was measured, and what was said."""

    def find(model, *cells, gib=10.0, gpu=None, free=10.0, measure=True):
        monkeypatch.setattr(batch_size, "_Measurement", model)
        monkeypatch.setattr(gpus, "free_gib", lambda gpu: free)
        said = []
        runs = [cell(tmp_path, *words) for words in cells or [()]]
        return fitting(runs, Room("a device", gib, gpu, 1, 1), measure, said.append), model.asked, said

    return find


def test_it_is_the_largest_power_of_two_within_nine_tenths_of_the_memory(find):
    size, asked, said = find(Model())  # 0.5 + 0.01 * 512 = 5.62; 1024: 10.74
    assert size == 512
    assert asked == [("seqpool", 1, 8), ("seqpool", 1, 128)]
    assert said == ["batch_size=auto: 512 (seqpool heads=1 of cct_2_3x2 needs 5.6 GiB of 10.0 GiB at 512)"]


@pytest.mark.parametrize(("gib", "size"), [(10.0, 512), (6.25, 512), (6.2, 256), (12.0, 1024), (1.0, 32), (0.7, 8)])
def test_a_little_less_memory_is_half_the_images(find, gib, size):
    assert find(Model(), gib=gib)[0] == size


def test_where_the_line_does_not_reach_every_size_is_measured(find):
    size, asked, _ = find(Model(), gib=1.0)
    assert [images for _, _, images in asked] == [8, 128, 64, 32]
    assert size == 32


@pytest.mark.parametrize(
    ("images", "size"), [(IMAGES, 4096), (4096, 4096), (4095, 2048), (1288, 1024), (100, 64), (8, 8)]
)
def test_it_is_no_more_than_there_are_training_images_and_no_more_than_is_tried(find, images, size):
    assert find(Model(image=0.0), gib=10.0 if images else 0)[0] == 4096
    assert find(Model(image=0.0, images=images), ("heads=2",))[0] == size


@pytest.mark.slow
def test_the_hungriest_cell_decides_and_no_seed_is_measured_again(find):
    grid = [(f"heads={heads}", f"seed={seed}", "duration='3 epochs'") for heads in (1, 4, 2) for seed in (0, 1)]
    size, asked, said = find(Model(), *grid)
    assert size == 128  # 0.5 + 0.04 * 128 = 5.62
    assert sorted(asked) == [("seqpool", heads, images) for heads in (1, 2, 4) for images in (8, 128)]
    assert said == ["batch_size=auto: 128 (seqpool heads=4 of cct_2_3x2 needs 5.6 GiB of 10.0 GiB at 128)"]


@pytest.mark.slow
def test_what_was_measured_is_remembered_cell_by_cell(find):
    first, _, said = find(Model(), ("heads=4",))
    assert find(Model(), ("heads=4",)) == (first, [], said)
    assert find(Model(), ("heads=4", "seed=7", "optimizer.lr=1e-2"))[1] == []
    assert find(Model(), ("heads=4",), ("heads=2",))[1] == [("seqpool", 2, 8), ("seqpool", 2, 128)]
    for other in ("optimizer=sgd", "ema_decay=0.9", "precision=bfloat16", "accumulation=2", "model.width=64"):
        assert find(Model(), ("heads=4", other))[1] != []


def test_a_listing_uses_remembered_sizes_only(find):
    with pytest.raises(ConfigError, match="batch_size=auto: not measured yet; the command itself, or `headsweep plan`"):
        find(Model(), measure=False)
    known = find(Model())
    assert find(Model(), measure=False) == (known[0], [], known[2])


def test_micro_batches_divide_it(find):
    size, asked, _ = find(Model(image=0.001), ("accumulation=16", "heads=2"), gib=0.65)
    assert [images for _, _, images in asked] == [32, 128, 64]
    assert size == 32
    with pytest.raises(
        ConfigError, match="expected accumulation to be a power of two, found accumulation=3; change it"
    ):
        find(Model(), ("accumulation=3",))


@pytest.mark.parametrize(("model", "found"), [(Model(), "needs 0.6 GiB"), (Model(there=0.5), "runs out of memory")])
def test_where_nothing_fits_the_error_names_the_cell_and_its_need(find, model, found):
    message = f"expected 0.5 GiB to suffice, but seqpool heads=1 of cct_2_3x2 {found} at batch size 8; run fewer"
    with pytest.raises(ConfigError, match=message):
        find(model, gib=0.5)


def test_on_a_gpu_the_size_is_tried_and_halved_while_it_does_not_fit(find):
    size, asked, said = find(Model(there=2.0), gpu="GPU-a")
    assert [images for _, _, images in asked] == [8, 128, 512, 256]
    assert size == 128
    assert said[-1].endswith("needs 1.8 GiB of 10.0 GiB at 128)")
    size, asked, _ = find(Model(at_256=9.1), ("heads=2",), gpu="GPU-a")  # it fits, but leaves too little
    assert (size, asked[-1]) == (128, ("seqpool", 2, 256))


def test_what_pays_over_many_steps_alone_is_left_to_the_size_that_is_tried(find):
    model = Model()
    find(model, ("schedule.warmup='5 epochs'",), gpu="GPU-a")
    assert model.durations == ["20 steps", "20 steps", "20 epochs"]


def test_a_size_that_was_tried_on_a_gpu_is_reported_as_it_was_measured(find):
    size, asked, said = find(Model(at_512=8.9), gpu="GPU-a")
    assert (size, asked[-1]) == (512, ("seqpool", 1, 512))
    assert "needs 8.9 GiB of 10.0 GiB at 512" in said[-1]
    assert find(Model(), gpu="GPU-a") == (512, [], said)


def test_a_gpu_that_others_use_is_no_measure(find):
    with pytest.raises(UserError, match=r"expected 5\.6 GiB free on the GPU to test a batch of 512, found 3\.0"):
        find(Model(), gpu="GPU-a", free=3.0)
    assert find(Model(), gpu="GPU-a")[0] == 512  # nothing was learnt from it


def test_data_that_is_absent_is_an_error_before_anything_is_measured(capsys):
    assert give("plan", "batch_size=auto", "dataset=imagefolder", "dataset.root=/nowhere") == 2
    assert capsys.readouterr().err.startswith("headsweep: imagefolder: no /nowhere/train")


def test_the_room_is_a_share_of_the_smallest_gpu_or_of_the_memory(monkeypatch):
    monkeypatch.setattr(gpus, "total_gib", {"GPU-a": 24.0, "GPU-b": 8.0, "GPU-c": float("inf")}.__getitem__)
    monkeypatch.setattr(gpus, "name", "name of {}".format)
    monkeypatch.setattr(host_memory, "usable_gib", lambda: 16.0)
    assert Room.of(Slots(2, 3, ("GPU-a", "GPU-b"))) == Room("name of GPU-b", 8.0, "GPU-b", 1, 3)
    assert Room.of(Slots(4, 3, ("GPU-a", "GPU-b"))) == Room("name of GPU-b", 4.0, "GPU-b", 2, 3)
    assert Room.of(Slots(1, 3, ("GPU-c",))).gib == 16.0
    assert (Room.of(Slots(4, 3, ())).gib, str(Room.of(Slots(4, 3, ())))) == (4.0, "4.0 GiB a run")


@pytest.mark.parametrize(
    ("keys", "device", "slots"),
    [
        (ALONE, "auto", Slots(1, 4, ("GPU-a", "GPU-b"))),
        (ALONE, "cuda:1", Slots(1, 4, ("GPU-b",))),
        (ALONE, "cpu", Slots(1, 4, ())),
        (Sharing(), "auto", Slots(2, 2, ("GPU-a", "GPU-b"))),
        (Sharing("auto"), "auto", Slots(2, 2, ("GPU-a", "GPU-b"))),
        (Sharing(runs_per_gpu=2), "auto", Slots(4, 1, ("GPU-a", "GPU-b"))),
        (Sharing(), "cpu", Slots(4, 1, ())),  # however few runs the grid has: seeds are added
        (Sharing(3, 1), "cpu", Slots(3, 1, ())),
    ],
)
def test_the_room_does_not_depend_on_the_number_of_runs(monkeypatch, tmp_path, keys, device, slots):
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ("GPU-a", "GPU-b"))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(4))
    monkeypatch.setattr(Room, "of", lambda slots: slots)
    monkeypatch.setattr(sharing, "fitting", lambda runs, room, measure, say: room)
    assert keys.batch_size([replace(cell(tmp_path), device=device)]) == slots


@pytest.mark.parametrize(
    ("groups", "files", "gib"),
    [
        ("0::/jobs/7\n", {"jobs/7/memory.max": str(2**31), "jobs/memory.max": "max"}, 2.0),
        ("0::/jobs/7\n", {"jobs/7/memory.max": "max", "jobs/memory.max": str(2**30)}, 1.0),
        ("0::/unseen\n", {"memory.max": str(2**29)}, 0.5),  # in a container
        ("3:cpu:/a\n2:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": str(2**30)}, 1.0),
        ("0::/\n", {}, None),
        (None, {}, None),
    ],
)
def test_the_memory_of_a_job_is_what_its_control_groups_leave_to_it(tmp_path, groups, files, gib):
    proc = tmp_path / "cgroup"
    if groups:
        proc.write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    physical = host_memory.usable_gib(tmp_path / "none", tmp_path / "none")
    assert physical > 0.5
    assert host_memory.usable_gib(proc, tmp_path) == (gib or physical)


def test_a_process_reports_its_peak_memory_and_its_number_of_images(tmp_path):
    (run,) = Lookup().resolve([cell(tmp_path, *SHORT, "tracking=none")])
    gib, images = trial.memory(replace(run, batch_size=32))
    assert 0.01 < gib < 100
    assert images == 128
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_plan_has_the_number_and_never_the_word(tmp_path, monkeypatch, capsys):
    words = [*SHORT, f"paths.output={tmp_path}", "hydra.launcher.slots=1"]
    monkeypatch.setattr(batch_size, "_Measurement", Model(images=1000, image=0.0))
    runs = [cell(tmp_path, *SHORT, f"heads={heads}") for heads in (1, 2)]
    assert Sharing(1).batch_size(runs) == 512
    capsys.readouterr()
    assert give("plan", "--list", "--json", "heads=1,2", "batch_size=auto", *words) == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert shown.err.startswith("batch_size=auto: 512 (seqpool heads=")
    expected = [fingerprint(run) for run in Lookup().resolve([replace(run, batch_size=512) for run in runs])]
    assert [row["fingerprint"] for row in plan["rows"]] == expected


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["batch_size=auto,64"], "batch_size=auto,64: expected auto alone, which is one number for all cells"),
        (["batch_size=auto", "heads=0,1"], "heads=0: expected an integer >= 1 (1 of 2 cells: heads=0)"),
        (["batch_size=auto", "heads=1,2"], "batch_size=auto: not measured yet"),
    ],
)
def test_what_cannot_be_planned_is_reported_in_one_line(tmp_path, capsys, words, reported):
    assert give("plan", "--list", *words, *SHORT, f"paths.output={tmp_path}") == 2
    assert reported in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "reported"),
    [
        (
            ["-m", "hydra/launcher=slurm"],
            {},
            "batch_size=auto: expected a number with this launcher; `headsweep plan` measures what fits",
        ),
        (
            ["-m", "hydra/launcher=basic"],
            {},
            "batch_size=auto: expected a number with this launcher, which starts",
        ),
        ([], {"WORLD_SIZE": "2"}, "batch_size=auto: expected a number under torchrun, found auto, which one process"),
    ],
)
def test_where_it_cannot_be_measured_one_line_reports_it(tmp_path, words, environment, reported):
    answer = train(*words, "batch_size=auto", f"paths.output={tmp_path}", **environment)
    assert answer.returncode == 2
    assert reported in answer.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured_and_the_size_tried(tmp_path):
    run = cell(tmp_path, *SHORT[:3], "device=cuda")
    assert ALONE.batch_size([run]) == 1024 == ALONE.batch_size([run], measure=False)  # of 1,294 images
    (known,) = json.loads((tmp_path / "measured.json").read_text())["memory"].values()
    assert set(known["needs"]) == {"8", "128", "1024"}


@pytest.mark.slow
def test_a_true_run_is_measured_once_and_is_of_a_number(tmp_path):
    words = ["batch_size=auto", *SHORT, "duration='1 epochs'", "tracking=none", f"paths.output={tmp_path}"]
    first, again = train(*words), train(*words)
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stderr.startswith("batch_size=auto: measuring, once for each distinct cell\nbatch_size=auto: 128 (")
    assert again.stderr.startswith("batch_size=auto: 128 (") and "1 done already" in again.stderr
    (record,) = tmp_path.glob("runs/*/run.json")
    assert json.loads(record.read_text())["parameters"]["batch_size"] == 128


@pytest.mark.slow
def test_a_run_that_cannot_be_measured_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"seqpool1-cct_2_3x2-digits-seed0 cannot be measured: batch_size=8: expected at most 4"
    ):
        ALONE.batch_size([cell(tmp_path, *SHORT[:3], "debug.train_images=4", "device=cpu")])
