"""Computations side by side: shares of torch's threads, errors, what is dropped."""

import threading

import pytest
import torch

from unite_core.model.threads import side_by_side


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count, share", [(2, 2), (3, 1), (4, 1), (8, 1)])
def test_each_thread_has_its_share_and_the_caller_keeps_all(count, share):
    together = threading.Barrier(count, timeout=60)

    def number() -> int:
        together.wait()  # so that every thread does one
        return torch.get_num_threads()

    with side_by_side(count) as run:
        calls = [run(number) for _ in range(count)]
        assert [call.result() for call in calls] == [share] * count
        assert torch.get_num_threads() == 4
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [4], "threads that come later do not have a share"


def test_one_thread_is_the_callers_own():
    with side_by_side(1) as run:
        assert run(threading.get_ident).result() == threading.get_ident()
        assert run(torch.get_num_threads).result() == 4
        with pytest.raises(ZeroDivisionError):
            run(lambda: 1 / 0)


def test_an_error_is_the_calls_own_and_what_waits_is_dropped():
    begun, go_on = threading.Barrier(3, timeout=60), threading.Event()

    def wait() -> None:
        begun.wait()
        go_on.wait(60)

    with pytest.raises(KeyError), side_by_side(2) as run:
        with pytest.raises(ZeroDivisionError):
            run(lambda: 1 / 0).result()
        running, waiting = [run(wait), run(wait)], run(wait)
        begun.wait()
        threading.Timer(0.2, go_on.set).start()
        raise KeyError
    assert all(call.done() and not call.cancelled() for call in running)
    assert waiting.cancelled()
