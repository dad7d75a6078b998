"""Variants, conditional and zipped axes, tuned axes and unions: which cells they are, and every mistake in one line."""

from dataclasses import replace

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from composing import expand_study
from headsweep.config.command_line import spell_out
from headsweep.config.composition import one_line
from headsweep.config.study.expansion import read_grid
from headsweep.config.study.language import declared, read_study
from headsweep.config.study.words import spelled_for_hydra
from headsweep.errors import ConfigError, UserError
from headsweep.plan.expand import expand
from headsweep.plan.lookup import Lookup

pytestmark = pytest.mark.usefixtures("hydra_conf")

S = "hydra.sweeper."
VARIANTS = f"{S}variants={{paper:[],no smoothing:[augmentation.label_smoothing=0],EMA:[ema_decay=0.999]}}"
GRAM = f'{S}conditional={{head=ga:{{head.gram_dim:"16,32"}}}}'
ZIPPED = f'{S}zipped=[{{model:"cct_2_3x2,cct_7_3x1",batch_size:"64,256"}}]'
TUNE = f'{S}tune={{optimizer.lr:"1e-3,3e-3"}}'


def cells(*words, say=lambda line: None):
    """Head, number of heads, gram_dim, model, batch size, learning rate, label smoothing and decay of each cell."""
    keys = ("head", "heads", "head.gram_dim", "model", "batch_size", "optimizer.lr", "ema_decay")
    return [
        tuple(cell.select(f"{key}.name" if key in ("head", "model") else key, None) for key in keys)
        for cell, run in zip(*pair(expand_study(*words, say=say)), strict=True)
        if run is not None
    ]


def pair(expansion):
    expansion.runs()
    return expansion.cells, expansion.outcomes


def variants(*words):
    """The variants of the points, whose cells are not composed."""
    request, _ = read_grid(spell_out(words))
    return {point.variant for point in request.points.points}


def of(index, *words):
    return [cell[index] for cell in cells(*words)]


def test_a_conditional_axis_is_for_the_cells_in_which_its_condition_holds():
    found = [(head, heads, dim) for head, heads, dim, *_ in cells("head=gap,ga", "heads=1,2", GRAM)]
    assert found == [("gap", 1, None), ("gap", 2, None), *(("ga", heads, dim) for heads in (1, 2) for dim in (16, 32))]


def test_a_condition_may_order_and_have_several_parts_in_either_spelling():
    axes = 'head.gram_dim:"16,32"'
    as_list = f'{S}conditional=[{{when:"head=ga heads>1",{axes}}}]'
    as_keys = f"{S}conditional={{head=ga heads=2:{{{axes}}}}}"
    assert of(2, "head=gap,ga", "heads=1,2", as_list) == [None, None, 64, 16, 32]
    assert of(2, "head=gap,ga", "heads=1,2", as_keys) == [None, None, 64, 16, 32]


def test_a_later_condition_may_name_an_axis_of_an_earlier_one():
    then = f'{S}conditional={{head=ga:{{head.gram_dim:"16,32"}},head.gram_dim=32:{{ema_decay:"0.9,0.99"}}}}'
    found = [(dim, decay) for *_, dim, _, _, _, decay in cells("head=gap,ga", then)]
    assert found == [(None, None), (16, None), (32, 0.9), (32, 0.99)]


def test_zipped_axes_vary_together():
    found = [(heads, model, size) for _, heads, _, model, size, *_ in cells("heads=1,2", ZIPPED)]
    together = [("cct_2_3x2", 64), ("cct_7_3x1", 256)]
    assert found == [(heads, *both) for both in together for heads in (1, 2)]


