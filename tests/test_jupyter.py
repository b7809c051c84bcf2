"""shoal in a notebook: the kernel's own event loop, its interrupts, its output."""

from __future__ import annotations

import pytest

nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELLS = {
    "start": """
import asyncio, os, signal, threading, time
import shoal as ray
ray.init(num_cpus=2)
""",
    "tasks and actors": """
@ray.remote
def square(x):
    return x * x

@ray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.value = 0
    def add(self, by):
        self.value += by
        return self.value
    async def later(self, value):
        return value

counter = Counter.remote()
ray.get([counter.add.remote(n) for n in range(5)])
print(ray.get([square.remote(n) for n in range(4)]), ray.get(counter.add.remote(0)))
""",
    "await": """
print(await square.remote(7), await asyncio.gather(*[square.remote(n) for n in range(3)]), await counter.add.remote(1))
""",
    "interrupt": """
@ray.remote
def forever():
    time.sleep(600)

threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
ray.get(forever.remote())
""",
    "afterwards": """
print(ray.get(square.remote(9)))
""",
    "a cell defines it anew": """
@ray.remote
def square(x):
    return -x
print(ray.get(square.remote(9)))
""",
    "output of workers": """
@ray.remote
def speak():
    print("a worker speaks")
ray.get(speak.remote())
time.sleep(1)
""",
    "end": """
ray.shutdown()
print(ray.is_initialized())
""",
}


def text(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def errors(cell) -> list[str]:
    return [output["ename"] for output in cell.outputs if output["output_type"] == "error"]


@pytest.fixture(scope="module")
def executed():
    """The cells after they have run, by their names."""
    cells = {name: nbformat.v4.new_code_cell(source.strip()) for name, source in CELLS.items()}
    notebook = nbformat.v4.new_notebook(cells=list(cells.values()))
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    return dict(zip(CELLS, notebook.cells, strict=True))


def test_init_shows_its_context(executed):
    assert errors(executed["start"]) == []
    (shown,) = [output for output in executed["start"].outputs if output["output_type"] == "execute_result"]
    assert "RayContext(" in shown["data"]["text/plain"]


def test_tasks_and_actors_that_cells_define_run(executed):
    assert text(executed["tasks and actors"]) == "[0, 1, 4, 9] 10\n"
    assert text(executed["a cell defines it anew"]) == "-9\n"


def test_refs_can_be_awaited_on_the_loop_of_the_kernel(executed):
    assert text(executed["await"]) == "49 [0, 1, 4] 11\n"


def test_a_blocked_get_can_be_interrupted_and_work_goes_on(executed):
    assert errors(executed["interrupt"]) == ["KeyboardInterrupt"]
    assert text(executed["afterwards"]) == "81\n"


def test_what_workers_print_is_shown(executed):
    assert "a worker speaks" in "".join(text(cell) for cell in executed.values())


def test_the_session_ends_and_no_cell_fails_otherwise(executed):
    assert text(executed["end"]) == "False\n"
    assert [name for name, cell in executed.items() if errors(cell)] == ["interrupt"]
