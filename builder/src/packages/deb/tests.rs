use std::fs;

use tar::{Builder, Header};

use super::*;

/// What a crafted package has: a raw name, which the tar writer would not take if it climbs, a type, and the rest.
pub(crate) struct Crafted<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) content: &'a [u8],
    pub(crate) target: &'a str,
    pub(crate) attribute: bool,
}

impl<'a> Crafted<'a> {
    /// An ordinary program.
    pub(crate) fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self { name, kind: EntryType::Regular, mode: 0o755, content, target: "", attribute: false }
    }

    /// A link of either kind.
    pub(crate) fn link(name: &'a str, kind: EntryType, target: &'a str) -> Self {
        Self { kind, target, ..Self::file(name, b"") }
    }
}

/// Writes a package with these entries.
pub(crate) fn craft(path: &Path, entries: &[Crafted<'_>]) {
    let mut tar = Builder::new(Vec::new());
    for entry in entries {
        if entry.attribute {
            tar.append_pax_extensions([("SCHILY.xattr.security.capability", &b"x"[..])]).expect("extension");
        }
        let mut header = Header::new_gnu();
        header.as_gnu_mut().expect("a GNU header").name[..entry.name.len()]
            .copy_from_slice(entry.name.as_bytes());
        if !entry.target.is_empty() {
            header.set_link_name_literal(entry.target).expect("a short target");
        }
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.content.len().try_into().expect("a short file"));
        header.set_cksum();
        tar.append(&header, entry.content).expect("entry");
    }
    let data = tar.into_inner().expect("tar");
    let mut compressed = Vec::new();
    xz2::read::XzEncoder::new(data.as_slice(), 0).read_to_end(&mut compressed).expect("xz");
    let mut frame = ar::Builder::new(fs::File::create(path).expect("package"));
    for (name, content) in [(&b"debian-binary"[..], &b"2.0\n"[..]), (b"data.tar.xz", &compressed)] {
        let size = content.len().try_into().expect("a short member");
        frame.append(&ar::Header::new(name.to_vec(), size), content).expect("member");
    }
}

fn read(entries_of: &[Crafted<'_>]) -> Result<Vec<Entry>, Error> {
    let home = tempfile::tempdir().expect("temporary folder");
    let path = home.path().join("a.deb");
    craft(&path, entries_of);
    let mut found = Vec::new();
    entries(&path, |entry, _| {
        found.push(entry);
        Ok::<(), Error>(())
    })?;
    Ok(found)
}

#[test]
fn entries_come_with_plain_absolute_paths() {
    let found = read(&[
        Crafted { kind: EntryType::Directory, ..Crafted::file("./", b"") },
        Crafted::file("./usr/bin/a", b"abc"),
        Crafted::link("./usr/bin/b", EntryType::Symlink, "a"),
    ])
    .expect("sound");
    let paths: Vec<&str> = found.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["/", "/usr/bin/a", "/usr/bin/b"]);
    assert_eq!(found[1].kind, Kind::File(3));
    assert_eq!(found[2].kind, Kind::Symlink("a".to_owned()));
}

#[test]
fn names_that_climb_or_are_absolute_refuse_the_package() {
    for name in ["../etc/passwd", "./usr/../../etc/passwd", "/etc/passwd"] {
        let error = read(&[Crafted::file(name, b"x")]).expect_err("it leaves the root");
        assert!(error.to_string().ends_with(&format!("an entry with the name `{name}`")), "{error}");
    }
}

#[test]
fn device_nodes_and_hard_links_are_told_apart_from_files() {
    let found = read(&[
        Crafted { kind: EntryType::Block, ..Crafted::file("./dev/sda", b"") },
        Crafted { kind: EntryType::Fifo, ..Crafted::file("./run/pipe", b"") },
        Crafted::link("./usr/bin/b", EntryType::Link, "./usr/bin/a"),
    ])
    .expect("readable");
    let kinds: Vec<&Kind> = found.iter().map(|entry| &entry.kind).collect();
    assert_eq!(kinds, [&Kind::Special, &Kind::Special, &Kind::HardLink]);
}

#[test]
fn special_bits_and_attributes_are_seen() {
    let found = read(&[
        Crafted { mode: 0o4755, ..Crafted::file("./usr/bin/su", b"") },
        Crafted { attribute: true, ..Crafted::file("./usr/bin/ping", b"") },
    ])
    .expect("readable");
    assert_eq!((found[0].mode, found[0].attributes), (0o4755, false));
    assert_eq!((found[1].mode, found[1].attributes), (0o755, true));
}

#[test]
fn a_file_that_is_no_package_is_named() {
    let home = tempfile::tempdir().expect("temporary folder");
    let path = home.path().join("a.deb");
    fs::write(&path, "!<arch>\n").expect("file");
    let error = entries(&path, |_, _| Ok::<(), Error>(())).expect_err("no data");
    assert!(matches!(error, Error::NoData { .. }), "{error}");
}

#[test]
fn one_file_is_read_by_its_path() {
    let home = tempfile::tempdir().expect("temporary folder");
    let path = home.path().join("a.deb");
    craft(&path, &[Crafted::file("./usr/a", b"first"), Crafted::file("./usr/b", b"second")]);
    assert_eq!(file(&path, "/usr/b").expect("sound"), Some(b"second".to_vec()));
    assert_eq!(file(&path, "/usr/c").expect("sound"), None);
}
