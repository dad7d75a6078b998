"""Heads equal a loop over branches written from their formulas; `test_head_checks.py` has what holds for any head."""

import dataclasses
import inspect
from collections.abc import Iterator
from itertools import pairwise

import oracle
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headsweep import config
from headsweep.errors import UserError
from headsweep.heads import HEADS, Head, build_head
from headsweep.heads.layers.class_attention import ClassAttention
from headsweep.heads.layers.gram import GramTriangle, _triangle_indices

CLASSES = 10
STUDIES_OF_HEADS = [config.PROJECT_ROOT / "sweeps" / f"{study}.yaml" for study in ("heads", "poolings")]
# Parameters that branches share and those of one branch, at N=D=256, C=100.
PARAMETERS = {
    "gap": (0, 25_700),
    "cls": (0, 25_700),
    "seqpool": (0, 25_957),
    "se": (0, 34_164),
    "cait": (0, 356_708),
    "at": (32_896, 356_452),
    "sg": (0, 95_268),
    "ga": (0, 426_020),
    "seqattn": (0, 356_709),
    "ep": (0, 99_428),
    "aim": (0, 157_028),
    "simpool": (0, 157_284),
    "map": (0, 815_204),
    "abmilp": (0, 91_749),
    "gem": (0, 25_701),
    "max": (0, 25_700),
    "lse": (0, 25_700),
    "cls_gap": (0, 51_300),
    "clip": (0, 354_660),
    "vjepa": (0, 749_924),
    "cae": (0, 289_892),
}


def make(
    name: str, heads: int, width: int = 64, tokens: int = 16, dtype: torch.dtype = torch.float64, **options: float
) -> Head:
    """A head away from its initial point, where gammas of 1e-4 would hide half of the block."""
    torch.manual_seed(heads)
    head = build_head(name, width=width, num_classes=CLASSES, heads=heads, tokens=tokens, **options).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def images(count: int = 6, tokens: int = 16, width: int = 64, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, tokens, width, dtype=dtype).requires_grad_()


def check_against_oracle(name: str, head: Head, x: Tensor) -> None:
    loop = oracle.reference(name, head).train(head.training)
    y = x.detach().clone().requires_grad_()
    got, expected = head(x), loop(y)
    direction = torch.randn_like(got)
    (got * direction).sum().backward()
    (expected * direction).sum().backward()
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(got, expected, **close)
    torch.testing.assert_close(x.grad, y.grad, **close)
    for a, b in oracle.pairs(name, oracle.gradients(head), oracle.gradients(loop)):
        torch.testing.assert_close(a, b, **close)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "tokens"), [(1, 49), (8, 9)])  # 2 and 4 heads are in other tests of this file
@pytest.mark.parametrize("name", HEADS)
def test_equals_the_loop_over_branches_in_training(name: str, heads: int, tokens: int) -> None:
    check_against_oracle(name, make(name, heads, tokens=tokens), images(tokens=tokens))


@pytest.mark.parametrize("name", HEADS)
def test_equals_the_loop_over_branches_at_full_width(name: str) -> None:
    check_against_oracle(name, make(name, 2, width=256), images(width=256))


