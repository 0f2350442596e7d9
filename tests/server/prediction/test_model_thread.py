import gc
import threading
import weakref
from typing import Any

import numpy as np

from penstock_server.prediction.model_thread import ModelThread

TIMEOUT_S = 20.0


def test_work_runs_in_order_and_results_come_back_to_the_reactor(reactor: Any) -> None:
    thread, came_back, ran_on = ModelThread("model", reactor.post), [], set()

    def work(number: int) -> int:
        ran_on.add(threading.current_thread().name)
        return number * 2

    for number in range(5):
        thread.start(lambda number=number: work(number), came_back.append)  # type: ignore[misc]
    for _ in range(5):
        reactor.act()
    thread.close()
    thread.join()
    assert came_back == [0, 2, 4, 6, 8]
    assert ran_on == {"model"}


def test_a_thread_ends_after_what_it_was_given(reactor: Any) -> None:
    thread, came_back = ModelThread("model", reactor.post), []
    thread.start(lambda: 1, came_back.append)
    thread.close()
    thread.join()
    reactor.act()
    assert came_back == [1]
    assert "model" not in {each.name for each in threading.enumerate()}


def test_without_work_there_is_no_thread(reactor: Any) -> None:
    thread = ModelThread("unused", reactor.post)
    thread.close()
    thread.join()
    assert "unused" not in {each.name for each in threading.enumerate()}


def test_a_thread_that_waits_keeps_no_batch(reactor: Any) -> None:
    thread = ModelThread("model", reactor.post)
    array = np.zeros(8)
    gone = weakref.ref(array)
    thread.start(lambda array=array: array, lambda _result: None)  # type: ignore[misc]
    del array
    reactor.act()
    thread.start(lambda: None, lambda _result: None)  # the thread waits again once this has come back
    reactor.act()
    gc.collect()
    assert gone() is None
    thread.close()
    thread.join()
