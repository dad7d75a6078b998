import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from commands import train
from headsweep.config import PROJECT_ROOT, parse

STUDIES = sorted((PROJECT_ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_every_cell_of_every_study_composes(study):
    axes = OmegaConf.load(study).hydra.sweeper.params
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        for axis, values in axes.items():
            for value in str(values).split(","):
                run = parse(compose("train", overrides=[f"+sweeps={study.stem}", f"{axis}={value}"]))
                assert run.model.name in ("cct_2_3x2", "cct_7_3x1")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_a_document(study):
    text = study.read_text()
    for word in ("Question", "Command", "Cost", "Expected"):
        assert f"\n# {word}" in text
    assert f"+sweeps={study.stem}" in text


def test_a_study_is_found_from_any_folder_and_its_axes_can_be_overridden(tmp_path):
    answer = train("-m", "+sweeps=main", "heads=0", f"paths.output={tmp_path}", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == "headsweep: heads=0: want a whole number of at least 1\n"
