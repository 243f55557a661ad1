//! How an error is told on one line: in a log, in a reply, in the detail of a check.

use std::error::Error;

/// An error and its causes, outermost first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Lid(io::Error);

    impl fmt::Display for Lid {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("cannot open the lid")
        }
    }

    impl Error for Lid {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn causes_follow_the_error_that_they_caused() {
        let error = Lid(io::ErrorKind::NotFound.into());
        assert_eq!(chain(&error), "cannot open the lid: entity not found");
    }
}
