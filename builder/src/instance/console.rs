//! What the guest said last, for errors.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::ui::printable;

/// Bytes of the console log that are looked at; a failed boot says why in its last lines.
const TAIL_BYTES: u64 = 16 * 1024;
/// Lines that an error shows when the guest gave no reason.
const SHOWN_LINES: usize = 8;
/// How `eci-init` starts the line with its reason for not going on.
const REFUSED: &str = "boot refused: ";
/// How the kernel starts the line of a panic, which is how dm-verity stops the machine. A trace follows it.
const PANIC: &str = "Kernel panic - not syncing: ";
/// How device-mapper starts the line that says which block is bad.
const VERITY: &str = "device-mapper: verity: ";

/// The reason that PID 1 or the kernel gave for not going on, or the console's last lines; empty when it printed
/// nothing.
#[must_use]
pub fn last_words(console: &Path) -> String {
    // A console that cannot be read has no last words; the error it would have explained is reported anyway.
    tail(console).map(|text| explain(&text)).unwrap_or_default()
}

fn tail(console: &Path) -> io::Result<String> {
    let mut file = File::open(console)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn explain(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
    let last = |start: &str| {
        lines
            .iter()
            .rev()
            .find_map(|line| line.find(start).map(|at| line.get(at..).unwrap_or_default().trim_end()))
    };
    match (last(REFUSED), last(PANIC), last(VERITY)) {
        (Some(refused), ..) => return refused.to_owned(),
        (None, Some(panic), Some(block)) => return format!("{panic}\n    {block}"),
        (None, Some(panic), None) => return panic.to_owned(),
        (None, None, _) => {}
    }
    let first = lines.len().saturating_sub(SHOWN_LINES);
    lines[first..].join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refused_boot_is_found() {
        let text = "[    1.0] a\r\n[    1.2] eci-init: boot refused: root hash differs\r\n[    1.3] reboot: Power down\r\n";
        assert_eq!(explain(text), "boot refused: root hash differs");
    }

    #[test]
    fn a_panic_is_found_above_its_trace_with_the_block_that_caused_it() {
        let trace: String =
            (0..60).map(|line| format!("[    1.7]  ? function_{line}+0x0/0x10\r\n")).collect();
        let panic = "[    1.6] Kernel panic - not syncing: dm-verity device corrupted\r\n";
        let block = "[    1.6] device-mapper: verity: 254:1: data block 0 is corrupted\r\n";
        assert_eq!(
            explain(&format!("{block}{panic}{trace}[    1.9] Rebooting in 1 seconds..")),
            "Kernel panic - not syncing: dm-verity device corrupted\n    \
             device-mapper: verity: 254:1: data block 0 is corrupted"
        );
        assert_eq!(
            explain(&format!("{panic}{trace}")),
            "Kernel panic - not syncing: dm-verity device corrupted"
        );
    }

    #[test]
    fn without_a_reason_the_last_lines_are_shown_and_cannot_move_the_cursor() {
        let text: String = (0..20).map(|line| format!("\u{1b}[2Jline {line}\n\n")).collect();
        let shown = explain(&text);
        assert!(shown.starts_with("\u{fffd}[2Jline 12\n") && shown.ends_with("line 19"), "{shown:?}");
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn a_silent_console_has_no_last_words() {
        assert_eq!(last_words(Path::new("/nonexistent")), "");
    }
}
