//! Keys that mean something to PID 1: the power button and ctrl-alt-del. There is no virtual terminal that could
//! turn them into anything else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// `struct input_event` on 64-bit machines: two 64-bit times, then type, code and value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;

const KEY_POWER: u16 = 116;
const CONTROL_KEYS: [u16; 2] = [29, 97];
const ALT_KEYS: [u16; 2] = [56, 100];
const DELETE_KEYS: [u16; 2] = [111, 83];

/// An open input device and the keys that are down on it.
#[derive(Debug)]
pub struct Keys {
    file: File,
    pressed: Pressed,
}

/// What somebody asked for by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The power button.
    PowerButton,
    /// Ctrl-alt-del.
    CtrlAltDel,
}

/// Opens every input device. One that cannot be opened has no keys for us.
#[must_use]
pub fn open_all() -> Vec<Keys> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let entries = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    let events = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("event"));
    let files =
        events.filter_map(|entry| File::options().read(true).custom_flags(flags).open(entry.path()).ok());
    files.map(|file| Keys { file, pressed: Pressed::default() }).collect()
}

impl Keys {
    /// Reads what happened; gives the first wish in it.
    pub fn read(&mut self) -> Option<Wish> {
        let mut buffer = [0; EVENT_BYTES * 32];
        let length = self.file.read(&mut buffer).unwrap_or(0);
        let events = buffer.get(..length).unwrap_or_default().chunks_exact(EVENT_BYTES);
        let mut wish = None;
        for event in events {
            wish = wish.or(self.pressed.update(event));
        }
        wish
    }
}

impl AsFd for Keys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[derive(Debug, Default)]
struct Pressed(BTreeSet<u16>);

impl Pressed {
    fn update(&mut self, event: &[u8]) -> Option<Wish> {
        let half = |at: usize| Some(u16::from_ne_bytes(event.get(at..at + 2)?.try_into().ok()?));
        let (kind, code) = (half(16)?, half(18)?);
        let down = event.get(20..24)?.iter().any(|byte| *byte != 0);
        if kind != EV_KEY {
            return None;
        }
        if !down {
            self.0.remove(&code);
            return None;
        }
        self.0.insert(code);
        let held = |keys: [u16; 2]| keys.iter().any(|key| self.0.contains(key));
        if code == KEY_POWER {
            Some(Wish::PowerButton)
        } else if held(CONTROL_KEYS) && held(ALT_KEYS) && held(DELETE_KEYS) {
            Some(Wish::CtrlAltDel)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        [&[0; 16][..], &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    fn press(pressed: &mut Pressed, code: u16) -> Option<Wish> {
        pressed.update(&event(EV_KEY, code, 1))
    }

    #[test]
    fn the_three_keys_count_only_while_all_are_down() {
        let mut pressed = Pressed::default();
        assert_eq!(press(&mut pressed, 29), None);
        assert_eq!(press(&mut pressed, 100), None);
        pressed.update(&event(EV_KEY, 29, 0));
        assert_eq!(press(&mut pressed, 111), None);
        assert_eq!(press(&mut pressed, 97), Some(Wish::CtrlAltDel));
    }

    #[test]
    fn the_power_button_counts_when_pressed_not_when_released() {
        let mut pressed = Pressed::default();
        assert_eq!(press(&mut pressed, KEY_POWER), Some(Wish::PowerButton));
        assert_eq!(pressed.update(&event(EV_KEY, KEY_POWER, 0)), None);
    }

    #[test]
    fn letters_and_other_events_mean_nothing() {
        let mut pressed = Pressed::default();
        assert_eq!(press(&mut pressed, 30), None);
        assert_eq!(pressed.update(&event(2, KEY_POWER, 1)), None);
        assert_eq!(pressed.update(&[1, 2, 3]), None);
    }
}