@pytest.mark.parametrize("name", HEADS)
def test_equals_the_loop_over_branches_in_evaluation(name: str) -> None:
    head = make(name, 4)
    head(images())  # moves running statistics away from 0 and 1
    check_against_oracle(name, head.eval(), images())


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("name", HEADS)
def test_token_weights_equal_those_of_the_loop_and_sum_to_one(name: str, heads: int) -> None:
    head, x = make(name, heads).eval(), images()
    got, expected = head.token_weights(x), oracle.reference(name, head).eval().token_weights(x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    if got is not None:
        assert got.shape == (6, heads, 16 - head.class_token) and bool((got >= 0).all())
        torch.testing.assert_close(got.sum(-1), torch.ones_like(got[..., 0]))


def test_a_query_that_attends_only_to_itself_has_weights() -> None:
    """Tokens opposite to the query get shares of attention below the smallest float; all are equal."""
    torch.manual_seed(0)
    attention = ClassAttention(1, 64).double()
    with torch.no_grad():
        queries, keys, _ = attention.qkv.chunk(3, 1)
        keys.copy_(1e6 * queries)
    query = torch.randn(1, 1, 64).double()
    weights = attention.token_weights(query, -query.expand(1, 5, 64))
    torch.testing.assert_close(weights, torch.full_like(weights, 0.2))


@pytest.mark.parametrize("name", ["sg", "ga"])
def test_gram_dim_is_free(name: str) -> None:
    check_against_oracle(name, make(name, 2, gram_dim=32), images())


@pytest.mark.parametrize("name", HEADS)
def test_only_heads_with_fixed_tokens_refuse_another_number(name: str) -> None:
    head, x = make(name, 2, tokens=9), images(tokens=16)
    if head.fixed_tokens:
        with pytest.raises(ValueError, match=f"^head={name}: expected N=9 tokens, found 16; .*$"):
            head.pool(x)
    else:
        check_against_oracle(name, head, x)


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_has_a_place_in_the_oracle(name: str) -> None:
    assert set(oracle.BRANCHES[name].NAMES) == set(make(name, 1).state_dict())


def missing(name: str, spec: config.HeadSpec) -> list[str]:
    """What a head still lacks, beside its class and its record."""
    root = config.PROJECT_ROOT
    yaml = root / "conf" / "head" / f"{name}.yaml"
    axes = [OmegaConf.load(path).hydra.sweeper.params.head.split(",") for path in STUDIES_OF_HEADS]
    comment = yaml.read_text().splitlines()[0] if yaml.exists() else None
    pages = [line for path in sorted((root / "docs").glob("*.md")) for line in path.read_text().splitlines()]
    choices = [line for line in pages if line.startswith("| `head` |")]
    rows = list(rows_of_heads(pages))
    is_there = {
        f"conf/head/{name}.yaml": comment is not None,
        f"conf/head/{name}.yaml: the comment {spec.summary!r}": comment in (None, f"# {spec.summary}"),
        "an axis value in sweeps/heads.yaml or sweeps/poolings.yaml": any(name in axis for axis in axes),
        "PARAMETERS in tests/heads/test_heads.py": name in PARAMETERS,
        "BRANCHES in tests/heads/oracle.py": name in oracle.BRANCHES,
        "docs: a choice in the row of the key `head`": any(f"`{name}`" in line for line in choices),
        "docs: a row in the tables of heads, of token weights and of parameters": sum(
            f"`{name}`" in row.split("|")[1] for row in rows
        )
        == 3,
        f"docs: the source {spec.source!r} in the table of heads": any(
            f"`{name}`" in row and spec.source in row.replace("`", "") for row in rows
        ),
        "docs: its class in api.md": f"::: {spec.class_path.replace(':', '.')}" in pages,
    }
    return [what for what, is_ in is_there.items() if not is_]


def rows_of_heads(lines: list[str]) -> Iterator[str]:
    """The rows of the tables whose first column is called head."""
    inside = False
    for before, line in pairwise(lines):
        inside = line.startswith("|") and (inside or before.startswith("| head |"))
        if inside and not line.startswith("| -"):
            yield line


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_complete(name: str) -> None:
    assert missing(name, config.HEADS[name]) == []


def test_every_yaml_file_is_of_a_head() -> None:
    assert {path.stem for path in (config.PROJECT_ROOT / "conf" / "head").glob("*.yaml")} == set(config.HEADS)


def test_what_a_new_head_lacks_is_named() -> None:
    median = config.HeadSpec(config.HeadConfig, "headsweep.heads.median:MedianHead", "a paper", "The median token")
    assert missing("median", median) == [
        "conf/head/median.yaml",
        "an axis value in sweeps/heads.yaml or sweeps/poolings.yaml",
        "PARAMETERS in tests/heads/test_heads.py",
        "BRANCHES in tests/heads/oracle.py",
        "docs: a choice in the row of the key `head`",
        "docs: a row in the tables of heads, of token weights and of parameters",
        "docs: the source 'a paper' in the table of heads",
        "docs: its class in api.md",
    ]


@pytest.mark.parametrize("name", HEADS)
def test_schema_fields_are_the_head_s_own_options(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(config.HEADS[name].options)} - {"name"}
    parameters = inspect.signature(HEADS[name].__init__).parameters
    own = {keyword for keyword, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert own == fields
    assert list(parameters)[:5] == ["self", "width", "num_classes", "heads", "tokens"]
    assert parameters.keys() - own - set(list(parameters)[:5]) <= {"pooled_width"}


@pytest.mark.parametrize("name", HEADS)
def test_an_option_has_the_same_default_in_its_class_and_in_its_yaml_file(name: str) -> None:
    options = dict(OmegaConf.load(config.PROJECT_ROOT / "conf" / "head" / f"{name}.yaml"))
    parameters = inspect.signature(HEADS[name].__init__).parameters
    assert options == {"name": name} | {key: parameters[key].default for key in options if key != "name"}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_final_and_override_nothing_concrete(name: str) -> None:
    assert HEADS[name].__mro__[1] is Head and not HEADS[name].__subclasses__()
    assert not {"forward", "reset_classifier", "no_weight_decay", "check_tokens"} & set(vars(HEADS[name]))


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("gap", "class_token", "expected class_token=False in its record, as the class has it, found True"),
        ("cls", "class_token", "expected class_token=True in its record, as the class has it, found False"),
        ("gap", "is_fitted", "expected is_fitted=False in its record, as GapHead is not derived from FittedHead"),
        ("knn", "is_fitted", "expected is_fitted=True in its record, as KnnHead is derived from FittedHead"),
    ],
)
def test_a_record_that_differs_from_the_class_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str, expected: str
) -> None:
    wrong = dataclasses.replace(config.HEADS[name], **{field: not getattr(config.HEADS[name], field)})
    monkeypatch.setattr("headsweep.heads.SPECS", {name: wrong})
    with pytest.raises(UserError, match=f"head={name}: {expected}"):
        build_head(name, width=32, num_classes=2, heads=1, tokens=4)


