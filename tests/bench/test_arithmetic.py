"""The arithmetic of the benches: lines of goals, ratios within rounds, shares of a corpus, sums over a process tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import bench_receive
from tests.bench.bench_receive import FSYNC, ORTHANC, OURS, Run
from tests.bench.corpora import Corpus, Shape, generate, given
from tests.bench.measured import goal, paired, real_disk, spread, table
from tests.bench.process_tree import Sampler, members

MB = 1_000_000
LARGE = Corpus("dx", (Path("1.dcm"),), 10 * MB)
SMALL = Corpus("cr", (Path("1.dcm"), Path("2.dcm")), MB)


def run(receiver: str, corpus: Corpus, turn: int, rate: float, *, peak_mb: int = 50, cpu_s: float = 0.01) -> Run:
    """A run of one association at `rate` MB/s."""
    wall_s = corpus.bytes / MB / rate
    memory = (peak_mb * MB,) * 3
    return Run(corpus.name, 1, receiver, turn, corpus.bytes, len(corpus.files), wall_s, cpu_s, 0.0, *memory, 1)


@pytest.mark.parametrize(
    ("value", "op", "threshold", "line"),
    [
        (1.5, ">=", 1.5, "GOAL name 1.500 >= 1.5 met"),
        (1.4999, ">=", 1.5, "GOAL name 1.500 >= 1.5 missed"),
        (60.0, "<=", 60.0, "GOAL name 60.000 <= 60 met"),
        (60.0001, "<=", 60.0, "GOAL name 60.000 <= 60 missed"),
    ],
)
def test_a_goal_is_judged_by_the_value_itself_and_not_by_what_is_shown(
    value: float, op: str, threshold: float, line: str
) -> None:
    assert goal("name", value, op, threshold) == line


def test_ratios_are_taken_within_a_round_before_the_median() -> None:
    ours, theirs = {0: 100.0, 1: 10.0, 2: 30.0, 3: 7.0}, {0: 50.0, 1: 10.0, 2: 10.0}
    found = paired(ours, theirs)
    assert found is not None
    # The medians of the two alone would give 20 / 10; round 3 has no pair.
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)
    assert paired(ours, {9: 1.0}) is None


def test_every_goal_of_receiving_is_judged_against_the_receiver_it_names() -> None:
    runs = [
        run(receiver, corpus, turn, rate)
        for turn in (0, 1, 2)
        for corpus in (LARGE, SMALL)
        for receiver, rate in ((OURS, 90.0), (ORTHANC, 50.0), (FSYNC, 100.0))
    ]
    runs += [run(OURS, LARGE, 3, 90.0, peak_mb=61, cpu_s=0.02), run(OURS, SMALL, 3, 90.0, peak_mb=50)]
    lines = [line for line in bench_receive.goals(runs, [LARGE, SMALL], [1]) if line.startswith("GOAL")]
    assert lines == [
        "GOAL receive_vs_orthanc_dx_1 1.800 >= 1.5 met",
        "GOAL receive_vs_orthanc_cr_1 1.800 >= 1.5 met",
        "GOAL receive_vs_storescp_fsync_dx_1 0.900 >= 1 missed",
        "GOAL receive_vs_storescp_fsync_cr_1 0.900 >= 0.8 met",
        "GOAL receiver_process_peak_rss_mb 61.000 <= 60 missed",
        "GOAL receiver_memory_large_minus_small_mb 0.000 <= 8 met",
        "GOAL cpu_s_per_gb_dx_1 1.000 <= 1.5 met",
    ]


def test_what_was_not_measured_is_no_met_goal() -> None:
    lines = bench_receive.goals([run(OURS, LARGE, 0, 90.0)], [LARGE], [1])
    assert "no figure for receive_vs_orthanc_dx_1: not measured in this run" in lines
    assert not [line for line in lines if "orthanc" in line and line.startswith("GOAL")]


def test_every_file_of_a_corpus_is_in_exactly_one_sender_s_share(tmp_path: Path) -> None:
    made = generate(tmp_path / "cr", "cr", Shape("CR", 16, 16, 7, 3), seed=1)
    shares = made.shares(tmp_path / "shares", 3)
    sent = [path.resolve() for share in shares for path in share.iterdir()]
    assert len(shares) == 3
    assert sorted(sent) == sorted(path.resolve() for path in made.files)


def test_a_generated_corpus_is_the_same_again_and_has_no_uid_twice(tmp_path: Path) -> None:
    first, again = (generate(tmp_path / name, "cr", Shape("CR", 16, 16, 5, 2), seed=1) for name in ("1", "2"))
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in again.files]
    (tmp_path / "1" / "readme.txt").write_text("no DICOM")
    # `given` leaves a second file of one UID out.
    assert len(given(tmp_path / "1").files) == 5


def test_the_cpu_of_children_that_have_ended_is_counted_with_their_parent_s() -> None:
    burn = "sum(range(12_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{burn}']); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin
        assert process.stdout
        with Sampler(process.pid) as sampler:
            process.stdout.readline()
            assert members(process.pid) == [process.pid]
        process.stdin.write(b"\n")
    usage = sampler.usage
    alone = subprocess.run(
        [sys.executable, "-c", f"import time; {burn}; print(time.process_time())"], capture_output=True, check=True
    )
    # Half of it at least: the rest is left to the clock's ticks.
    assert usage.cpu_s > float(alone.stdout) / 2
    assert usage.peak_of(lambda words: burn in words).peak_rss > MB


def test_a_ram_disk_is_never_chosen_to_measure_on(tmp_path: Path) -> None:
    assert real_disk(None, [Path("/dev/shm"), tmp_path]) == tmp_path
    assert real_disk(Path("/dev/shm"), []) == Path("/dev/shm")


def test_a_table_has_as_many_columns_in_every_row() -> None:
    assert table(("a", "b"), [("long name", "1"), ("x", "22")]) == ["a           b", "long name   1", "x          22"]
    assert spread([3.0, 1.0, 2.0]).text(1) == "2.0 [1.0..3.0]"