def test_a_union_has_the_cells_of_its_blocks_combined_with_the_outer_one():
    gram = 'conditional:{head=ga:{head.gram_dim:"16,64"}}'
    union = f'{S}union=[{{params:{{heads:"1,2"}}}},{{params:{{heads:2,head:ga}},{gram}}}]'
    found = [cell[:3] for cell in cells(f"{S}params={{head:'gap,ga'}}", union)]
    first = [("gap", 1, None), ("gap", 2, None), ("ga", 1, 64), ("ga", 2, 64)]
    assert found == [*first, ("ga", 2, 16), ("ga", 2, 64)]


def test_cells_of_several_blocks_are_counted():
    said = []
    union = f'{S}union=[{{params:{{heads:"1,2"}}}},{{params:{{heads:"2,4"}}}}]'
    assert len(cells("head=gap,ga", union, say=said.append)) == 8
    assert said == ["2 of 8 cells are in an earlier block of the union, too"]


def test_blocks_of_a_union_add_to_what_the_outer_block_has():
    union = f"{S}union=[{{variants:{{EMA:[ema_decay=0.9]}}}},{{params:{{heads:2}}}}]"
    points = expand_study("head=gap", f"{S}variants={{paper:[]}}", union).points
    assert [(point.block, point.variant) for point in points] == [(0, "paper"), (0, "EMA"), (1, "paper")]


def test_a_variant_counts_more_than_a_value_for_every_cell():
    assert of(6, VARIANTS, "ema_decay=0.9") == [0.9, 0.9, 0.999]


@pytest.mark.parametrize(
    ("words", "index", "values"),
    [
        ((f'{S}params={{heads:"1,2"}}', "heads=4,8"), 1, [4, 8]),
        ((TUNE, "optimizer.lr=1e-2,2e-2"), 5, [1e-2, 2e-2]),
        ((TUNE, "optimizer.lr=1e-2"), 5, [1e-2]),
        ((GRAM, "head=gap,ga", "head.gram_dim=64,128"), 2, [None, 64, 128]),
        ((GRAM, "head=gap,ga", "head.gram_dim=choice(64)"), 2, [None, 64]),
        ((ZIPPED, "batch_size=32,128"), 4, [32, 128]),
        ((f'{S}conditional={{heads=2:{{ema_decay:"0.9,0.99"}}}}', "heads=1,2", "ema_decay=0.5"), 6, [0.5, 0.5]),
        (("+sweeps=ablation", "head=seqpool", "seed=0"), 2, [None] * 6),
    ],
)
def test_an_axis_of_the_command_line_stands_where_that_of_the_study_does(words, index, values):
    assert of(index, *words) == values


def test_values_of_a_range_have_the_decimals_of_its_step():
    assert of(5, "optimizer.lr=range(0.1,0.4,0.1)") == [0.1, 0.2, 0.3]
    assert of(5, "optimizer.lr=range(3e-4,1e-3,1e-4)") == [3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4]
    assert of(5, "optimizer.lr=range(0.05,0.3,0.1)") == [0.05, 0.15, 0.25]
    assert of(5, "optimizer.lr=range(1,0,-0.25)") == [1.0, 0.75, 0.5, 0.25]
    assert sorted(of(5, "optimizer.lr=shuffle(range(0.1,0.4,0.1))")) == [0.1, 0.2, 0.3]


def test_now_is_one_moment_in_all_cells_of_a_command():
    runs = expand_study("head=gap,ga", "model=cct_2_3x2,cct_4_3x2", "tracking.experiment=${now:%f-%H-%M-%S}").runs()
    assert len({run.tracking.experiment for run in runs}) == 1


def test_equals_signs_of_a_study_are_escaped_for_hydra():
    assert spelled_for_hydra(VARIANTS).count(r"\=") == 2
    assert spelled_for_hydra(spelled_for_hydra(VARIANTS)) == spelled_for_hydra(VARIANTS)
    quoted = f'{S}variants={{betas:["optimizer.betas=[0.9,0.95]"]}}'
    assert spelled_for_hydra(quoted) == f"++{quoted}"
    assert spelled_for_hydra("model.options={a=b:1}") == "model.options={a=b:1}"
    (point,) = expand_study(quoted).points
    assert point.changes == ("optimizer.betas=[0.9,0.95]",)


