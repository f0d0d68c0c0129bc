//! Python environments under target/: onnx and onnxruntime for the verification suite, nvcc for the CUDA check.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::shell::{self, Failure};

/// The interpreter of the verification suite's environment; made on first use from tests/python/requirements.txt.
pub fn environment() -> Result<PathBuf, Failure> {
    install("venv", &["--requirement", "tests/python/requirements.txt"])
}

/// Type-checks the trainer with `--features cuda`, with NVIDIA's compiler and headers from PyPI. Needs no GPU.
pub fn check_cuda() -> Result<(), Failure> {
    let python = install(
        "venv-cuda",
        &["--requirement", "xtask/cuda-requirements.txt"],
    )?;
    let site = shell::output(Command::new(&python).args([
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
    ]))
    .ok_or_else(|| Failure(format!("{} does not run", python.display())))?;
    let home = Path::new(&site).join("nvidia/cu13");
    let path = std::env::join_paths(std::iter::once(home.join("bin")).chain(
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()),
    ))
    .map_err(|error| Failure(error.to_string()))?;
    shell::run(
        shell::cargo()
            .args([
                "check",
                "--release",
                "--locked",
                "--package",
                "trainer",
                "--features",
                "cuda",
                "--target-dir",
                "target/cuda",
            ])
            .env("CUDA_HOME", &home)
            .env("CUDA_PATH", &home)
            .env("CUDARC_CUDA_VERSION", "13000")
            .env("CUDA_COMPUTE_CAP", "90")
            .env("PATH", path),
    )
}

/// Creates `target/<name>` if needed and installs the packages into it.
pub fn install(name: &str, packages: &[&str]) -> Result<PathBuf, Failure> {
    let folder = shell::root().join("target").join(name);
    let python = folder.join("bin/python");
    if !python.exists() {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    let quiet = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    shell::run(
        Command::new(&python)
            .current_dir(shell::root())
            .args(quiet)
            .args(packages),
    )?;
    Ok(python)
}
