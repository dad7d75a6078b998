"""With static shapes every batch has the same operations and shapes, and the bytes of the grouped path."""

import random
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from headsweep.config import AugmentationOrder
from headsweep.data.batches import GroupedMaker, RecordedMaker, maker_for
from headsweep.data.loader import Share
from headsweep.data.mixing import Box, Mix, Mixer, mix, mix_static
from headsweep.data.operations import NAMES, _counted, _searched, affines
from headsweep.data.randaugment import Operations, Policy, RandAugment, arguments_of, randaugment
from headsweep.data.sources import ResidentSource
from headsweep.data.static_shapes import StaticRandAugment, layers, slot_counts

CPU = torch.device("cpu")
B = 20  # images in a batch
WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "item", "bincount", "repeat_interleave.Tensor")
UNSETTLED = ("scatter", "index_put", "index_copy", "index_add")  # wait where a GPU must be deterministic


def static(images, drawn, slots=(1, 1, 1)):
    return StaticRandAugment(CPU)(images.clone(), layers(drawn, slots))


def coloured(tiles, channels):
    return tiles[:, :channels].contiguous()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("increasing", [True, False])
def test_every_operation_is_the_grouped_one(tiles, channels, increasing):
    """Each with both interpolations and signs, from the weakest to the strongest."""
    images = coloured(tiles, channels)
    n = len(images)
    magnitude, negative = torch.linspace(0, 10, n, dtype=torch.float64), torch.arange(n) % 2 == 1
    arguments, bicubic = arguments_of(magnitude, negative, increasing).float(), torch.arange(n) % 4 >= 2
    for operation in range(len(NAMES)):
        operations, its = torch.full((n,), operation), arguments[:, operation]
        looks = affines(operations, its, 32, 32)
        drawn = Operations(*(values[:, None] for values in (operations, its, bicubic, looks)))
        expected = randaugment(images.clone(), drawn)
        assert torch.equal(static(images, drawn), expected), NAMES[operation]
        assert not torch.equal(expected, images) or (channels == 1 and NAMES[operation] == "Color")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "text", ["rand-m9-mstd0.5-inc1", "rand-m9-mstd0.5", "rand-m10-inc1", "rand-n3-p0.9-m0-mstd101"]
)
def test_every_policy_is_the_grouped_one(tiles, channels, text):
    images = coloured(tiles, channels)
    for seed in range(5):
        drawn = RandAugment(Policy.parse(text), 32).draw(seed, torch.arange(len(images)))
        assert torch.equal(static(images, drawn), randaugment(images.clone(), drawn))


@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "rand-n3-p0.9-m0-mstd101", "rand-p1-m9"])
def test_there_is_room_for_every_batch_and_not_for_much_more(text):
    """Shapes do not change, and no family is computed for more than its share and a bit."""
    policy, n = Policy.parse(text), 1024
    slots = slot_counts(policy, n)
    for key in range(50):
        its = layers(RandAugment(policy, 32).draw(key, torch.arange(n)), slots)
        assert tuple(part.shape[1] for part in its[:3]) == slots
    assert sum(slots) < n * policy.probability + 0.25 * n
    assert slot_counts(replace(policy, probability=0.0), n) == (0, 0, 0)


def test_more_images_than_there_is_room_for_are_the_grouped_ones(tiles):
    drawn = RandAugment(Policy.parse("rand-m9-mstd0.5-inc1"), 32).draw(0, torch.arange(len(tiles)))
    for slots in ((0, 0, 0), (2, 99, 0), (50, 1, 3)):
        assert torch.equal(static(tiles, drawn, slots), randaugment(tiles.clone(), drawn))


def test_flat_channels_and_few_pixels_too(tiles):
    for images in (torch.full((20, 3, 8, 8), 77, dtype=torch.uint8), tiles[:20, :, 5:22, 3:20].contiguous()):
        drawn = RandAugment(Policy.parse("rand-p1-m9"), images.shape[-1]).draw(0, torch.arange(20))
        assert torch.equal(static(images, drawn), randaugment(images.clone(), drawn))


def test_both_ways_to_count_levels_agree(tiles):
    assert torch.equal(_counted(tiles.flatten(2)), _searched(tiles.flatten(2)))


def test_mixing_is_the_grouped_one(make_augmentation):
    images, targets = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.eye(7)
    mixer, source = Mixer(make_augmentation("paper")), random.Random(0)
    drawn = [mixer.draw(16, 16, source) for _ in range(60)]
    assert {bool(its.box.bottom) for its in drawn} == {True, False} and Mix() in drawn
    for its in drawn:
        expected = mix(images.clone(), targets, its)
        got = mix_static(images[None], targets[None], its.numbers()[None])
        assert all(torch.equal(one, other[0]) for one, other in zip(expected, got, strict=True))


@pytest.fixture
def make_makers(tiles, make_dataset, make_augmentation):
    """The grouped and the recorded maker of batches of resident tiles."""

    whole = Share().places(B)

    def make(device=CPU, channels=3, share=None, **changes):
        values = {"channels": 1, "mean": [0.5], "std": [0.2]} if channels == 1 else {}
        dataset = make_dataset("cifar100", **values)
        source = ResidentSource(coloured(tiles, channels), torch.arange(len(tiles)) % 100)
        recipe = replace(make_augmentation("paper"), **changes)
        places, kept = share.places(B) if share else whole
        grouped = GroupedMaker(source, dataset, recipe, device, 0, kept)
        return grouped, RecordedMaker(source, dataset, recipe, device, kept, 2), Mixer(recipe), places

    return make


