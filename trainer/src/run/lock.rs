//! One writer for a run folder.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::RunError;
use crate::file::remove_unfinished;

/// File in the run folder; it stays there, only the system's lock on it counts.
const FILE: &str = ".lock";

/// A run folder that no other process writes to, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "closing the file gives the lock back")] File);

impl Lock {
    /// Takes the folder, and removes the temporary files that a killed process has left there.
    ///
    /// # Errors
    /// [`RunError::Busy`] if another process has it; or the file cannot be made.
    pub fn take(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(|source| RunError::File {
            path: path.clone(),
            source,
        })?;
        match file.try_lock() {
            Ok(()) => {
                let removed = remove_unfinished(dir);
                removed.map_err(|source| RunError::File {
                    path: dir.into(),
                    source,
                })?;
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => Err(RunError::Busy { dir: dir.into() }),
            Err(TryLockError::Error(source)) => Err(RunError::File { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another `trainer` is writing"), "{error}");
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
