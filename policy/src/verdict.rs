//! What a rule answers.

/// Yes, or no with everything that a user needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Allow,
    /// Not allowed.
    Deny {
        /// Stable identifier of the rule, for audit lines and tests.
        rule: &'static str,
        /// What was refused and why, in the words that users find on the web.
        message: String,
        /// What can be done instead.
        remedy: &'static str,
    },
}

impl Verdict {
    /// This one, or what `next` says where nothing speaks against it.
    #[must_use]
    pub fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Allow => next(),
            denied => denied,
        }
    }

    /// The identifier of the rule that denied.
    #[must_use]
    pub fn denied_by(&self) -> Option<&'static str> {
        match self {
            Self::Allow => None,
            Self::Deny { rule, .. } => Some(rule),
        }
    }
}
