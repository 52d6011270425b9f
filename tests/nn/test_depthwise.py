"""The fast depthwise weight gradient: equal to torch's, for every kernel, stride and map size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onceforall.nn import depthwise


@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16])
def test_weight_gradient_is_torchs(kernel, stride, size):
    generator = torch.Generator().manual_seed(size)
    images = torch.randn(3, 6, size, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 1, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(images, weight, None, stride, kernel // 2, 1, 6)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(grad)
    ours = depthwise.weight_gradient(images, grad, kernel=kernel, stride=stride)
    torch.testing.assert_close(ours, weight.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_forward_is_torchs_to_the_bit_and_both_gradients_agree(memory):
    images = torch.randn(4, 16, 10, 10).to(memory_format=memory).requires_grad_()
    weight = torch.randn(16, 1, 7, 7, requires_grad=True)
    ours = depthwise.depthwise_conv2d(images, weight, 2)
    assert type(ours.grad_fn).__name__ == "_DepthwiseConv2dBackward"
    theirs = F.conv2d(images, weight, None, 2, 3, 1, 16)
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, (images, weight), grad),
                    torch.autograd.grad(theirs, (images, weight), grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_it_steps_aside():
    weight = torch.randn(8, 1, 7, 7, requires_grad=True)
    large, double = torch.randn(1, 8, 40, 40), torch.randn(1, 8, 9, 9, dtype=torch.float64)
    assert type(depthwise.depthwise_conv2d(large, weight, 1).grad_fn).__name__ == "ConvolutionBackward0"
    assert type(depthwise.depthwise_conv2d(double, weight.double(), 1).grad_fn).__name__ == "ConvolutionBackward0"
    with torch.no_grad():
        assert depthwise.depthwise_conv2d(torch.randn(1, 8, 9, 9), weight, 1).grad_fn is None
