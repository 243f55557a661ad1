//! How often the same may be written down: who can have something refused at will must not drive what others were refused out of the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in a minute, and each message once.
const MOST_IN_WINDOW: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// What the last line of its minute has at its end, so that who reads the log knows that there was more.
pub const LEFT_OUT: &str = " (more that is refused in this minute is left out)";

/// What was written down lately.
#[derive(Debug, Default)]
pub struct Limit(Mutex<HashMap<String, Instant>>);

impl Limit {
    /// The message that a line may be written with, which is taken for done; `None` when there is to be no line. The last one of its time says
    /// so.
    pub fn line(&self, message: &str, now: Instant) -> Option<String> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, since| now.duration_since(*since) < WINDOW);
        if written.len() >= MOST_IN_WINDOW || written.contains_key(message) {
            return None;
        }
        written.insert(message.to_owned(), now);
        let end = if written.len() == MOST_IN_WINDOW { LEFT_OUT } else { "" };
        Some(format!("{message}{end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_once_a_minute_and_not_many_are() {
        let limit = Limit::default();
        let now = Instant::now();
        assert_eq!(limit.line("a", now).as_deref(), Some("a"));
        assert_eq!(limit.line("a", now + WINDOW / 2), None);
        assert_eq!(limit.line("a", now + WINDOW).as_deref(), Some("a"));
        let more: Vec<_> = (0..100).filter_map(|n| limit.line(&n.to_string(), now + WINDOW)).collect();
        assert_eq!(more.len(), MOST_IN_WINDOW - 1);
        let (last, others) = more.split_last().unwrap();
        assert!(last.ends_with(LEFT_OUT), "{last}");
        assert!(others.iter().all(|line| !line.ends_with(LEFT_OUT)));
    }
}
