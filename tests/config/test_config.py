import subprocess
import sys
import textwrap

import pytest
from omegaconf import OmegaConf

from composing import compose_run
from headsweep.config import HEADS, PROJECT_ROOT, DatasetFormat, Duration
from headsweep.errors import ConfigError

GROUPS = ["model", "head", "dataset", "augmentation", "optimizer", "schedule", "tracking", "paths", "debug"]
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((PROJECT_ROOT / "conf" / group).glob("*.yaml"))]


def test_every_group_has_choices():
    assert {group for group, _ in CHOICES} == set(GROUPS)
    on_disk = {path.name for path in (PROJECT_ROOT / "conf").iterdir() if path.is_dir()}
    assert on_disk == {*GROUPS, "hydra"}


NAMED_SETS = [it.value for it in DatasetFormat]


def together(*groups):
    """A choice of each group, as often as the longest has choices."""
    names = [[name for group, name in CHOICES if group == of] for of in groups]
    most = max(map(len, names))
    return [tuple((group, of[at % len(of)]) for group, of in zip(groups, names, strict=True)) for at in range(most)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        *together("model", *(group for group in GROUPS if group not in ("model", "head", "dataset"))),
        *together("head", "dataset"),
    ],
    ids=lambda choices: " ".join(name for _, name in choices),
)
def test_every_yaml_composes(choices):
    needed = []
    for group, choice in choices:
        if "7x2" in choice:
            needed += ["dataset.image_size=224"]
        elif choice in NAMED_SETS:
            needed += [f"dataset.name={choice}"]
        elif group == "head" and HEADS[choice].is_fitted:
            needed += ["backbone=random", "augmentation=none"]
    run = compose_run(*(f"{group}={choice}" for group, choice in choices), *needed)
    for group, choice in choices:
        chosen = getattr(run, group)
        # Every model of timm is chosen by one file, whose name is that of its family.
        name = getattr(chosen, "family" if choice == "timm" else "name", choice)
        assert getattr(name, "value", name) == choice


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_yaml_begins_with_a_description(group, choice):
    first = (PROJECT_ROOT / "conf" / group / f"{choice}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ") and len(first) > 10


