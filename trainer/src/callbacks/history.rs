//! history.csv: one line per epoch. The file is written anew after each epoch, so a resumed run cuts off the epochs after
//! its checkpoint, and a crash leaves no half line.

use std::path::{Path, PathBuf};

use super::{Callback, CallbackError, EpochLog};
use crate::file::write_atomic;

/// Its name in the run folder.
pub const FILE: &str = "history.csv";

/// Writes history.csv: columns epoch, step, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds,
/// samples_per_second. The numbers read back to the same bits.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    epochs: Vec<EpochLog>,
}

impl History {
    /// `done`: the epochs of the checkpoint that the run continues.
    pub fn new(path: PathBuf, done: Vec<EpochLog>) -> Self {
        Self { path, epochs: done }
    }
}

impl Callback for History {
    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        self.epochs.push(*log);
        let mut csv = csv::Writer::from_writer(Vec::new());
        let file = |source| CallbackError::File {
            path: self.path.clone(),
            source,
        };
        for epoch in &self.epochs {
            csv.serialize(epoch).map_err(|e| file(e.into()))?;
        }
        let bytes = csv.into_inner().map_err(|e| file(e.into_error()))?;
        write_atomic(&self.path, &bytes).map_err(file)
    }
}

/// Reads a history.csv; the epochs must count up by one.
///
/// # Errors
/// A missing file, a wrong column or number (with its line), an epoch out of order.
pub fn read(path: &Path) -> Result<Vec<EpochLog>, CallbackError> {
    let error = |message: String| CallbackError::History {
        path: path.to_path_buf(),
        message,
    };
    let mut csv = csv::Reader::from_path(path).map_err(|e| error(e.to_string()))?;
    let mut epochs: Vec<EpochLog> = Vec::new();
    for line in csv.deserialize() {
        let log: EpochLog = line.map_err(|e| error(e.to_string()))?;
        if let Some(last) = epochs.last()
            && log.epoch != last.epoch + 1
        {
            return Err(error(format!(
                "epoch {} follows epoch {}, expected epoch {}",
                log.epoch,
                last.epoch,
                last.epoch + 1
            )));
        }
        epochs.push(log);
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(epoch: usize) -> EpochLog {
        EpochLog {
            epoch,
            step: 938 * epoch as u64,
            loss: 0.1 / 3.0,
            accuracy: 0.987_654_3,
            val_loss: f32::from_bits(0x3d01_2345),
            val_accuracy: 0.991,
            learning_rate: 7.579e-5,
            seconds: 4.2,
            samples_per_second: 14_285.714_285_714_286,
        }
    }

    #[test]
    fn reads_back_the_same_bits_and_cuts_what_follows_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.csv");
        let mut first = History::new(path.clone(), Vec::new());
        for epoch in 1..=3 {
            first.epoch(&log(epoch)).unwrap();
        }
        assert_eq!(read(&path).unwrap(), [log(1), log(2), log(3)]);
        let header = "epoch,step,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds,samples_per_second\n";
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(header));

        let mut resumed = History::new(path.clone(), vec![log(1)]);
        resumed.epoch(&log(2)).unwrap();
        assert_eq!(read(&path).unwrap(), [log(1), log(2)]);
    }

    #[test]
    fn names_the_file_and_line_of_a_bad_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.csv");
        History::new(path.clone(), Vec::new())
            .epoch(&log(1))
            .unwrap();
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace("938", "9x8");
        std::fs::write(&path, text).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(
            message.contains("history.csv") && message.contains("line: 2"),
            "{message}"
        );
    }
}
