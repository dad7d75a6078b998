"""The plan names a faster precision where it was measured to be faster."""

from pathlib import Path

import pytest

from commands import TINY_RUN, enter, give
from composing import compose_run
from headsweep.launch.local import cpu_precision
from headsweep.launch.local.cpu_precision import faster_precision

EPYC, WITHOUT, WITH_AMX = ["avx512f", "avx512_bf16"], ["avx512f"], ["avx512_bf16", "amx_bf16"]


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the CPU's flags, on a machine without a GPU."""
    monkeypatch.setattr(cpu_precision, "CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu_precision, "gpus_for", lambda runs: ())
    return tmp_path / "cpuinfo"


def write(file: Path, flags: list[str]) -> None:
    file.write_text(f"processor\t: 0\nmodel name\t: a CPU\nflags\t\t: fpu {' '.join(flags)}\n\nprocessor\t: 1\n")


def test_it_depends_on_the_units_of_the_cpu_and_on_gpus(flags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [compose_run("head=ga")]
    assert faster_precision(runs) is None  # no such file, as on macOS
    for unmeasured in (WITHOUT, WITH_AMX):
        write(flags, unmeasured)
        assert faster_precision(runs) is None
    write(flags, EPYC)
    assert str(faster_precision(runs)).startswith("precision=auto is float32 on this CPU; CCTs trained 1.2 ")
    larger = compose_run("dataset=cifar10")
    assert "CCTs trained 1.4 to 2.0 times as fast with precision=bfloat16 on a CPU with avx512_bf16" in str(
        faster_precision([larger])
    )
    assert "1.2 to 1.4 times" in str(faster_precision([larger, *runs]))
    monkeypatch.setattr(cpu_precision, "gpus_for", lambda runs: ("GPU-a",))
    assert faster_precision(runs) is None


@pytest.mark.parametrize(
    "overrides",
    [
        ["precision=float32"],
        ["model=vit_7_4"],
        ["backbone=random", "augmentation=none"],
        ["model.width=64"],
        ["dataset.image_size=24"],
    ],
)
def test_of_what_was_not_measured_nothing_is_claimed(flags: Path, overrides: list[str]) -> None:
    write(flags, EPYC)
    assert faster_precision([compose_run(*overrides)]) is None
    assert faster_precision([compose_run(*overrides), compose_run()]) is not None


def test_the_plan_has_it_in_one_line(flags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(flags, EPYC)
    words = ["plan", "--list", "head=gap", "seed=0", f"paths.output={tmp_path}"]
    assert give(*words) == 0
    assert capsys.readouterr().err.count("precision=auto is float32 on this CPU") == 1
    assert give(*words, "precision=bfloat16") == 0
    assert "on this CPU" not in capsys.readouterr().err


@pytest.mark.usefixtures("hydra_state")
def test_a_run_whose_kernels_need_a_gpu_is_refused_before_it_starts(
    flags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(flags, EPYC)
    words = ("-m", "head=gap", f"paths.output={tmp_path}", "model.attention_kernel=triton")
    assert faster_precision([compose_run("dataset=cifar10", words[-1])]) is None
    refusal = "model.attention_kernel=triton: expected torch: the kernels are for a GPU, and "
    assert enter(*words) == 2 and f"{refusal}there is none" in capsys.readouterr().err
    assert enter(*words[1:], *TINY_RUN) == 2 and capsys.readouterr().err.startswith(f"headsweep: {refusal}")
    assert not list(tmp_path.glob("runs/*"))
    assert give("plan", *words[1:], *TINY_RUN) == 2 and refusal in capsys.readouterr().out
    assert give("plan", *words[1:], *TINY_RUN, "hydra/launcher=slurm") == 0, "a login node plans for others"
    assert refusal not in capsys.readouterr().out
