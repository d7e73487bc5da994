"""The frame against its goals: the app's start, the queue, drawing, and the training's own file."""

from __future__ import annotations

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import spine_training
from benchmarks.harness import Bars, Figures, bar, in_turn, say
from masuka import Settings, Studio, pocket
from masuka.config import Workspace
from masuka.jobs import queue
from masuka.requests import Actor
from masuka.store.connect import Store

ROOT = Path(__file__).parents[1]
STARTS = 5
WARM_JOBS = 15
CLAIMANTS = 8
CLAIMED_JOBS = 400
PICTURE_PAIRS = 15
OWNER = Actor(user_id=1)


def measure() -> tuple[Figures, Bars]:
    """Figures and bars of every part."""
    figures: Figures = {}
    bars: Bars = {}
    for part in (app_start, warm_start, claimants, picture_time, spine_training.measure):
        more = part()
        figures |= more[0]
        bars |= more[1]
    return figures, bars


def app_start() -> tuple[Figures, Bars]:
    """Seconds from starting the app to its first response, the median of several starts."""
    say(f"{STARTS} starts of the app")
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        _start_once(Path(folder))
        value = statistics.median(_start_once(Path(folder)) for _ in range(STARTS))
    return {"app_start_s": value}, {"app_start_s": bar(value, "<= 6.0")}


def warm_start() -> tuple[Figures, Bars]:
    """Seconds from queueing a job to the worker's first event, when the worker is warm."""
    say("queueing jobs for a warm worker")
    seconds = []
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        settings = Settings(workspace=Workspace(Path(folder)), device="cpu")
        with Studio.open(settings, workers="processes") as studio:
            dataset = studio.datasets.create(name="Bench", trigger_word="bolt7x", class_word="robot")
            for number in range(WARM_JOBS + 1):
                job = studio.jobs.wait(studio.datasets.add_samples(dataset.id, seed=number, count=1))
                started = next(e.at for e in studio.jobs.events(job.id) if e.type == "started")
                if number:
                    seconds.append(_between_s(job.created_at, started))
                time.sleep(random.Random(number).uniform(0.2, 1.0))
    value = statistics.median(seconds)
    return {"enqueue_to_start_s": value}, {"enqueue_to_start_s": bar(value, "<= 0.5")}


def claimants() -> tuple[Figures, Bars]:
    """Eight processes empty one queue: how often a job was claimed twice, jobs per second."""
    say(f"{CLAIMANTS} processes claim {CLAIMED_JOBS} jobs")
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        workspace = Workspace(Path(folder)).create()
        with Store.open(workspace) as store:
            for number in range(CLAIMED_JOBS):
                queue.add_job(
                    store, actor=OWNER, kind="sample_pictures", title=str(number), request={}, params={}
                )
        command = [sys.executable, "-m", "benchmarks.spine", str(workspace.database)]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for _ in range(CLAIMANTS)
        ]
        for process in processes:
            _line(process)  # says that it is ready
        started = time.perf_counter()
        claimed: Counter[int] = Counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            claimed.update(json.loads(_line(process)))
            process.communicate()
        seconds = time.perf_counter() - started
    twice = sum(count - 1 for count in claimed.values())
    lost = CLAIMED_JOBS - len(claimed)
    figures = {"claimed_twice": float(twice), "never_claimed": float(lost), "claims_per_s": CLAIMED_JOBS / seconds}
    return figures, {n: bar(figures[n], "<= 0") for n in ("claimed_twice", "never_claimed")}


def picture_time() -> tuple[Figures, Bars]:
    """Seconds of one picture through the studio's job and through the bare pipeline."""
    import torch

    from benchmarks.pocket import draw
    from masuka.generation import images
    from masuka.jobs.reporter import EventFile

    say(f"{PICTURE_PAIRS} pictures by the job, {PICTURE_PAIRS} by the bare pipeline")
    torch.set_grad_enabled(False)
    prompt = "a happy red round robot wearing a crown in a meadow"
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        settings = Settings(workspace=Workspace(Path(folder)), device="cpu")
        with Studio.open(settings, workers="inline") as studio:
            params = studio.images.draw(prompt=prompt, base=pocket.MODEL_ID, seed=1).params
        seeds = iter(range(10_000))

        def by_the_job() -> None:
            params["request"]["seed"] = next(seeds)
            attempt = EventFile(Path(folder) / "jobs" / "1" / "1.jsonl", Path(folder) / "jobs" / "1" / "scratch")
            images.run(params, attempt)
            attempt.close()

        def by_the_pipeline() -> None:
            draw([prompt], [next(seeds)])[0].save(Path(folder) / "bare.png")

        by_the_job()
        by_the_pipeline()
        ours, bare, ratio = in_turn(by_the_job, by_the_pipeline, pairs=PICTURE_PAIRS)
    figures = {"picture_job_s": ours, "picture_bare_s": bare, "picture_ratio": ratio}
    return figures, {"picture_ratio": bar(ratio, "<= 1.02")}


def _start_once(home: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASUKA_HOME": str(home), "MASUKA_PORT": str(port)}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py")], env=environment, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise RuntimeError(f"app.py ended with {process.returncode}")
            time.sleep(0.02)
        return time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _between_s(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def claim_all(database: Path) -> list[int]:
    """The ids of the jobs that this process could claim, until there are none."""
    found: list[int] = []
    store = Store(database)
    print("ready", flush=True)
    sys.stdin.readline()
    while (job := queue.claim(store, lane="cpu")) is not None:
        found.append(job.id)
    store.close()
    return found


if __name__ == "__main__":
    answer: Any = claim_all(Path(sys.argv[1]))
    print(json.dumps(answer), flush=True)
