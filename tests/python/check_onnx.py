"""Checks exported ONNX files: validity, full shape inference, and that they run in onnxruntime.

Usage: check_onnx.py FILE_OR_FOLDER...

Every file is checked with onnx.checker (full check, strict shape inference); then it runs in onnxruntime at every
optimization level on random and extreme images. The logits of `*.int8.onnx` must be the same bits at every level and batch
size; those of float models must agree within 1e-3 of the largest logit. Exit code 0 if all of this holds.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def images(shape, count=64):
    random = np.random.default_rng(1)
    batch = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    batch[0], batch[1] = 0, 255
    return batch


def run(path, level, batch, size):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    parts = [session.run(["logits"], {"image": batch[i : i + size]})[0] for i in range(0, len(batch), size)]
    return np.concatenate(parts)


def check(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    known = {value.name for value in inferred.graph.value_info} | {value.name for value in inferred.graph.output}
    missing = [out for node in model.graph.node for out in node.output if out not in known]
    if missing:
        return [f"no shape inferred for {missing}"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if not dims[0].dim_param:
        return ["the batch dimension is not symbolic"]
    keys = {entry.key for entry in model.metadata_props}
    problems = [f"metadata `{key}` is missing" for key in ("isobit.recipe_sha256", "isobit.class_names") if key not in keys]

    batch = images([dim.dim_value for dim in dims[1:]])
    exact = path.name.endswith(".int8.onnx")
    reference = run(path, LEVELS["disabled"], batch, len(batch))
    for name, level in LEVELS.items():
        for size in (1, len(batch)):
            logits = run(path, level, batch, size)
            wrong = logits != reference if exact else np.abs(logits - reference) > 1e-3 * np.abs(reference).max()
            if wrong.any():
                problems.append(f"level {name}, batch {size}: {wrong.sum()} of {wrong.size} logits differ")
    return problems


def main(arguments):
    paths = [file for argument in map(Path, arguments) for file in (sorted(argument.glob("*.onnx")) if argument.is_dir() else [argument])]
    if not paths:
        print(__doc__)
        return 2
    failed = 0
    for path in paths:
        problems = check(path)
        failed += bool(problems)
        print(f"{path.name}: {'; '.join(problems) or 'ok'}")
    print(f"{len(paths) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
