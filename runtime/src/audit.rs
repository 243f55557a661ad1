//! What a rule refused, for the audit log.
//!
//! Invariant: that a line cannot be written changes nothing of the refusal.

use std::path::Path;
use std::time::SystemTime;

use eci_audit::time::rfc3339;
use eci_contract::audit::{Denial, VERSION};
use eci_contract::paths::AUDIT_LOG;

use crate::image::Image;
use crate::log;

/// A rule says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// The rule.
    pub rule: &'static str,
    /// What the user is told.
    pub message: String,
    /// What can be done instead.
    pub remedy: &'static str,
}

impl Denied {
    /// Writes it down.
    pub fn record(&self, action: &str, container: &str) {
        let denial = Denial {
            version: VERSION,
            time: rfc3339(SystemTime::now()),
            by: env!("CARGO_PKG_NAME").to_owned(),
            action: action.to_owned(),
            container: container.to_owned(),
            image: Image::of(container).map(|image| image.name),
            rule: self.rule.to_owned(),
            message: self.message.clone(),
            remedy: self.remedy.to_owned(),
        };
        if let Err(error) = eci_audit::append(Path::new(AUDIT_LOG), denial) {
            log::warn(&format!("cannot write the audit log `{AUDIT_LOG}`: {error}"));
        }
    }
}
