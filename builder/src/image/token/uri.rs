//! `pkcs11:` URIs (RFC 7512), as far as they name one private key.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a URI of a key begins with.
pub const SCHEME: &str = "pkcs11:";

/// The text names no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no `pkcs11:` URI.
    #[error("it does not follow RFC 7512")]
    Malformed,
    /// An attribute is not of any use here, or stands there twice.
    #[error("its attribute `{name}` {problem}")]
    Attribute {
        /// Name of the attribute.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing says which library speaks with the token.
    #[error("it lacks `?module-path=`, the library that speaks with the token")]
    NoModule,
}

/// Which key on which token, by which library. There is no PIN in it: everybody on a machine reads command lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// The text.
    text: String,
    /// The PKCS #11 library.
    pub(super) module: PathBuf,
    /// What the token's label, manufacturer, model and serial number have to be.
    pub(super) token: [Option<String>; 4],
    /// The key's label.
    pub(super) object: Option<String>,
    /// The key's id.
    pub(super) id: Option<Vec<u8>>,
    /// File with the PIN.
    pub(super) pin_source: Option<PathBuf>,
}

impl fmt::Display for Uri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let attributes = text.strip_prefix(SCHEME).ok_or(Error::Malformed)?;
        let (path, query) = attributes.split_once('?').unwrap_or((attributes, ""));
        let mut uri = Self { text: text.to_owned(), ..Self::default() };
        let (mut module, mut kind) = (None, None);
        for (name, value) in pairs(path, ';')? {
            match name {
                "token" => set(&mut uri.token[0], name, utf8(value)?)?,
                "manufacturer" => set(&mut uri.token[1], name, utf8(value)?)?,
                "model" => set(&mut uri.token[2], name, utf8(value)?)?,
                "serial" => set(&mut uri.token[3], name, utf8(value)?)?,
                "object" => set(&mut uri.object, name, utf8(value)?)?,
                "id" => set(&mut uri.id, name, value)?,
                "type" if value == b"private" => set(&mut kind, name, value)?,
                "type" => return Err(wrong(name, "is not `private`")),
                _ => return Err(wrong(name, "is not known here")),
            }
        }
        for (name, value) in pairs(query, '&')? {
            match name {
                "module-path" => set(&mut module, name, utf8(value)?)?,
                "pin-source" => {
                    let value = utf8(value)?;
                    let path = PathBuf::from(value.strip_prefix("file:").unwrap_or(&value));
                    set(&mut uri.pin_source, name, path)?;
                }
                "pin-value" => {
                    return Err(wrong(name, "shows the PIN to everybody; write it to a file, `pin-source`"));
                }
                _ => return Err(wrong(name, "is not known here")),
            }
        }
        uri.module = module.map(PathBuf::from).ok_or(Error::NoModule)?;
        Ok(uri)
    }
}

fn wrong(name: &str, problem: &'static str) -> Error {
    Error::Attribute { name: name.to_owned(), problem }
}

fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Error> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(name, "is there twice")),
    }
}

fn utf8(value: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(value).map_err(|_| Error::Malformed)
}

fn pairs(text: &str, separator: char) -> Result<Vec<(&str, Vec<u8>)>, Error> {
    let parts = text.split(separator).filter(|part| !part.is_empty());
    let pair = |part: &'_ str| {
        let (name, value) = part.split_once('=')?;
        Some((name.len(), decode(value)?))
    };
    parts.map(|part| pair(part).map(|(end, value)| (&part[..end], value)).ok_or(Error::Malformed)).collect()
}

/// Bytes of a text in which `%41` stands for `A`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (first, rest) = match text.split_once('%') {
        None => (text, None),
        Some((first, rest)) => (first, Some(rest)),
    };
    let mut bytes = first.as_bytes().to_vec();
    for part in rest.into_iter().flat_map(|rest| rest.split('%')) {
        let (digits, plain) = part.split_at_checked(2)?;
        bytes.extend(super::super::digest::from_hex(&digits.to_ascii_lowercase())?);
        bytes.extend(plain.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_as_tools_print_it_is_read() {
        let text = "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=0a;token=eci;id=%A1%00;object=image;type=private\
                    ?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin";
        let uri: Uri = text.parse().expect("sound");
        let token = ["eci", "SoftHSM project", "SoftHSM v2", "0a"].map(|value| Some(value.to_owned()));
        assert_eq!(uri.token, token);
        assert_eq!((uri.object.as_deref(), uri.id.as_deref()), (Some("image"), Some(&[0xa1, 0][..])));
        assert_eq!(uri.module, PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"));
        assert_eq!(uri.pin_source, Some(PathBuf::from("/etc/pin")));
        assert_eq!(uri.to_string(), text);
        "pkcs11:?module-path=x".parse::<Uri>().expect("the only key of the only token");
    }

    #[test]
    fn what_names_no_private_key_is_refused_with_the_reason() {
        for (text, reason) in [
            ("image.key", "it does not follow RFC 7512"),
            ("pkcs11:token", "it does not follow RFC 7512"),
            ("pkcs11:token=%4", "it does not follow RFC 7512"),
            ("pkcs11:token=%zz", "it does not follow RFC 7512"),
            ("pkcs11:token=%ff", "it does not follow RFC 7512"),
            ("pkcs11:token=a", "it lacks `?module-path=`, the library that speaks with the token"),
            ("pkcs11:token=a;token=b", "its attribute `token` is there twice"),
            ("pkcs11:type=cert", "its attribute `type` is not `private`"),
            ("pkcs11:slot-id=1", "its attribute `slot-id` is not known here"),
            (
                "pkcs11:?pin-value=1234",
                "its attribute `pin-value` shows the PIN to everybody; write it to a file, `pin-source`",
            ),
        ] {
            assert_eq!(text.parse::<Uri>().expect_err(text).to_string(), reason, "{text}");
        }
    }
}
