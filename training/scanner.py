"""What a scanner makes of a body: slices of some thickness, a kernel soft to sharp, noise with a spectrum, streaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.deformation import Shape
from training.fields import along_axes, chance, random_field, uniform


@dataclass(frozen=True)
class Scanner:
    """How one series was made.

    thickness_mm: of its slices. increment_mm: from one to the next; what is asked for is interpolated between them.
    blur_mm: standard deviation of the in-plane kernel. sharpening: share of the edges added to it.
    noise: HU; peak: cycles for each mm of its spectrum, blunt below and above. streaks: HU.
    """

    thickness_mm: float
    increment_mm: float
    blur_mm: float
    sharpening: float
    noise: float
    peak: float
    streaks: float

    def count(self, extent_mm: float) -> int:
        """Slices from the first to the last that all between two places is made of."""
        return math.ceil(extent_mm / self.increment_mm) + 1

    def reach_mm(self, extent_mm: float, voxel_mm: float) -> float:
        """How far beyond these two places a body must be known."""
        slices_mm = (self.count(extent_mm) - 1) * self.increment_mm - extent_mm
        return (slices_mm + self.seen_mm(voxel_mm)) / 2

    def seen_mm(self, voxel_mm: float) -> float:
        """What one slice is the mean of: the node averages where slices are thinner than the voxels of its model."""
        return max(self.thickness_mm, voxel_mm)


def draw_scanner(generator: torch.Generator) -> Scanner:
    """One of the scanners there are: thin and thick slices, soft and sharp kernels."""
    thickness = math.exp(float(uniform(generator, math.log(0.8), math.log(6))))
    sharp = chance(generator, 0.25)
    return Scanner(
        thickness,
        thickness * (1.0 if chance(generator, 0.6) else 0.6),
        float(uniform(generator, 0.5, 1.3)) * (0.6 if sharp else 1.0),
        float(uniform(generator, 0.1, 0.35)) if sharp else 0.0,
        math.exp(float(uniform(generator, math.log(4), math.log(20)))),
        float(uniform(generator, 0.12, 0.4)),
        float(uniform(generator, 3, 9)) if chance(generator, 0.12) else 0.0,
    )


def scan(body: Tensor, step_mm: Tensor, shape: Shape, scanner: Scanner, generator: torch.Generator) -> Tensor:
    """The body sampled anew around the same middle. step_mm: float (2, 3), of the body's voxels and of those wanted."""
    of, at = (
        [_middles(size, step) for size, step in zip(sizes, steps.tolist(), strict=True)]
        for sizes, steps in ((body.shape, step_mm[0]), (shape, step_mm[1]))
    )
    fine, wanted = (float(step) for step in step_mm[:, 0])
    count = scanner.count((shape[0] - 1) * wanted)
    slices = _middles(count, scanner.increment_mm)
    between = _shares((1 - (at[0][:, None] - slices).abs() / scanner.increment_mm).clamp(min=0))
    within = _shares(((scanner.seen_mm(wanted) + fine) / 2 - (slices[:, None] - of[0]).abs()).clamp(0, fine))
    kernels = [_kernel(at[axis], of[axis], float(step_mm[1, axis]), scanner) for axis in (1, 2)]
    noise = _noise((min(count, shape[0]), *shape[1:]), step_mm[1], scanner, generator)
    if count < shape[0]:  # what lies between thick slices is interpolated, noise too
        noise = (between @ noise.flatten(1)).unflatten(1, shape[1:])
    return along_axes(body, [between @ within, *kernels]) + noise


def _kernel(at: Tensor, of: Tensor, voxel_mm: float, scanner: Scanner) -> Tensor:
    """A Gaussian, as wide as the kernel and the voxel together; sharp ones exceed at edges."""
    squares = (at[:, None] - of).square()
    width = scanner.blur_mm**2 + voxel_mm**2 / 12
    soft, softer = (_shares(torch.exp(-squares / (2 * times * width))) for times in (1, 3))
    return soft + scanner.sharpening * (soft - softer)


def _noise(shape: Shape, voxel_mm: Tensor, scanner: Scanner, generator: torch.Generator) -> Tensor:
    """Noise of filtered backprojection: a ramp, cut off by the kernel; and streaks from left to right."""
    rows, columns = (float(of) for of in voxel_mm[1:])
    frequency = torch.hypot(torch.fft.fftfreq(shape[1], rows)[:, None], torch.fft.rfftfreq(shape[2], columns))
    spectrum = frequency * torch.exp(-((frequency / scanner.peak) ** 2))
    spectrum = spectrum / (math.pi**1.5 / 2 * scanner.peak**3 * rows * columns)  # of variance 1 over all frequencies
    white = torch.fft.rfft2(torch.randn(shape, generator=generator))
    noise = scanner.noise * torch.fft.irfft2(white * spectrum.sqrt(), s=shape[1:])
    if scanner.streaks:
        noise = noise + scanner.streaks * random_field(shape, (1.0, 1.2, shape[2] / 3), generator)[0]
    return noise


def _middles(size: int, step: float) -> Tensor:
    return (torch.arange(size) - (size - 1) / 2) * step


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
