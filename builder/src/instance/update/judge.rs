//! Whether an image may follow what an instance runs.

use eci_contract::manifest::Manifest;
use eci_contract::version::is_at_least;

/// Why it may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is another product, or for another machine.
    #[error("the update's {what} is `{found}`, and the instance's `{expected}`")]
    Other {
        /// Which field.
        what: &'static str,
        /// The update's.
        found: String,
        /// The instance's.
        expected: String,
    },
    /// The instance allows nothing so old.
    #[error("version {version} is older than {minimum}, the oldest that version {by} allows")]
    TooOld {
        /// The update's version.
        version: String,
        /// The least.
        minimum: String,
        /// The version that says so.
        by: String,
    },
}

/// What to do with an update that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new.
    BringIn,
    /// The instance runs this very image.
    IsThere,
}

/// Compares an update with the proven images of an instance, of which the one that it boots comes first.
///
/// # Errors
/// [`Refusal`].
pub fn judge(update: &Manifest, proven: &[Manifest]) -> Result<Verdict, Refusal> {
    let Some(present) = proven.first() else { return Ok(Verdict::BringIn) };
    let fields = [
        ("name", update.name.as_str(), present.name.as_str()),
        ("architecture", update.architecture.as_str(), present.architecture.as_str()),
    ];
    if let Some((what, found, expected)) = fields.into_iter().find(|(_, found, expected)| found != expected) {
        let (found, expected) = (found.to_owned(), expected.to_owned());
        return Err(Refusal::Other { what, found, expected });
    }
    for manifest in proven {
        match &manifest.minimum_version {
            Some(minimum) if !is_at_least(&update.version, minimum) => {
                return Err(Refusal::TooOld {
                    version: update.version.clone(),
                    minimum: minimum.clone(),
                    by: manifest.version.clone(),
                });
            }
            _ => {}
        }
    }
    // The manifest has kernel and initrd by digest, so that equal ones mean equal machines.
    Ok(if update == present { Verdict::IsThere } else { Verdict::BringIn })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::tests::example;

    fn version(version: &str, minimum: Option<&str>) -> Manifest {
        Manifest { version: version.into(), minimum_version: minimum.map(str::to_owned), ..example() }
    }

    #[test]
    fn any_version_follows_another_where_there_is_no_minimum() {
        assert_eq!(judge(&version("2", None), &[version("1", None)]), Ok(Verdict::BringIn));
        assert_eq!(judge(&version("1", None), &[version("2", None)]), Ok(Verdict::BringIn));
        assert_eq!(judge(&version("1", None), &[version("1", None)]), Ok(Verdict::IsThere));
    }

    #[test]
    fn nothing_below_the_minimum_of_any_proven_image_follows() {
        let proven = [version("2", Some("1.5")), version("1.9", Some("1.6"))];
        assert_eq!(judge(&version("1.6", None), &proven), Ok(Verdict::BringIn));
        let error = judge(&version("1.5.9", None), &proven).expect_err("too old");
        assert_eq!(error.to_string(), "version 1.5.9 is older than 1.6, the oldest that version 1.9 allows");
    }

    #[test]
    fn another_product_does_not_follow() {
        let other = Manifest { name: "eci-test".into(), ..version("2", None) };
        let error = judge(&other, &[version("1", None)]).expect_err("another name");
        assert_eq!(error.to_string(), "the update's name is `eci-test`, and the instance's `eci`");
    }
}
