//! What the user sees on stderr: stages with seconds, a progress bar on a terminal, warnings, and with `--verbose`
//! every program that is run. stdout belongs to data.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where messages go and how much of them there is.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    terminal: bool,
    colour: bool,
    level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Silent,
    Normal,
    Verbose,
}

impl Ui {
    /// Messages on stderr; `verbose` adds the programs that are run. Colour needs a terminal and no `NO_COLOR`.
    #[must_use]
    pub fn on_stderr(verbose: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, colour, level: if verbose { Level::Verbose } else { Level::Normal } }
    }

    /// No messages at all, for tests.
    #[must_use]
    pub fn silent() -> Self {
        Self { terminal: false, colour: false, level: Level::Silent }
    }

    /// Starts a stage of long work. It reports when [`Stage::done`] is called.
    #[must_use]
    pub fn stage(&self, name: &str) -> Stage {
        let bar = self.terminal.then(|| {
            let style = ProgressStyle::with_template("  {spinner} {prefix} {wide_bar} {msg} {elapsed}")
                .expect("the template is a constant that indicatif parses");
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Stage { ui: *self, name: name.to_owned(), started: Instant::now(), bar }
    }

    /// Something abnormal and harmless.
    pub fn warn(&self, text: &str) {
        self.line(Level::Normal, &format!("{} {text}", self.paint("33", "warning:")));
    }

    /// A plain line.
    pub fn note(&self, text: &str) {
        self.line(Level::Normal, text);
    }

    /// A line for `--verbose`.
    pub fn debug(&self, text: &str) {
        self.line(Level::Verbose, &format!("debug: {text}"));
    }

    /// Wraps `text` in an ANSI colour where colour is wanted. Colour is never the only sign.
    #[must_use]
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn line(&self, level: Level, text: &str) {
        if self.level >= level {
            // A closed stderr must not end the work that it would have told of.
            drop(writeln!(io::stderr(), "{text}"));
        }
    }
}

/// A stage of long work, shown while it runs on a terminal and as one line when it is done.
#[derive(Debug)]
pub struct Stage {
    ui: Ui,
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Stage {
    /// How far it is: `done` of `total` units of whatever the stage counts.
    pub fn progress(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// What it is busy with.
    pub fn message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Ends the stage with a line: name, seconds, and a detail such as a size.
    pub fn done(self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mark = self.ui.paint("32", "ok");
        let seconds = self.started.elapsed().as_secs_f64();
        self.ui.note(&format!("  {mark} {:<24} {seconds:>7.1} s  {detail}", self.name));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Text of the VM for people. What a container or an image brought along must not command the terminal, or turn the order of a line
/// around: control characters other than tab and newline, and Unicode's directional ones (UAX #9, table 2), become U+FFFD.
#[must_use]
pub fn printable(text: &str) -> String {
    let commands = |char: char| {
        (char.is_control() && !matches!(char, '\n' | '\t'))
            || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if commands(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// A size for people: bytes to one decimal in binary units.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if tenths < 10 * 1024 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::human_size;

    #[test]
    fn sizes_have_one_decimal_and_a_binary_unit() {
        assert_eq!(human_size(1023), "1023 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(72 << 20), "72.0 MiB");
        assert_eq!(human_size(u64::MAX), "1677721.5 TiB");
    }
}
