//! How often the same may be written down: who can have something refused at will must not drive what others were refused out of the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in a minute, and each message once.
const MOST_IN_WINDOW: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// What was written down lately.
#[derive(Debug, Default)]
pub struct Limit(Mutex<HashMap<String, Instant>>);

impl Limit {
    /// Whether a line with this message may be written, which is taken for done.
    pub fn lets_through(&self, message: &str, now: Instant) -> bool {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, since| now.duration_since(*since) < WINDOW);
        let may = written.len() < MOST_IN_WINDOW && !written.contains_key(message);
        if may {
            written.insert(message.to_owned(), now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_once_a_minute_and_not_many_are() {
        let limit = Limit::default();
        let now = Instant::now();
        assert!(limit.lets_through("a", now));
        assert!(!limit.lets_through("a", now + WINDOW / 2));
        assert!(limit.lets_through("a", now + WINDOW));
        let more = (0..100).filter(|n| limit.lets_through(&n.to_string(), now + WINDOW)).count();
        assert_eq!(more, MOST_IN_WINDOW - 1);
    }
}
