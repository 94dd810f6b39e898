"""What replaces operations that ONNX lacks gives torch's own results."""

import pytest
import torch

from experiments.exporting.replaced import REPLACED


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "groups"),
    [
        ((7, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1),
        ((8, 7), (3, 2), (2, 3), (1, 0), (1, 1), 1),
        ((9, 8), (3, 3), (2, 2), (2, 1), (2, 1), 2),
    ],
)
def test_the_gradients_of_a_convolution_are_torchs(size, kernel, stride, padding, dilation, groups):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, *kernel, generator=generator, dtype=torch.float64)
    out = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups)
    gradient = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    rest = (x, weight, [6], list(stride), list(padding), list(dilation), False, [0, 0], groups, [True] * 3)
    operation = torch.ops.aten.convolution_backward.default
    for own, expected in zip(REPLACED[operation](gradient, *rest), operation(gradient, *rest), strict=True):
        torch.testing.assert_close(own, expected)


def test_a_transposed_convolution_is_refused():
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(NotImplementedError, match="transposed"):
        REPLACED[torch.ops.aten.convolution_backward.default](
            x, x, x, None, [1, 1], [0, 0], [1, 1], True, [0, 0], 1, [True] * 3
        )
