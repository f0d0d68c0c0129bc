"""The data and the request loop that both peers share.

Prints `ready`. Then each line of standard input is a request, answered by one line of seconds: `train N` does the next N
optimizer steps, `evaluate` computes loss and accuracy of the test images. The end of the input ends the program.
"""

import gzip
import sys
import time
from pathlib import Path

import numpy as np

BATCH = 64


def read_idx(path, header):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def load(folder):
    """Images [n, 28, 28, 1], every pixel standardized with the training images' statistics, and labels."""
    folder = Path(folder)
    parts = {}
    for part in ("train", "t10k"):
        pixels = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 16)
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8)
        parts[part] = (pixels.reshape(-1, 28, 28, 1), labels.astype(np.int64))
    images = parts["train"][0].astype(np.float64)
    mean, std = images.mean(0), images.std(0)
    std[std == 0] = 1
    return [
        (((x - mean) / std).astype(np.float32), y) for x, y in (parts["train"], parts["t10k"])
    ]


def serve(train, evaluate):
    """Answers requests with train(steps) and evaluate()."""
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        match line.split():
            case ["train", steps]:
                train(int(steps))
            case ["evaluate"]:
                evaluate()
            case _:
                sys.exit(f"expected `train N` or `evaluate`, got `{line.strip()}`")
        print(time.perf_counter() - start, flush=True)
