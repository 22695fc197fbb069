import pytest

from benchmarks.launch import disturbed


@pytest.mark.nightly
def test_twenty_runs_with_a_third_of_their_processes_killed_end_as_if_nothing_had_happened():
    found = disturbed(20)
    assert found["identical_runs"] == found["runs"] == 20
    assert found["killed_share"] >= 0.3 and found["processes"] >= 20 + found["killed"]
