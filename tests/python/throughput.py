"""Images per second of an int8 model in onnxruntime, one thread.

usage: throughput.py MODEL IMAGES ROUNDS

IMAGES holds raw u8 images. They are run one at a time and 64 at a time; the best of ROUNDS rounds counts.
"""

import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> None:
    model, path, rounds = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    image, output = session.get_inputs()[0], session.get_outputs()[0].name
    images = np.fromfile(path, dtype=np.uint8).reshape(-1, *image.shape[1:])
    for batch in (1, 64):
        seconds = []
        for _ in range(int(rounds)):
            start = time.perf_counter()
            for first in range(0, len(images), batch):
                session.run([output], {image.name: images[first : first + batch]})
            seconds.append(time.perf_counter() - start)
        name = f"onnxruntime, batches of {batch}"
        print(f"{name:<28}{len(images) / min(seconds):>10.0f} images/s")


if __name__ == "__main__":
    main()
