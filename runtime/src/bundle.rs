//! The OCI bundle: `config.json` read whole and written whole.
//!
//! The specification stays a JSON value: a field that we do not know is carried over as it is.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Upper bound of a `config.json` in bytes. dockerd's are 10 to 40 KiB; the rest is environment and mounts.
pub const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;

/// Why a bundle could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than [`MAX_CONFIG_BYTES`].
    #[error("`{}` is larger than {MAX_CONFIG_BYTES} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, or not an object.
    #[error("`{}` is not a JSON object", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A field that we decide on has another type than the specification says.
    #[error("field `{field}` of the bundle is missing or of another type than the OCI specification says")]
    Field {
        /// The field.
        field: &'static str,
    },
    /// Cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A runtime specification.
pub type Spec = serde_json::Map<String, Value>;

/// Reads a JSON object, such as `config.json` or `process.json`.
///
/// # Errors
/// Missing, too large, or not an object.
pub fn read_object(path: &Path) -> Result<Spec, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(read)?;
    file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text).map_err(read)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_CONFIG_BYTES) {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    serde_json::from_slice(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })
}

/// Writes a JSON object to a file that only root may read.
///
/// # Errors
/// The file cannot be written.
pub fn write_object(path: &Path, object: &Spec) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let write = |source| Error::Write { path: path.to_owned(), source };
    let text = serde_json::to_vec(object).expect("a JSON value has string keys only");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(write)?;
    io::Write::write_all(&mut file, &text).map_err(write)
}

/// The array at `parent.field`, empty when absent or null.
///
/// # Errors
/// The field is something else than an array.
pub fn array<'a>(parent: Option<&'a Value>, field: &'static str) -> Result<&'a [Value], Error> {
    match parent.and_then(|parent| parent.get(field)) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Error::Field { field }),
    }
}

/// The string at `value.field`, `None` when absent.
#[must_use]
pub fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// `linux` of the specification, to be changed.
///
/// # Errors
/// It is missing or not an object.
pub fn linux(spec: &mut Spec) -> Result<&mut Spec, Error> {
    spec.get_mut("linux").and_then(Value::as_object_mut).ok_or(Error::Field { field: "linux" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_array_of_another_type_is_refused() {
        assert!(array(Some(&json!({"mounts": "x"})), "mounts").is_err());
        assert!(array(Some(&json!({"mounts": null})), "mounts").unwrap().is_empty());
        assert!(array(None, "mounts").unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_file() {
        let error = read_object(Path::new("/nonexistent/config.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/nonexistent/config.json`");
        assert!(Error::Field { field: "linux" }.to_string().starts_with("field `linux` of the bundle"));
    }
}