@pytest.mark.slow
def test_a_dictionary_of_the_command_line_adds_to_that_of_the_study():
    study = ["+sweeps=ablation", "seed=0"]
    assert variants(*study, f"{S}variants={{EMA:[ema_decay=0.999]}}") == {"complete", "no smoothing", "no crops", "EMA"}
    assert set(of(6, *study, f'{S}conditional={{head=seqpool:{{ema_decay:"0.9,0.99"}}}}')) == {None, 0.9, 0.99}
    assert set(of(6, *study, f'{S}tune={{ema_decay:"0.9,0.99"}}')) == {0.9, 0.99}
    assert variants(*study, f"{S}variants=null") == {None}


MISTAKES = [
    ([VARIANTS, f"{S}baseline=papr"], "baseline=papr: unknown variant; known: paper, no smoothing, EMA"),
    ([f"{S}baseline=paper"], "baseline=paper: unknown variant; known: none, as hydra.sweeper.variants is not given"),
    ([VARIANTS, f"{S}baseline=[paper]"], "baseline=['paper']: unknown variant"),
    ([GRAM, "head.gram_dim=8,16"], "conditional=head=ga: no cell has head=ga; the grid has seqpool"),
    ([f"{S}conditional={{heads=2:{{ema_decay:0.9}}}}"], "conditional=heads=2: no cell has heads=2; the grid has 1"),
    ([f'{S}conditional=[{{when:"heads>8",ema_decay:0.9}}]'], "conditional=heads>8: expected a condition that holds"),
    ([f'{S}conditional=[{{when:"haeds>8",ema_decay:0.9}}]'], "conditional=haeds>8: haeds: unknown key; did you mean"),
    ([f"{S}conditional={{head:{{ema_decay:0.9}}}}"], "conditional=head: expected KEY OP VALUE, e.g. 'head=ga heads<2'"),
    ([f"{S}conditional={{head=seqpool:ema_decay}}"], "conditional.head=seqpool=ema_decay: expected axes and"),
    ([f"{S}conditional={{head=seqpool:{{}}}}"], "conditional.head=seqpool={}: expected axes, e.g."),
    ([f"{S}conditional=head"], "conditional=head: expected conditions and axes"),
    ([f"{S}conditional=[{{ema_decay:0.9}}]"], "conditional=[{'ema_decay': 0.9}]: expected conditions and axes"),
    (
        [f'{S}conditional={{heads=1:{{ema_decay:"0.9,1"}},head=seqpool:{{ema_decay:0.5}}}}'],
        "expected one axis ema_decay",
    ),
    (
        [ZIPPED, "batch_size=64"],
        "zipped=model,batch_size: expected as many values of each, found model: 2, batch_size: 1",
    ),
    ([f"{S}zipped={{model:a}}"], "zipped={'model': 'a'}: expected a list of groups of axes"),
    ([f'{S}zipped=[{{heads:"1,2"}}]'], "zipped[0]={'heads': '1,2'}: expected two or more axes that vary together"),
    (
        [f"{S}variants={{a:[],b:[]}}"],
        "variants: expected variants that differ, found that a and b are the same run; leave one out",
    ),
    (
        [f"{S}variants={{a:[],b:[heads=1],c:[heads=2]}}", "head=gap,ga"],
        "variants: expected variants that differ, found that a and b are the same run at head=gap; leave one out",
    ),
    (
        [VARIANTS, "ema_decay=0.9,0.99"],
        "variants.EMA=ema_decay=0.999: expected a key without an axis, found one in the",
    ),
    (
        [VARIANTS, f"{S}params={{ema_decay:0.9}}"],
        "variants.EMA=ema_decay=0.999: expected a key without an axis, found one in par",
    ),
    ([f"{S}variants={{a:[head.name=ga]}}", "head=gap,ga"], "variants.a=head.name=ga: expected a key without an axis"),
    ([f"{S}variants={{a:[heads=1],a:[heads=2]}}"], "variants: expected each key once, found a twice"),
    ([f"{S}variants={{' ':[]}}"], ""),
    ([f"{S}variants={{1:[]}}"], "variants=1: expected the name of a variant, a text of one line; quote it"),
    ([f"{S}variants={{a:ema_decay=0.9}}"], "variants.a=ema_decay=0.9: expected a list of overrides"),
    ([f"{S}variants={{a:[1]}}"], "variants.a=[1]: expected a list of overrides"),
    ([f"{S}variants=[a]"], "variants=['a']: expected names and lists of overrides"),
    ([f'{S}variants={{a:["heads=1,2"]}}'], "variants.a=heads=1,2: expected one value, found several"),
    ([f'{S}variants={{a:["heads="]}}', "head=gap,ga"], ""),
    ([f"{S}variants={{a:[heads]}}"], "variants.a: heads: expected KEY=VALUE"),
    ([f"{S}variants={{a:[heads=1,heads=2]}}"], "variants.a=[heads=1, heads=2]: expected each key once"),
    ([f"{S}variants={{a:[],b:[seed=1]}}"], "variants.b=seed=1: expected a key in which variants can differ"),
    (
        [f"{S}variants={{a:[],b:[hydra.launcher.slots=2]}}"],
        "variants.b=hydra.launcher.slots=2: expected a key in which",
    ),
    ([f"{S}variants={{a:[],b:[haeds=2]}}"], "haeds"),
    (
        [TUNE, f'{S}params={{optimizer.lr:"1,2"}}'],
        "optimizer.lr: expected one axis of a key, found it in params and tune",
    ),
    (
        [TUNE, f'{S}conditional={{heads=1:{{optimizer.lr:"1,2"}}}}'],
        "optimizer.lr: expected one axis of a key, found it in tune",
    ),
    ([f"{S}tune=optimizer.lr"], "tune=optimizer.lr: expected axes and their values"),
    ([f"{S}tune={{optimizer.lr:choice()}}"], ""),
    ([f"{S}tune={{optimizer.lr:1e-3}}"], "tune=optimizer.lr: 0.001: expected two or more values; for one give optimi"),
    ([f'{S}tune={{optimizer.lr:"1e-3,1e-3"}}'], "tune=optimizer.lr: 1e-3,1e-3: expected two or more values; for one"),
    *(
        ([f'{S}tune={{{axis}:"1,2"}}'], f"tune={axis}: 1,2: expected a hyper-parameter, found what a study compares")
        for axis in ("seed", "head", "head.name", "heads", "model", "model.width", "dataset.validation")
    ),
    ([f'{S}tune={{debug.train_images:"1,2"}}'], "tune=debug.train_images: 1,2: expected a hyper-parameter"),
    (
        [f"{S}params={{1:2}}"],
        "params=1: expected the key of an axis, found something else; quote values that have a comma",
    ),
    ([f"{S}margin=0"], "margin=0: expected an equivalence margin in percentage points, a number in (0, 100)"),
    ([f"{S}margin=-1"], "margin=-1: expected an equivalence margin"),
    ([f"{S}margin=100"], "margin=100: expected an equivalence margin"),
    ([f"{S}margin=small"], "margin=small: expected an equivalence margin"),
    ([f"{S}margin=true"], "margin=True: expected an equivalence margin"),
    ([f"{S}margin=nan"], "margin=nan: expected an equivalence margin"),
    ([f"{S}union={{heads:1}}"], "union={'heads': 1}: expected a list of blocks"),
    ([f"{S}union=[heads]"], "union[0]=heads: expected a block with some of params, variants, conditional, zipped"),
    ([f'{S}union=[{{tune:{{heads:"1,2"}}}}]'], "union[0].tune: unknown key of a block; known: params, variants, cond"),
    (
        [f"{S}union=[{{variants:{{a:[heads=1]}}}},{{variants:{{a:[heads=2]}}}}]"],
        "variants.a: expected one variant of a name, found [heads=1] and [heads=2]",
    ),
    ([f"{S}no_such_key=1"], "no_such_key"),
    ([f"{S}variant={{a:[]}}"], "variant: unknown key; did you mean hydra.sweeper.variants?"),
    ([f"{S}conditional={{head=ga:{{head.gram_dim:16,64}}}}"], "conditional: expected keys and values as Hydra reads "),
    (
        [f"{S}variants={{a:[],b:[heads=2]}}", f"{S}conditional={{variant=b:{{ema_decay:0.9}}}}"],
        "conditional=variant=b: expected a condition on keys of a run, which cannot name a variant",
    ),
    (["heads=range(1,400)", f'{S}tune={{optimizer.lr:"range(1,400)"}}'], "expected a grid of at most 100000 cells"),
    (
        ["heads=range(1,12)", f'{S}conditional={{head=seqpool:{{optimizer.lr:"range(1,10000)"}}}}'],
        "expected a grid of at most",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda it: it if isinstance(it, str) else " ".join(it))
def test_a_mistake_is_one_line(words, message):
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        expand_study(*words).runs()
    line = one_line(caught.value)
    assert message in line and "\n" not in line and "Error in call" not in line


@pytest.mark.parametrize(
    ("key", "found", "message"),
    [
        ("variants", {"": []}, "variants='': expected the name of a variant"),
        ("variants", {"a\nb": []}, r"variants=a\nb: expected the name of a variant"),
        ("params", {"head": "seqpool", " ": "ga"}, "params='': expected the key of an axis"),
        ("conditional", {1: {"heads": "1,2"}}, "conditional=1: expected a condition, e.g. head=ga"),
        ("conditional", {"head=ga": None}, "conditional.head=ga=null: expected axes"),
        ("zipped", [None], "zipped[0]=null: expected two or more axes"),
        ("union", [{}], "union[0]={}: expected a block with some of"),
        ("margin", "0.3", "margin=0.3: expected an equivalence margin"),
        ("variant", {"a": []}, "variant: unknown key; did you mean variants? known: params, variants, conditional, "),
        ("conditionals", {}, "conditionals: unknown key; did you mean conditional? known: params"),
        ("tuned", None, "tuned: unknown key; did you mean tune? known: params"),
        ("margins", 1, "margins: unknown key; did you mean margin? known: params"),
        ("repeats", 3, "repeats: unknown key; known: params"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(key, found, message):
    with pytest.raises(ConfigError) as caught:
        read_study(OmegaConf.create({key: found}))
    assert str(caught.value).startswith(S + message) and "\n" not in str(caught.value)


def test_keys_of_another_sweeper_are_its_own():
    optuna = {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", "n_trials": 20}
    assert declared(OmegaConf.create({**optuna, "params": {"heads": "1,2"}})) == ["params"]


def test_a_study_file_may_leave_the_list_of_a_variant_empty():
    study = read_study(OmegaConf.create({"variants": {"paper": None, "EMA": ["ema_decay=0.9"]}}))
    assert study.blocks[0].variants == {"paper": [], "EMA": ["ema_decay=0.9"]} and study.baseline == "paper"


def test_cells_that_differ_in_values_alone_are_composed_once():
    asked = []
    request, _ = read_grid(["+sweeps=ablation", "heads=1,2,4", "seed=0,1"])
    compose = request.compose
    expansion = expand(
        replace(request, compose=lambda words: asked.append(words) or compose(words)), lambda runs: 64, Lookup()
    )
    assert len(expansion.runs()) == 3 * 2 * 18
    assert asked == [("head=seqpool", "+sweeps=ablation"), ("head=ga", "+sweeps=ablation")]  # for all variants


def test_a_mistake_names_the_key():
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.margin=0: "):
        expand_study(f"{S}margin=0")
