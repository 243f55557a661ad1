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
    /// A text that ends elsewhere for crun than for us.
    #[error("`{}` has a text with a zero byte", .path.display())]
    ZeroByte {
        /// The file.
        path: PathBuf,
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
    parse(&text, path)
}

/// Reads a JSON object from `text`, which came from `path`.
///
/// # Errors
/// Not an object, or a text in it has a zero byte: crun reads texts up to the first one, and would see another option,
/// type or field than the rules did.
pub fn parse(text: &[u8], path: &Path) -> Result<Spec, Error> {
    let object: Spec =
        serde_json::from_slice(text).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
    if object.iter().any(|(name, value)| name.contains('\0') || has_zero_byte(value)) {
        return Err(Error::ZeroByte { path: path.to_owned() });
    }
    Ok(object)
}

/// The parser bounds the depth of what it reads, and with it this recursion.
fn has_zero_byte(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_zero_byte),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_zero_byte(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
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
    fn a_text_that_ends_elsewhere_for_crun_is_refused() {
        let path = Path::new("/b/config.json");
        for text in [
            r#"{"mounts": [{"destination": "/x", "type": "tmpfs", "source": "/etc", "options": ["bind\u0000"]}]}"#,
            r#"{"linux": {"namespaces": [{"type": "network", "path\u0000": "/proc/1/ns/net"}]}}"#,
            r#"{"vm\u0000": 1}"#,
        ] {
            let error = parse(text.as_bytes(), path).unwrap_err();
            assert_eq!(error.to_string(), "`/b/config.json` has a text with a zero byte", "{text}");
        }
        assert!(parse(br#"{"process": {"args": ["printf", "a\\u0000"]}}"#, path).is_ok());
    }

    #[test]
    fn errors_name_the_file() {
        let error = read_object(Path::new("/nonexistent/config.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/nonexistent/config.json`");
        assert!(Error::Field { field: "linux" }.to_string().starts_with("field `linux` of the bundle"));
    }
}