def test_an_unknown_head_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"known: {', '.join(sorted(config.HEADS))}"):
        build_head("no_such_head", width=64, num_classes=CLASSES, heads=1, tokens=16)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gap", {"heads": 0}, "heads=0: expected an integer >= 1"),
        ("seqattn", {"width": 48}, "width=48: expected a multiple of 32"),
        ("ga", {"gram_dim": 24}, "gram_dim=24: expected a multiple of 16"),
        ("sg", {"width": 20}, "20 features to 64: expected multiples of groups=8"),
        ("ep", {"queries": 7}, "width=64: expected a multiple of d_out=1 times queries=7"),
        ("ep", {"d_out": 4}, "width=64: expected a multiple of d_out=4 times queries=32"),
        ("ep", {"queries": 0}, "width=64: expected a multiple of d_out=1 times queries=0"),
        ("aim", {"attention_heads": 12}, "attention_heads=12: expected a divisor of width=64"),
        ("aim", {"queries": 0}, "queries=0: expected an integer >= 1"),
        ("map", {"attention_heads": 0}, "attention_heads=0: expected a divisor of width=64"),
        ("simpool", {"gamma": 0.0}, "gamma=0.0: expected a number > 0, or none for the weighted mean"),
        ("abmilp", {"depth": 0}, "depth=0: expected an integer >= 1"),
        ("vjepa", {"depth": 0}, "depth=0: expected an integer >= 1"),
        ("lse", {"sharpness": float("nan")}, "sharpness=nan: expected a number > 0"),
    ],
)
def test_impossible_sizes_are_refused(name: str, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_head(name, **{"width": 64, "num_classes": CLASSES, "heads": 1, "tokens": 16} | changes)


def test_the_gram_matrix_is_float32_under_autocast() -> None:
    class Dtypes(TorchDispatchMode):
        gram = None

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.bmm.default and out.shape[1:] == (32, 32):
                self.gram = out.dtype
            return out

    head, x = make("ga", 1, dtype=torch.float32, gram_dim=32), images(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), Dtypes() as dtypes:
        head(x)
    assert dtypes.gram is torch.float32


@pytest.mark.parametrize("name", HEADS)
def test_parameters_that_are_shared_and_those_of_a_branch(name: str) -> None:
    shared, own = PARAMETERS[name]
    for heads in (1, 8):
        head = build_head(name, width=256, num_classes=100, heads=heads, tokens=256)
        assert sum(parameter.numel() for parameter in head.parameters()) == shared + heads * own


@pytest.mark.parametrize("name", HEADS)
def test_stacked_vectors_do_not_decay(name: str) -> None:
    head = make(name, 2)
    loop = oracle.reference(name, head)
    parameters = dict(head.named_parameters())
    vectors = set()
    for stacked, plain in oracle.BRANCHES[name].NAMES.items():
        target = dict(loop.named_parameters()).get(f"branches.0.{plain.split()[0]}")
        if target is not None and target.ndim == 1:
            vectors.add(stacked)
    assert head.no_weight_decay() == vectors <= set(parameters)


def test_reset_classifier() -> None:
    head = make("seqpool", 2, dtype=torch.float32)
    x = images(dtype=torch.float32)
    head.reset_classifier(3)
    assert head(x).shape == (6, 2, 3)
    head.reset_classifier(0)
    assert torch.equal(head(x), head.pool(x))


def test_convolutions_draw_with_the_fan_in_of_one_group_of_one_branch() -> None:
    query = build_head("ga", width=256, num_classes=100, heads=4, tokens=256).query
    for layer, fan_in in ((query.contraction, 32), (query.embedding, 260)):
        bound = fan_in**-0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert 0.9 * bound < layer.bias.abs().max() <= bound


def test_second_derivatives_of_the_gram_triangle() -> None:
    features = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    indices = _triangle_indices(4)
    assert torch.autograd.gradcheck(lambda f: GramTriangle.apply(f, *indices), features)
    assert torch.autograd.gradgradcheck(lambda f: GramTriangle.apply(f, *indices), features)
