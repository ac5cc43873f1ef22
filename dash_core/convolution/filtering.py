"""Minimal filtering: convolutions of three taps with fewer multiplications (Winograd 1980; Lavin and Gray, CVPR 2016).

In one dimension, m neighbouring outputs y of three taps g over inputs d are, exactly::

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]

with n products instead of 3 m: F(4, 3) has n = 6. Two outputs with zeros around them take 3 products,
and one output takes 1.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, reduce
from operator import mul

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Filtering:
    """A minimal algorithm for m outputs of three taps, y = outputs @ ((taps @ g) * (inputs @ d)), in float64.

    outputs: Aᵀ (m, n). taps: G (n, 3). inputs: Bᵀ (n, m + 2); d begins one before y and ends one after.
    """

    outputs: Tensor
    taps: Tensor
    inputs: Tensor


def toom_cook(*points: Fraction | int) -> Filtering:
    """Return F(m, 3), which evaluates polynomials at m + 1 distinct points and at infinity."""
    degree, outputs = len(points), len(points) - 1
    others = [[q for q in points if q != p] for p in points]
    scales = [reduce(mul, (p - q for q in rest), Fraction(1)) for p, rest in zip(points, others, strict=True)]
    of_outputs = [*([Fraction(p) ** k for k in range(outputs)] for p in points), _last(outputs)]
    of_taps = [[Fraction(p) ** k / scale for k in range(3)] for p, scale in zip(points, scales, strict=True)]
    of_inputs = [_polynomial(roots, degree) for roots in (*others, list(points))]
    return Filtering(_matrix(of_outputs).t(), _matrix([*of_taps, _last(3)]), _matrix(of_inputs))


def _polynomial(roots: list[Fraction | int], degree: int) -> list[Fraction]:
    """Return the coefficients of Π (x − root), the lowest first, up to the given degree."""
    found = [Fraction(1)]
    for root in roots:
        found = [above - root * here for above, here in zip([0, *found], [*found, 0], strict=True)]
    return found + [Fraction(0)] * (degree + 1 - len(found))


def _last(size: int) -> list[int]:
    return [0] * (size - 1) + [1]


def _matrix(rows: list[list[Fraction | int]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)


ONE = Filtering(_matrix([[1]]), _matrix([[0, 1, 0]]), _matrix([[0, 1, 0]]))  # one output with zeros around it
TWO = Filtering(  # two outputs with zeros around them: Karatsuba's algorithm
    _matrix([[1, 1, 0], [1, 0, 1]]),
    _matrix([[0, 1, 0], [0, -1, 1], [1, -1, 0]]),
    _matrix([[0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]]),
)
# Points ±1 and ±2 would double the rounding error; with these points, too, Aᵀ and Bᵀ are exact in binary.
FOUR = toom_cook(0, Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2))


def filtering(size: int) -> Filtering:
    """Return the algorithm for maps of this size along one dimension."""
    return {1: ONE, 2: TWO}.get(size, FOUR)


@dataclass(frozen=True, eq=False)
class Tile:
    """Neighbouring outputs along one dimension and their inputs: the places of both, and their parts of Aᵀ and Bᵀ."""

    made: slice
    seen: slice
    outputs: Tensor
    inputs: Tensor


@cache
def tiles(size: int, dtype: torch.dtype) -> list[Tile]:
    """Return the tiles that cover a map of this size; places outside it are zero and are left out of the matrices."""
    algorithm, found = filtering(size), []
    step = len(algorithm.outputs)
    for start in range(0, size, step):
        made, seen = slice(start, min(start + step, size)), slice(max(start - 1, 0), min(start + step + 1, size))
        inputs = algorithm.inputs[:, seen.start - start + 1 : seen.stop - start + 1]
        found.append(Tile(made, seen, algorithm.outputs[: made.stop - start].to(dtype), inputs.to(dtype)))
    return found
