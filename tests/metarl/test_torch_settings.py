"""Settings of torch: products stay accurate, and no setting is left behind."""

import subprocess
import sys

import pytest
import torch

from metarl import torch_settings
from metarl.torch_settings import fast_matmul, torch_threads


def setting() -> str | None:
    """What torch has now; None for one that cannot choose."""
    return getattr(torch_settings._setting(), "fp32_precision", None)


def product(*, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """A product and the exact one."""
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(700, 250, generator=generator).to(dtype)
    right = torch.randn(250, 90, generator=generator).to(dtype)
    return left @ right, left.double() @ right.double()


def test_products_have_the_accuracy_of_float32():
    with fast_matmul():
        ours, exact = product()
    assert float((ours - exact).abs().max() / exact.abs().max()) < 1e-5


def test_so_do_first_and_second_derivatives():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 200, 40, generator=generator)
    weight = torch.randn(2, 30, 40, generator=generator)

    def slopes(dtype: torch.dtype) -> list[torch.Tensor]:
        w = weight.to(dtype).requires_grad_()
        (first,) = torch.autograd.grad(torch.bmm(x.to(dtype), w.mT).tanh().square().sum(), w, create_graph=True)
        return [first.detach(), torch.autograd.grad(first.square().sum(), w)[0]]

    with fast_matmul():
        ours = slopes(torch.float32)
    for own, exact in zip(ours, slopes(torch.float64), strict=True):
        assert float((own - exact).abs().max() / exact.abs().max()) < 1e-4


def test_the_setting_comes_back_after_nesting_and_errors():
    before = setting()
    with fast_matmul():
        inside = setting()
        with fast_matmul():
            assert setting() == inside
        assert setting() == inside
    assert setting() == before
    with pytest.raises(RuntimeError), fast_matmul():
        raise RuntimeError
    assert setting() == before


def test_it_is_a_decorator():
    inside = fast_matmul()(setting)()
    with fast_matmul():
        assert setting() == inside


def test_shorter_numbers_are_refused(monkeypatch):
    """Where a library rounds to bfloat16, the error is seen and the library not chosen."""
    exact = torch_settings._error
    monkeypatch.setattr(torch_settings, "_error", lambda left, right: exact(left.bfloat16(), right.bfloat16()))
    torch_settings.keeps_float32.cache_clear()
    try:
        before = setting()
        with fast_matmul():
            assert setting() == before
    finally:
        monkeypatch.undo()
        torch_settings.keeps_float32.cache_clear()


def test_a_torch_without_the_setting_multiplies_as_ever(monkeypatch):
    monkeypatch.setattr(torch_settings, "_setting", lambda: None)
    with fast_matmul():
        ours, exact = product()
    assert float((ours - exact).abs().max() / exact.abs().max()) < 1e-5


def test_threads_are_as_before_after_a_context_and_after_an_error_in_it() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        assert torch_threads(1)(torch.get_num_threads)() == 1
        assert torch.get_num_threads() == before + 1
    with pytest.raises(RuntimeError), torch_threads(before + 1):
        raise RuntimeError
    assert torch.get_num_threads() == before


COUNT_FAULTS = """
import resource
import torch
from metarl.torch_settings import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(20_000_000)  # 80 MB, 20,000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
without = faults()
keep_freed_memory()
for _ in range(4):
    faults()  # the heap grows a few times first
print(without, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_memory_that_is_freed_is_there_for_the_next_tensor():
    without, kept = map(int, subprocess.check_output([sys.executable, "-c", COUNT_FAULTS], text=True).split())
    assert kept < without / 10
