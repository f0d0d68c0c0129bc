//! The error of a whole command; each stage has its own enum and converts into it.

use std::path::Path;

use crate::interrupt;

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line or the recipe is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The work failed or did not verify: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The user ended a training; it can be continued: exit code 130.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// [`Error::Failed`] with the error's message.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// [`Error::Failed`] with the name of the file before the error's message.
    pub fn in_file(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }

    /// Process exit code: 2 for usage and recipe errors, 130 after an interruption, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Interrupted(_) => interrupt::EXIT_CODE,
        }
    }
}
