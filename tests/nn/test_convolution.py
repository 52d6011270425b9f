"""The fast gradients of convolutions: equal to torch's, for every kernel, stride and map size."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from onceforall.nn import convolution


@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16, 29])
def test_weight_gradient_is_torchs(kernel, stride, size):
    generator = torch.Generator().manual_seed(size)
    images = torch.randn(3, 6, size, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 1, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(images, weight, None, stride, kernel // 2, 1, 6)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(grad)
    ours = convolution.weight_gradient(images, grad, kernel=kernel, stride=stride)
    torch.testing.assert_close(ours, weight.grad, rtol=1e-12, atol=1e-12)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(convolution, "_decided", "own")


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_depthwise_is_torchs_to_the_bit_and_both_gradients_agree(fast, memory):
    images = torch.randn(4, 16, 10, 10).to(memory_format=memory).requires_grad_()
    weight = torch.randn(16, 1, 7, 7, requires_grad=True)
    ours = convolution.conv2d(images, weight, None, stride=2, groups=16, padding=3)
    assert type(ours.grad_fn).__name__ == "_DepthwiseBackward"
    agree(ours, F.conv2d(images, weight, None, 2, 3, 1, 16), (images, weight))


@pytest.mark.parametrize("biased", [False, True])
def test_one_pixel_is_torchs_to_the_bit_and_all_gradients_agree(fast, biased):
    images = torch.randn(4, 16, 1, 1, requires_grad=True)
    weight, bias = torch.randn(9, 20, 1, 1, requires_grad=True), torch.randn(9, requires_grad=True)
    part = weight[:, :16]
    ours = convolution.conv2d(images, part, bias if biased else None, stride=1, groups=1, padding=0)
    assert type(ours.grad_fn).__name__ == "_PixelBackward"
    agree(ours, F.conv2d(images, part, bias if biased else None), (images, weight, bias)[:2 + biased])


def agree(ours, theirs, inputs):
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def kind(images, weight):
    groups = len(weight) if weight.shape[1] == 1 else 1
    out = convolution.conv2d(images, weight, None, stride=1, groups=groups, padding=weight.shape[-1] // 2)
    return type(out.grad_fn).__name__


def test_it_steps_aside(monkeypatch, fast):
    wide, narrow = (torch.randn(8, 1, k, k, requires_grad=True) for k in (7, 3))
    images = torch.randn(1, 8, 9, 9)
    assert kind(images, wide) == "_DepthwiseBackward"
    assert kind(images, narrow) == kind(images.double(), wide.double()) == "ConvolutionBackward0"
    with torch.autocast("cpu"):
        assert kind(images, wide) == "ConvolutionBackward0"
    with torch.no_grad():
        assert kind(images, wide) == "NoneType"
    assert kind(images, torch.randn(4, 8, 1, 1, requires_grad=True)) == "ConvolutionBackward0"  # not one pixel
    monkeypatch.setattr(convolution, "_decided", "torch")
    assert kind(images, wide) == "ConvolutionBackward0"


def test_it_is_measured_once_and_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(convolution, "_decided", None)
    monkeypatch.setattr(convolution, "weight_gradient", lambda *_, **__: time.sleep(0.05))
    assert convolution.decided() == "torch"  # as if torch's own had become the faster one
    monkeypatch.setattr(convolution, "_of_torch", lambda *_, **__: (None, time.sleep(0.2)))
    assert convolution.decided() == "torch"  # a run does not change its arithmetic on the way
    monkeypatch.setattr(convolution, "_decided", None)
    assert convolution.decided() == "own"
    convolution.decide("torch")
    assert convolution.decided() == "torch"
    monkeypatch.setattr(convolution, "_decided", None)
    monkeypatch.setenv("ONCEFORALL_CONV", "torch")
    convolution.decide("own")
    assert convolution.decided() == "torch"  # what the user said stays
