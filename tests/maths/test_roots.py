"""The matrix square root against SciPy, and its gradient in difficult cases."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from atelier.maths.roots import one_thread, power, sqrtm


def factor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def semidefinite(size: int, rank: int, seed: int = 0) -> Tensor:
    tall = factor(size, rank, seed=seed)
    return tall @ tall.mT / rank


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_full_rank_agrees_with_scipy(size: int) -> None:
    matrix = semidefinite(size, 2 * size)
    np.testing.assert_allclose(sqrtm(matrix).numpy(), scipy.linalg.sqrtm(matrix.numpy()), atol=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 5, 11])
def test_the_root_squared_is_the_matrix_at_any_rank(rank: int) -> None:
    matrix = semidefinite(12, rank) if rank else torch.zeros(12, 12, dtype=torch.float64)
    root = sqrtm(matrix)
    torch.testing.assert_close(root @ root, matrix)
    torch.testing.assert_close(root, root.mT)
    assert torch.linalg.eigvalsh(root).min() > -1e-9


def test_a_batch_equals_single_matrices() -> None:
    pair = torch.stack([semidefinite(5, 9, seed=1), semidefinite(5, 2, seed=2)])
    torch.testing.assert_close(sqrtm(pair), torch.stack([sqrtm(pair[0]), sqrtm(pair[1])]))


def test_float32_is_accurate() -> None:
    matrix = semidefinite(30, 60)
    torch.testing.assert_close(sqrtm(matrix.float()).double(), sqrtm(matrix), atol=1e-5, rtol=1e-5)


def test_negative_rounding_counts_as_zero() -> None:
    root = sqrtm(torch.diag(torch.tensor([4.0, 1.0, -1e-7])))
    torch.testing.assert_close(root, torch.diag(torch.tensor([2.0, 1.0, 0.0])))


def test_gradient_of_a_full_rank_matrix() -> None:
    assert torch.autograd.gradcheck(lambda x: sqrtm(x @ x.mT), (factor(4, 6).requires_grad_(),))


def test_gradient_with_repeated_eigenvalues() -> None:
    matrix = (2 * torch.eye(4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sqrtm((x + x.mT) / 2), (matrix,))
    doubled = torch.diag(torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sqrtm((x + x.mT) / 2), (doubled,))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradient_of_a_rank_deficient_matrix(rank: int) -> None:
    # Changing the factor preserves the rank, and the root is smooth along such changes.
    assert torch.autograd.gradcheck(lambda x: sqrtm(x @ x.mT), (factor(5, rank).requires_grad_(),))


def test_gradient_of_the_zero_matrix_is_zero() -> None:
    matrix = torch.zeros(3, 3, requires_grad=True)
    sqrtm(matrix).sum().backward()
    assert matrix.grad is not None
    assert torch.equal(matrix.grad, torch.zeros(3, 3))


def test_gradient_of_the_trace_is_half_the_inverse_root() -> None:
    matrix = semidefinite(6, 12).requires_grad_()
    sqrtm(matrix).trace().backward()
    assert matrix.grad is not None
    expected = np.linalg.inv(scipy.linalg.sqrtm(matrix.detach().numpy())) / 2
    np.testing.assert_allclose(matrix.grad.numpy(), expected, atol=1e-9)


def test_two_threads_keep_their_own_numbers_of_cpu_threads() -> None:
    """While one Python thread is inside `one_thread`, older and newly started threads keep their own."""
    inside, go = Event(), Event()
    before, seen = torch.get_num_threads(), dict[str, int]()

    def routine(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside.set()
        assert go.wait(60)
        return torch.linalg.eigh(matrix)

    def limited() -> None:
        torch.get_num_threads()
        torch.set_num_threads(3)
        torch.testing.assert_close(one_thread(routine, torch.eye(3))[0], torch.ones(3))
        seen["limited, afterwards"] = torch.get_num_threads()

    def older() -> None:
        torch.get_num_threads()
        torch.set_num_threads(2)
        assert inside.wait(60)
        seen["older"] = torch.get_num_threads()
        newborn = Thread(target=lambda: seen.update(newborn=torch.get_num_threads()))
        newborn.start()
        newborn.join()
        go.set()

    threads = [Thread(target=limited), Thread(target=older)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["older"] == 2
    assert seen["limited, afterwards"] == 3
    assert seen["newborn"] > 1
    assert torch.get_num_threads() == before
    torch.set_num_threads(before)  # inherited by later threads


def test_one_thread_restores_the_number_of_threads_after_an_error() -> None:
    def fails(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        one_thread(fails, torch.eye(2))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("exponent", [0.5, -0.5, -1.0, 2.0])
def test_powers_within_the_range_of_a_matrix(exponent: float) -> None:
    """In the range they are those of SciPy; a direction without variance stays without."""
    random = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn((4, 4), generator=random, dtype=torch.float64))[0]
    whole = turn @ torch.diag(torch.tensor([4.0, 2.0, 0.5, 0.1], dtype=torch.float64)) @ turn.mT
    wanted = torch.from_numpy(scipy.linalg.fractional_matrix_power(whole.numpy(), exponent).real)
    torch.testing.assert_close(power(whole, exponent), wanted)
    flat = turn[:, :3] @ torch.diag(torch.tensor([4.0, 2.0, 0.5], dtype=torch.float64)) @ turn[:, :3].mT
    assert (power(flat, exponent) @ turn[:, 3]).abs().max() < 1e-9
    torch.testing.assert_close(power(torch.stack([whole, flat]), exponent)[0], wanted)