def both(grouped, recorded, mixer, places, key, count=3):
    batches = torch.randperm(60, generator=torch.Generator().manual_seed(key)).view(-1, B)[:count, places]
    mixes = [mixer.draw(32, 32, random.Random(key + place)) for place in range(count)]
    return [list(maker.make(key, batches, mixes)) for maker in (grouped, recorded)]


def same(one, other):
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": AugmentationOrder.crop_first},
        {"channels": 1},
        {"randaugment": None, "crop_scale": None},
        {"flip": 0.0, "erasing": 0.0, "mix_probability": 0.0},
        {"share": Share(1, 2, 2)},
    ],
)
def test_batches_are_the_grouped_ones(make_makers, changes):
    """From the indices to the mixed targets, two batches at a time; on a CPU the function is called, not recorded."""
    makers = make_makers(**changes)
    for key in range(3):
        expected, got = both(*makers, key)
        assert all(same(one, other) for one, other in zip(expected, got, strict=True))


class Watching(TorchDispatchMode):
    """Fails on what waits, and writes down each operation with its shapes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = str(operation).removeprefix("aten.")
        assert not name.startswith(WAITS), name
        result = operation(*args, **(kwargs or {}))
        self.seen.append((name, result.shape if isinstance(result, torch.Tensor) else None))
        return result


def drawn_inputs(recorded, key):
    indices = torch.randperm(60, generator=torch.Generator().manual_seed(key))[: 2 * B]
    mixes = [Mix(blend=0.1 * key, share=0.5), Mix(box=Box(key, 2, 20, 9 + key), share=0.3)]
    numbers, its = recorded.augment.numbers(key, indices)
    return indices.view(2, B), torch.stack([mix.numbers() for mix in mixes]), numbers, *its


def test_all_batches_are_the_same_operations_and_wait_for_nothing(make_makers):
    _, recorded, _, _ = make_makers()
    seen = []
    for key in range(1, 5):
        inputs = drawn_inputs(recorded, key)
        with Watching() as watching:
            recorded._made(*inputs)
        seen.append(watching.seen)
    assert seen[0] == seen[1] == seen[2] == seen[3]


@pytest.mark.slow
def test_one_graph_serves_all_batches(make_makers):
    _, recorded, _, _ = make_makers()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(recorded._made, fullgraph=True, backend=backend, dynamic=False)
    for key in range(1, 4):
        inputs = drawn_inputs(recorded, key)
        assert same(compiled(*inputs), recorded._made(*inputs))
    assert len(graphs) == 1


class Settled(TorchDispatchMode):
    """Fails on what a GPU that must be deterministic does by way of the host."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = str(operation).removeprefix("aten.")
        assert not name.startswith(UNSETTLED), name
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("order", AugmentationOrder)
def test_a_fake_gpu_mixes_no_devices_and_waits_for_nothing(make_makers, order):
    """Fake tensors know devices and shapes, and no numbers: see tests/training/test_fake_gpu.py."""
    _, on_cpu, _, _ = make_makers(order=order)
    inputs = drawn_inputs(on_cpu, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _, recorded, _, _ = make_makers(torch.device("cuda"), order=order)
        with Settled():
            images, targets, indices = recorded._made(*(values.to("cuda") for values in inputs))
    assert images.shape == (2, B, 3, 32, 32) and targets.shape == (2, B, 100) and indices.shape == (2, B)
    assert all(values.device.type == "cuda" for values in (images, targets, indices))


def test_a_gpu_gets_static_shapes_for_small_resident_images(make_dataset, make_augmentation):
    recipe, labels, kept = make_augmentation("none"), torch.zeros(60, dtype=torch.int64), torch.arange(256)

    def chosen(side, device):
        source = ResidentSource(torch.zeros(60, 3, side, side, dtype=torch.uint8), labels)
        with FakeTensorMode(allow_non_fake_inputs=True):
            dataset = make_dataset("cifar100", image_size=side)
            return maker_for(source, dataset, recipe, torch.device(device), 0, 256, kept)

    assert [type(chosen(*where)) for where in ((32, "cuda"), (64, "cuda"), (65, "cuda"), (32, "cpu"))] == [
        RecordedMaker,
        RecordedMaker,
        GroupedMaker,
        GroupedMaker,
    ]
    assert chosen(32, "cuda").at_once == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("order", AugmentationOrder)
def test_a_recording_is_the_function(make_makers, order):
    """To the byte, on a GPU that must be deterministic, and the batches of a CPU."""
    torch.use_deterministic_algorithms(True)
    try:
        makers = make_makers(torch.device("cuda"), order=order)
        eager, got = both(*makers, 1)
        expected, _ = both(*make_makers(order=order), 1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert makers[1].recorded.replay is not makers[1].recorded.function
    for batch, grouped, on_cpu in zip(got, eager, expected, strict=True):
        assert same(batch, grouped)
        torch.testing.assert_close(batch.images.cpu(), on_cpu.images, atol=1e-5, rtol=0)
