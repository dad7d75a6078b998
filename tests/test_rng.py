import torch
from scipy import stats

from headsweep import rng


def test_streams_are_independent_and_repeatable():
    draws = {
        name: torch.rand(4, generator=rng.generator(seed, stream, position)).tolist()
        for name, (seed, stream, position) in {
            "first": (0, "data order", 1),
            "again": (0, "data order", 1),
            "seed": (1, "data order", 1),
            "stream": (0, "mixing", 1),
            "position": (0, "data order", 2),
        }.items()
    }
    assert draws.pop("first") == draws["again"]
    assert len({tuple(values) for values in draws.values()}) == 4


def test_global_stream_gives_its_own_draws_and_leaves_the_global_state():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with rng.global_stream(0, "head init"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(inside, torch.rand(3, generator=rng.generator(0, "head init")))


def test_a_step_draws_the_same_whatever_came_before():
    rng.enter_step(seed=0, step=5)
    expected = torch.rand(3)
    torch.rand(100)
    rng.enter_step(seed=0, step=5)
    assert torch.equal(torch.rand(3), expected)
    rng.enter_step(seed=0, step=5, micro_batch=1)
    assert not torch.equal(torch.rand(3), expected)


def test_uniforms_depend_on_key_and_sample_alone():
    indices = torch.arange(1000)
    whole = rng.uniforms(rng.derive(0, "augmentation", 3), indices, 5)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    part = rng.uniforms(rng.derive(0, "augmentation", 3), indices[shuffled][:10], 7)
    assert torch.equal(part[:, :5], whole[shuffled][:10])
    assert not torch.equal(rng.uniforms(rng.derive(0, "augmentation", 4), indices, 5), whole)


def test_uniforms_are_uniform_and_uncorrelated():
    u = rng.uniforms(rng.derive(0, "augmentation", 0), torch.arange(20_000), 4)
    assert u.min() >= 0 and u.max() < 1
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in u.T.numpy())
    off_diagonal = torch.corrcoef(u.T) - torch.eye(4)
    assert off_diagonal.abs().max() < 0.03
    neighbours = torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]
    assert neighbours.abs() < 0.03
