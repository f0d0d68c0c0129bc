//! Results on standard output, for people or for programs. Progress and errors go to standard error.

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stdout},
};

use serde::Serialize;

use crate::error::Error;

/// Prints a result as text, or as one indented JSON document.
///
/// # Errors
/// Standard output cannot be written; a reader that went away is no error.
pub fn result<T: Display + Serialize>(value: &T, json: bool) -> Result<(), Error> {
    if json {
        return document(value);
    }
    text(&value.to_string())
}

/// Prints one indented JSON document.
///
/// # Errors
/// As [`result`].
pub fn document<T: Serialize>(value: &T) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Failed(format!("standard output: {error}")))?;
    text.push('\n');
    self::text(&text)
}

/// Prints a JSON document on one line.
///
/// # Errors
/// As [`result`].
pub fn line<T: Serialize>(value: &T) -> Result<(), Error> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::Failed(format!("standard output: {error}")))?;
    self::text(&(text + "\n"))
}

/// Prints text as it is.
///
/// # Errors
/// As [`result`].
pub fn text(text: &str) -> Result<(), Error> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}
