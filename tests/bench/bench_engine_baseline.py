"""Measure the classical baselines on public chest X-rays: style distance before and after, refusals, seconds.

    python -m tests.bench.bench_engine_baseline --images ../shared/data --out tests/bench/results/engine_baseline.txt

Held out: no image measured here is a reference of the shipped bank, and no patient of it is one."""

from __future__ import annotations

import argparse
import csv
import datetime
import operator
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture

from engine import METHODS, Bank, Engine, EngineSettings, Image, default_banks

BANK = "chest_frontal"
PER_SET = 20
REPEATS = 7
Tone = Callable[[torch.Tensor], torch.Tensor]
TONES: dict[str, Tone] = {
    "gamma 0.6": lambda v: v**0.6,
    "gamma 1.8": lambda v: v**1.8,
    "window 50 %": lambda v: 0.25 + 0.5 * v,
    "sigmoid": lambda v: (
        (torch.sigmoid(6 * (v - 0.5)) - torch.sigmoid(torch.tensor(-3.0)))
        / (torch.sigmoid(torch.tensor(3.0)) - torch.sigmoid(torch.tensor(-3.0)))
    ),
}


@dataclass(frozen=True)
class Result:
    """One method on one set of images."""

    images: str
    method: str
    count: int
    before: float
    after: float
    conforming: float
    refused: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--out", type=Path, help="file that the printed text is also saved to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    bank = default_banks()[BANK]
    results = [r for name, images in image_sets(options.images, bank).items() for r in measure(name, images, bank)]
    speed = {f"{w}x{h}": end_to_end_seconds(h, w, options.images, bank) for h, w in ((2000, 2000), (4664, 3064))}
    lines = [
        f"engine baseline, {datetime.datetime.now(datetime.UTC).date().isoformat()}, {machine()}",
        f"bank {bank.name} {bank.digest[:12]}, {len(bank.references)} references, threshold {bank.threshold:.2f}",
        *table(results),
        *(f"{size} end to end, fitted_curve: {seconds:.2f} s (best of {REPEATS})" for size, seconds in speed.items()),
        *goals(results, speed),
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def machine() -> str:
    """What it ran on, in words."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line.split(":", 1)[1] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = " ".join(named[0].split()) if named else model
    load = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    return f"{model}, {load}, Python {platform.python_version()}, torch {torch.__version__}"


def image_sets(data: Path, bank: Bank) -> dict[str, list[Image]]:
    """Held-out images by name of the set, evenly picked: other hospital, other view, simulated tones."""
    with (data / "index.csv").open(newline="", encoding="utf-8") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["file"])
    in_bank = {Path(r.source).name for r in bank.references}
    patients = {row["patient"] for row in rows if Path(row["file"]).name in in_bank}
    chest = [row for row in rows if row["kind"] == "chest frontal" and row["patient"] not in patients]
    hannover = [row["file"] for row in chest if row["source"] == "hannover_mhh"]
    portable = [row["file"] for row in chest if row["source"] == "nih_chestxray14" and row["view"] == "AP"]
    journal = [row["file"] for row in chest if row["source"] == "ieee8023_covid_chestxray"]
    sets = {
        "Hannover": [read(data / f) for f in picked(hannover, PER_SET)],
        "NIH AP": [read(data / f) for f in picked(portable, PER_SET)],
        "ieee8023": [read(data / f) for f in picked(journal, PER_SET // 2)],
    }
    engine = Engine(EngineSettings(), {bank.name: bank})
    conforming = [
        image
        for image in (read(data / f) for f in picked(portable, 3 * PER_SET))
        if engine.run([image], bank.name)[0].trace.distance_before <= bank.threshold
    ][: PER_SET // 4]
    for name, tone in TONES.items():
        sets[f"NIH AP {name}"] = [toned(image, tone) for image in conforming]
    return sets


def picked(files: list[str], count: int) -> list[str]:
    """At most `count` of them, evenly spread."""
    return files[:: max(1, -(-len(files) // count))]


def read(path: Path) -> Image:
    """One 8-bit picture."""
    codes = np.asarray(Picture.open(path).convert("L"))
    values = torch.from_numpy((codes / 255).astype(np.float32))[None]
    return Image(values, torch.zeros_like(values, dtype=torch.bool), levels=256)


def toned(image: Image, tone: Tone) -> Image:
    """The image as another vendor's tone would show it, on 12 bits so that it loses nothing by it."""
    codes = (tone(image.values).clamp(0, 1) * 4095).round()
    return Image((codes.double() / 4095).float(), image.padding, levels=4096)


def measure(name: str, images: list[Image], bank: Bank) -> list[Result]:
    """Every method on every image, also on those that conform already: threshold 0 makes the engine try."""
    engine = Engine(EngineSettings(distance_threshold=0.0, min_anatomy_agreement=-1.0), {bank.name: bank})
    margin = 1 - EngineSettings().min_improvement
    found = []
    for method in METHODS:
        before, after, refused, seconds = [], [], [], []
        for image in images:
            start = time.perf_counter()
            trace = engine.run([image], bank.name, [method])[0].trace
            seconds.append(time.perf_counter() - start)
            candidate = trace.candidates[0]
            before.append(trace.distance_before)
            after.append(candidate.distance)
            wanted = max(bank.threshold, margin * trace.distance_before)
            refused.append(not candidate.verified or candidate.distance > wanted)
        found.append(
            Result(
                name,
                method,
                len(images),
                float(np.median(before)),
                float(np.median(after)),
                float(np.mean(np.array(after) <= bank.threshold)),
                float(np.mean(refused)),
                float(np.median(seconds)),
            )
        )
    identity = float(np.mean(np.array(before) <= bank.threshold))
    return [Result(name, "identity", len(images), found[0].before, found[0].before, identity, 0.0, 0.0), *found]


def end_to_end_seconds(height: int, width: int, data: Path, bank: Bank) -> float:
    """Least seconds of a whole run on a 12-bit image of this size that does not conform: others' load only adds."""
    small = read(sorted((data / "chest" / "hannover").glob("*.png"))[0]).values[None]
    values = torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear", antialias=True)[0]
    image = toned(Image(values, torch.zeros_like(values, dtype=torch.bool), 256), TONES["gamma 1.8"])
    engine = Engine(EngineSettings(distance_threshold=0.0), {bank.name: bank})
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine.run([image], bank.name)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def table(results: list[Result]) -> list[str]:
    """Rows for people: medians of the distance, shares of the images."""
    head = f"{'images':<20}{'n':>4}  {'method':<20}{'before':>8}{'after':>8}{'within':>8}{'refused':>9}{'seconds':>9}"
    rows = [
        f"{r.images:<20}{r.count:>4}  {r.method:<20}{r.before:>8.2f}{r.after:>8.2f}"
        f"{r.conforming:>8.0%}{r.refused:>9.0%}{r.seconds:>9.2f}"
        for r in results
    ]
    return [head, *rows]


def goals(results: list[Result], speed: dict[str, float]) -> list[str]:
    """What the baseline has to reach, each line computed."""
    by = {(r.images, r.method): r for r in results}
    fitted = [r for r in results if r.method == "fitted_curve"]
    clamped = [r for r in results if r.method == "window_clamp"]
    total = sum(r.count for r in fitted)
    return [
        goal("hannover_fitted_median_after", by["Hannover", "fitted_curve"].after, "<=", 2.0),
        goal("hannover_fitted_within_threshold", by["Hannover", "fitted_curve"].conforming, ">=", 0.8),
        goal("all_fitted_refused_share", sum(r.refused * r.count for r in fitted) / total, "<=", 0.1),
        goal(
            "fitted_beats_window_clamp_in_sets",
            float(sum(f.after < c.after for f, c in zip(fitted, clamped, strict=True))),
            ">=",
            float(len(fitted)),
        ),
        goal("seconds_2000x2000", speed["2000x2000"], "<=", 1.0),
        goal("seconds_3064x4664", speed["3064x4664"], "<=", 2.5),
    ]


def goal(name: str, value: float, op: str, threshold: float) -> str:
    """One line: met or missed."""
    met = {"<=": operator.le, ">=": operator.ge}[op](value, threshold)
    return f"GOAL {name} {value:.3f} {op} {threshold:g} {'met' if met else 'missed'}"


if __name__ == "__main__":
    main()
