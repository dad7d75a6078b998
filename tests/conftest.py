"""Shapes in annotations are checked at run time, in tests only; torch computes in one thread."""

import gc
import multiprocessing.util
import os
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jaxtyping
import pytest
from execnet import XSpec
from xdist.scheduler import LoadScopeScheduling

from hydra_files import read_project_files_once
from programs import OWNER, relay, start_forkservers_warm
from scripts import Scripts
from shapes import unchecked

# Before torch is imported, here or in a command that a test gives: on a busy machine two threads wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # for which a server starts eight more interpreters


def keep_files_in_memory() -> None:
    """Let pytest make the folders of tests where a file is synced at once: on a disk, that takes milliseconds."""
    memory, least_free = Path("/dev/shm"), 4 << 30  # bytes; programs are started from there, too
    if not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return
    if shutil.disk_usage(memory).free > least_free:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def remove_temporary_files() -> None:
    """Let tests and their programs have a folder for temporary files that is removed at the end.

    torch's compiled code, torchrun's logs and what MLflow downloads stay where they are written otherwise. The folders
    of tests that failed are pytest's, and are kept.
    """
    if OWNER in os.environ:  # a worker, which inherits it
        return
    os.environ[OWNER] = str(os.getpid())
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="headsweep-tests-")
    multiprocessing.util.Finalize(None, shutil.rmtree, (folder, True), exitpriority=-1000)  # after its own files'


def check_no_other_annotations() -> None:
    """Leave functions without tensors as they are: mypy checks them, and a model calls some a thousand times."""
    jaxtyped = jaxtyping.jaxtyped

    def check_shapes(found=None, **options):
        if found is None:
            return partial(check_shapes, **options)
        return jaxtyped(found, **options) if "Tensor" in str(found.__annotations__) else found

    jaxtyping.jaxtyped = check_shapes


keep_files_in_memory()
remove_temporary_files()
check_no_other_annotations()
jaxtyping.install_import_hook(["headsweep.heads", "headsweep.models"], "beartype.beartype")
read_project_files_once()
start_forkservers_warm()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of MLflow's that is migrated and holds nothing, to be copied: to make one takes seconds."""
    from headsweep.tracking.mlflow.store import default_uri, prepare

    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "store"  # of all workers
    prepare(default_uri(folder), "unused", folder)
    return folder / "mlflow.db"


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    """Scripts that are found before other programs."""
    place = tmp_path / "scripts"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)
    return Scripts(place)


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Turn off the run-time checks of annotations."""
    with unchecked():
        yield


# Runs go through a model thousands of times, and the checks take a quarter of their time.
TRAINING = {"launch", "run", "slurm", "training"}


@pytest.fixture(autouse=True)
def checked_elsewhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """Turn off the run-time checks of annotations for tests of training: tests of models and heads have them."""
    folder = request.path.relative_to(Path(__file__).parent).parts[0]
    with unchecked() if folder in TRAINING else nullcontext():
        yield


@pytest.fixture(scope="module")
def hydra_conf() -> Iterator[None]:
    """Initialize Hydra with the configuration of the project; grids compose the same choices once a process."""
    from hydra import initialize_config_dir

    from headsweep.config import PROJECT_ROOT
    from headsweep.config.study import expansion
    from overriding import compose_and_set

    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(expansion, "compose", compose_and_set)
        yield


@pytest.fixture
def hydra_state() -> Iterator[None]:
    """Restore Hydra's state afterwards: a process is expected to give one command."""
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton

    plugins = Plugins.instance()
    state = Singleton.get_state()
    state["instances"][Plugins] = plugins  # no command changes them, and to find them again takes 20 ms
    yield
    Singleton.set_state(state)


@pytest.fixture(scope="session")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The overrides for 128 training and 32 test images of 4 classes, tiles of a photograph, with two workers."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    root = tmp_path_factory.mktemp("tiles")
    photo = load_sample_image("china.jpg")[:416]
    tiles = photo.reshape(26, 16, 40, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    for number, tile in enumerate(np.ascontiguousarray(tiles[:160])):
        folder = root / ("train" if number < 128 else "test") / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile).save(folder / f"{number:03}.jpg")
    where = ["dataset=imagefolder", f"dataset.root={root}", "dataset.image_size=16"]
    return [*where, "loader.resident_gib=0", "loader.workers=2"]


# Files that take twenty seconds of CPU and more, though few of their tests are slow.
LONG = ("test_main_job.py", "test_killed.py", "test_studies.py", "test_wheel.py", "test_stopping.py", "test_damaged.py")


class ByFile(LoadScopeScheduling):
    """A worker gets a file's tests together, or all that need a cluster of SLURM.

    These mostly wait: a second worker that has some of them leaves a core idle.
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        folder, _, _ = file.rpartition("/")
        return "clusters" if folder.startswith("tests/slurm/") else file


def pytest_xdist_setupnodes(config, specs):
    """Start the workers warm: by themselves, each takes fifteen seconds to import torch, timm, MLflow and tests.

    Modules of tests look for a GPU. Where there is one, each worker imports them itself: forks of a process that has
    looked for it cannot use it.
    """
    has_gpu = any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))
    python = shlex.join(relay() if has_gpu else relay(kind=".tests", tests=config.args))
    specs[:] = [XSpec(f"{spec}//id={spec.id}//python={python}") for spec in specs]


def pytest_collection_finish():
    """Keep what is imported out of later garbage collections, each of which would take a second."""
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config, log):
    """Of pytest-xdist, whose `--dist loadgroup` finds no groups with pytest 9.2."""
    return ByFile(config, log)


# What an inner loop has no use for, however fast: it needs a cluster or a store of MLflow.
NOT_INNER = ("tests/slurm/", "tests/tracking/test_mlflow_")


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items):
    """First what needs a cluster, then files of slow tests, so that no worker is left alone with one at the end."""
    for item in items:
        if item.nodeid.startswith(NOT_INNER):
            item.add_marker("slow")
    quick = {item.path for item in items if not item.get_closest_marker("slow")}
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def place(item):
        path = item.path
        return path.parent.parent.name != "slurm", path.name not in LONG, path in quick, -slow[path]

    items.sort(key=place)
