"""The benchmark of the studio stops at the target, and its table counts what was reached."""

import toy_studio

from benchmarks.studio.measure import measure
from benchmarks.studio.table import table


def test_a_run_ends_at_the_target():
    network = toy_studio.network()
    found = measure(network, toy_studio.random_image(), (0, 2), 0.01)
    assert found["reached"]
    assert 0 < found["steps"] < 30
    assert found["processor_seconds"] > 0


def test_the_table_has_medians_and_what_was_missed():
    runs = [
        {"reached": seconds < 3, "seconds": seconds, "processor_seconds": seconds / 2, "steps": 4}
        for seconds in (1.0, 2.0, 3.0)
    ]
    cells = [cell.strip() for cell in table({"runs": {"0.01": runs}}).splitlines()[2].split("|")]
    assert cells[1:-1] == ["0.01", "3", "2", "1.00", "1.50", "2.00", "4"]
