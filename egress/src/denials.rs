//! What was refused: a line of the log, and one of the audit log.
//!
//! The engine tries again by itself, and whoever has it pull can name any host: so [`Limit`] says how often.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use eci_audit::limit::Limit;
use eci_audit::time::rfc3339;
use eci_contract::audit::{self, Denial, OF_ENGINE};
use eci_service::log::{self, Level};

/// What one request was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Method and host.
    pub action: String,
    /// The rule.
    pub rule: &'static str,
    /// What the engine was told.
    pub message: String,
    /// What can be done instead.
    pub remedy: &'static str,
}

/// Refusals that were written down.
#[derive(Debug, Default)]
pub struct Denials {
    /// The audit log; none in tests.
    log: Option<PathBuf>,
    limit: Limit,
}

impl Denials {
    /// Has them written to this audit log.
    #[must_use]
    pub fn in_log(log: &Path) -> Self {
        Self { log: Some(log.to_owned()), ..Self::default() }
    }

    /// Writes one down, unless that was done already or there were many.
    pub fn write_down(&self, refused: Refused) {
        let Some(message) = self.limit.line(&refused.message, Instant::now()) else { return };
        let Refused { action, rule, remedy, .. } = refused;
        log::line(Level::Warn, &format!("refused: {action}: {message}"));
        let Some(log) = &self.log else { return };
        let denial = Denial {
            version: audit::VERSION,
            time: rfc3339(SystemTime::now()),
            by: env!("CARGO_PKG_NAME").to_owned(),
            action,
            container: OF_ENGINE.to_owned(),
            image: None,
            rule: rule.to_owned(),
            message,
            remedy: remedy.to_owned(),
        };
        if let Err(error) = eci_audit::append(log, denial) {
            log::failure(Level::Warn, "cannot write the audit log", &error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_line_of_the_audit_log_and_again_none() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("eci/audit.jsonl");
        let denials = Denials::in_log(&log);
        let refused = Refused {
            action: "CONNECT a.example:443".to_owned(),
            rule: "r",
            message: "m".to_owned(),
            remedy: "x",
        };
        denials.write_down(refused.clone());
        denials.write_down(refused);
        let text = std::fs::read_to_string(log).unwrap();
        let denial: Denial = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (denial.by.as_str(), denial.action.as_str(), denial.container.as_str()),
            ("eci-egress", "CONNECT a.example:443", "engine")
        );
    }
}
