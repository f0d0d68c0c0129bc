"""Compares onnxruntime's logits of int8 models with the fixed-point runtime's, bit for bit.

usage: run_onnxruntime.py FOLDER

FOLDER holds, per case, NAME.onnx (int8), NAME.images (u8, NCHW) and NAME.logits (f32, little-endian, what the
fixed-point runtime computed, accumulator * 2^exponent). Every graph optimization level and several batch sizes
are run. Prints one line per difference and a summary; the exit code is 1 if anything differs.
"""

import pathlib
import sys

import numpy as np
import onnxruntime as ort

LEVELS = [
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
]


def check(model: pathlib.Path) -> tuple[int, int]:
    """Returns how many logits differ and how many were compared."""
    differing = compared = 0
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        image = session.get_inputs()[0]
        images = np.fromfile(model.with_suffix(".images"), dtype=np.uint8).reshape(-1, *image.shape[1:])
        expected = np.fromfile(model.with_suffix(".logits"), dtype="<f4").reshape(len(images), -1)
        for batch in (1, 5, len(images)):
            for start in range(0, len(images), batch):
                part = images[start : start + batch]
                logits = session.run([session.get_outputs()[0].name], {image.name: part})[0]
                wrong = np.argwhere(logits != expected[start : start + batch])
                compared += logits.size
                differing += len(wrong)
                if len(wrong):
                    i, c = wrong[0]
                    print(
                        f"{model.name}: {level.name}, batch {batch}: image {start + i}, class {c}: "
                        f"onnxruntime {logits[i, c]!r}, runtime {expected[start + i, c]!r}"
                    )
    return differing, compared


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    models = sorted(pathlib.Path(sys.argv[1]).glob("*.onnx"))
    if not models:
        print(f"{sys.argv[1]}: no .onnx files", file=sys.stderr)
        return 2
    results = [check(model) for model in models]
    differing, compared = (sum(column) for column in zip(*results))
    print(f"onnxruntime {ort.__version__}: {len(models)} models, mismatching logits: {differing} of {compared}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
