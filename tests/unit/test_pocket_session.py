"""A training that is stopped goes on exactly where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from masuka.pocket.norm import quicken
from masuka.pocket.session import Average, Session


def steps(session: Session, count: int) -> None:
    for _ in range(count):
        x = torch.randn(8, 4) + session.rng.random()
        session.advance(session.module(x).square().mean())


def test_a_resumed_session_ends_with_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = nn.Linear(4, 2).state_dict()

    def session(path: Path) -> Session:
        module = nn.Linear(4, 2)
        module.load_state_dict(start)
        return Session(path, 1e6, module, rate=1e-2, warmup_steps=1)

    torch.manual_seed(1)
    whole = session(tmp_path / "whole.pt")
    steps(whole, 6)

    torch.manual_seed(1)
    half = session(tmp_path / "half.pt")
    steps(half, 3)
    half.save()
    torch.manual_seed(99)
    rest = session(tmp_path / "half.pt")
    steps(rest, 3)

    assert rest.step == 6
    assert torch.equal(rest.module.weight, whole.module.weight)
    assert torch.equal(rest.average.shadow["weight"], whole.average.shadow["weight"])


def test_time_counts_over_restarts(tmp_path: Path) -> None:
    first = Session(tmp_path / "s.pt", 1.0, nn.Linear(1, 1), rate=1e-3)
    first.spent_s = 59.0
    first.save()
    assert 0.98 < Session(tmp_path / "s.pt", 1.0, nn.Linear(1, 1), rate=1e-3).progress < 1.0
    assert Session(tmp_path / "s.pt", 0.5, nn.Linear(1, 1), rate=1e-3).finished


def test_the_average_follows_the_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = Average(module, 0.5)
    nn.init.ones_(module.weight)
    for _ in range(20):
        average.update(module)
    assert average.shadow["weight"].item() == pytest.approx(1.0, abs=1e-4)


def test_the_quick_norm_is_the_stock_norm() -> None:
    torch.manual_seed(2)
    stock, quick = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16)
    nn.init.normal_(stock.weight)
    nn.init.normal_(stock.bias)
    quick.load_state_dict(stock.state_dict())
    quicken(nn.Sequential(quick))
    results = []
    for norm in (stock, quick):
        torch.manual_seed(3)
        x = (torch.randn(2, 16, 6, 5) + 0.7).to(memory_format=torch.channels_last).requires_grad_()
        y = norm(x)
        y.backward(torch.randn_like(y))
        results.append((y, x.grad, norm.weight.grad, norm.bias.grad))
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