BAD = [
    (["heads=0"], "heads=0: expected an integer >= 1"),
    (["heads=2.5"], "heads=2.5: expected an integer"),
    (["optimizer.lr=abc"], "optimizer.lr=abc: expected a number"),
    (["+optimizer.lrr=1"], "optimizer.lrr: unknown key; did you mean optimizer.lr"),
    (["+head.gram_dim=64"], "head.gram_dim: is an option of head=sg and head=ga alone; in a grid of"),
    (["head.name=foo"], f"head=foo: unknown head; known: {', '.join(sorted(HEADS))}"),
    (
        ["model.name=resnet50"],
        "model.name=resnet50: expected a name like cct_7_3x1 or vit_7_4 with model.family=compact",
    ),
    (["~optimizer.lr"], "optimizer.lr: expected a value, found none"),
    (["head=seqattn", "model.width=100"], "model.width=100: expected a multiple of 32 with head=seqattn"),
    (["head=ga", "head.gram_dim=60"], "head.gram_dim=60: expected a multiple of 16"),
    (["head=aim", "head.attention_heads=12"], "head.attention_heads=12: expected a divisor of model.width=128"),
    (["head=map", "head.attention_heads=0"], "head.attention_heads=0: expected an integer >= 1"),
    (["head=ep", "head.queries=48"], "head.queries=48: expected a divisor of model.width / head.d_out = 128 / 1"),
    (["head=ep", "head.d_out=0"], "head.d_out=0: expected an integer >= 1"),
    (["head=simpool", "head.gamma=0"], "head.gamma=0.0: expected a number > 0, or null for the weighted mean"),
    (["head=abmilp", "head.depth=0"], "head.depth=0: expected an integer >= 1"),
    (["head=vjepa", "head.depth=0"], "head.depth=0: expected an integer >= 1"),
    (["head=lse", "head.sharpness=0"], "head.sharpness=0.0: expected a number > 0"),
    (["+head.depth=2"], "head.depth: is an option of head=abmilp and head=vjepa alone; in a grid of"),
    (["model.attention_heads=3"], "model.attention_heads=3: expected a divisor of model.width=128"),
    (["model.positions=circle"], "model.positions=circle: invalid value 'circle', expected one of [learnable"),
    (["model.drop_path=1"], "model.drop_path=1.0: expected a number in [0, 1)"),
    (["dataset.mean=[0.1,0.2]"], "dataset.mean=[0.1, 0.2]: expected one number per channel"),
    (["dataset.validation=1"], "dataset.validation=1.0: expected a share in [0, 1)"),
    (["augmentation.randaugment=strong"], "augmentation.randaugment=strong: expected timm's notation"),
    (["augmentation.crop_scale=[0.9,0.1]"], "augmentation.crop_scale=[0.9, 0.1]: expected [least, most]"),
    (["duration=5"], "duration=5: expected a number and a unit"),
    (["duration='0 epochs'"], "duration=0 epochs: expected more than 0"),
    (["duration='50 percent'"], "duration=50 percent: expected more than 0 epochs, steps or images"),
    (["schedule.warmup='30 epochs'"], "schedule.warmup=30 epochs: expected less than the whole run"),
    (["accumulation=3"], "accumulation=3: expected a divisor of batch_size=64"),
    (["model=timm", "+model.residual_precision=bfloat16"], "model.residual_precision: is an option of"),
    (["decorrelation=-0.8"], "decorrelation=-0.8: expected 0 with heads=1"),
    (["head=ga", "batch_size=1"], "batch_size=1: expected >= 2 images per micro-batch: head=ga"),
    (["device=tpu"], "device=tpu: expected auto, cpu"),
    (["heads=99999999999999999999"], "heads=99999999999999999999: expected an integer <= 1024"),
    (["heads=null"], "heads: expected a value, not null"),
    (["optimizer.lr=inf"], "optimizer.lr=inf: expected a finite number"),
    (["clip_norm=nan"], "clip_norm=nan: expected a finite number"),
    (["dataset.mean=[nan]"], "dataset.mean=[nan]: expected a finite number"),
    (["optimizer.betas=0.9"], "optimizer.betas=0.9: expected a list"),
    (["loader.resident_gib=-1"], "loader.resident_gib=-1.0: expected a number >= 0"),
    (["schedule.min_lr=1"], "schedule.min_lr=1.0: expected <= optimizer.lr=0.0005"),
    (["model.mlp_ratio=0.0001"], "model.mlp_ratio=0.0001: expected a larger ratio"),
    (["paths.output=''"], "paths.output='': expected a folder"),
    (["tracking.uri=foo"], "tracking.uri=foo: expected http://host:port, sqlite:////absolute/path.db"),
    (["ema_decay=1"], "ema_decay=1.0: expected a number in (0, 1)"),
    (["model.family=foo"], "model.family=foo: unknown model family; known: compact, timm"),
    (["model=timm", "+model.depth=5"], "model.depth: is an option of model.family=compact alone"),
    (["+model.small_stem=true"], "model.small_stem: is an option of model.family=timm alone"),
    (["model=timm", "model.small_stem=perhaps"], "model.small_stem=perhaps: expected true or false"),
    (["model=timm", "model.options=3"], "model.options=3: expected keywords and their values"),
    (
        ["model=timm", "model.options={num_classes:5}"],
        "model.options.num_classes=5: expected no such option: dataset.num_classes sets it",
    ),
    (
        ["model=timm", "model.options={pretrained:true}"],
        "model.options.pretrained=True: expected no such option: model.pretrained sets it",
    ),
    (["model=timm", "model.options={drop_rate:nan}"], "model.options.drop_rate=nan: expected a finite number"),
    (
        ["model.name=cct_2/../../escaped"],
        "model.name=cct_2/../../escaped: expected a name without / and",
    ),
    (["model=timm", "model.name=../x"], "model.name=../x: expected a name without / and \\"),
    (["model=timm", "model.name=''"], "model.name='': expected a name of 1 to 128 printable characters"),
    (["model.name='cct_2\n'"], r"model.name=cct_2\n: expected a text of one line, without control characters"),
    (["tracking.experiment='a\x1b[31m'"], r"tracking.experiment=a\x1b[31m: expected a text of one line"),
    (["tracking.experiment=7e10"], "tracking.experiment=70000000000.0: expected a text, found a number; quote it"),
    (["tracking.experiment=true"], "tracking.experiment=True: expected a text, found a boolean; quote it"),
    (["paths.output=1e3"], "paths.output=1000.0: expected a text, found a number; quote it"),
    (["tracking.experiment=' '"], "tracking.experiment= : expected a name of 1 to 128 printable characters"),
    (["optimizer.name='sgd\n'"], r"optimizer.name=sgd\n: expected a text of one line"),
    (["model=timm", "model.options={act_layer: 'a\nb'}"], r"model.options.act_layer=a\nb: expected a text of one line"),
    (["paths.output='a\nb'"], r"paths.output=a\nb: expected a text of one line"),
    (["paths.output='~nosuchuser/x'"], "paths.output=~nosuchuser/x: expected a path, found none (Could not determine"),
    (["dataset.root='~nosuchuser/x'"], "dataset.root=~nosuchuser/x: expected a path, found none"),
    (["model.checkpoint='~nosuchuser/x'"], "model.checkpoint=~nosuchuser/x: expected a path, found none"),
    (["device='cuda:٣'"], "device=cuda:٣: expected auto, cpu, mps, cuda or cuda:N"),
    (["duration='٣ epochs'"], "duration=٣ epochs: expected a number and a unit"),
    (["duration='1e400 epochs'"], "duration=1e400 epochs: expected <= 1e+12"),
    (["schedule.warmup='1e400 steps'"], "schedule.warmup=1e400 steps: expected <= 1e+12"),
    (["augmentation.randaugment=rand-m9.5.5"], "augmentation.randaugment=rand-m9.5.5: expected timm's notation"),
    (
        ["tracking.uri='http://['"],
        "tracking.uri=http://[: expected an address, e.g. http://host:port (Invalid",
    ),
    (["tracking.uri='http://h:x'"], "tracking.uri=http://h:x: expected an address, e.g. http://host:port (Port could"),
    (["loader.workers=100000"], "loader.workers=100000: expected <= 1024 processes"),
    (
        ["model=vit_2_4", "dataset.image_size=18"],
        "dataset.image_size=18: expected a multiple of model.tokenizer_kernel=4",
    ),
    (["model=vit_2_4", "model.tokenizer_layers=2"], "model.tokenizer_layers=2: expected 1 with model.tokenizer=patch"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[row[1].split(":")[0] for row in BAD])
def test_bad_input_is_one_line_that_names_the_key(overrides, message):
    with pytest.raises(ConfigError) as caught:
        compose_run(*overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_reading_a_configuration_imports_neither_torch_nor_timm():
    code = """
        import sys
        from composing import compose_run
        compose_run("model=timm", "model.name=resnet50", "model.options={drop_path_rate: 0.1}")
        assert not {"torch", "timm", "mlflow"} & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT / "tests")
    assert answer.returncode == 0, answer.stderr


def test_overrides_set_the_values_given():
    run = compose_run("head=ga", "heads=4", "head.gram_dim=32", "optimizer.lr=1e-3", "decorrelation=-0.8")
    assert (run.head.name, run.head.gram_dim, run.heads) == ("ga", 32, 4)
    assert (run.optimizer.lr, run.decorrelation) == (1e-3, -0.8)


@pytest.mark.parametrize("model", [["model=cct_7_3x1"], ["model=timm", "model.options={depth: 2, drop_rate: 0.1}"]])
def test_a_frozen_configuration_reads_back_equal(model):
    from headsweep.config import parse

    run = compose_run("head=ga", "dataset=cifar100", "augmentation=paper", *model)
    text = OmegaConf.to_yaml(OmegaConf.structured(run))
    assert parse(OmegaConf.create(text)) == run


@pytest.mark.parametrize(
    ("text", "steps"),
    [("3 epochs", 30), ("1 epoch", 10), ("7 steps", 7), ("640 images", 10), ("1e3images", 16), ("50 percent", 50)],
)
def test_durations_resolve_to_steps(text, steps):
    assert Duration.parse("duration", text).steps(steps_per_epoch=10, batch_size=64, whole=100) == steps
