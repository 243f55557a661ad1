//! An archive reads back to its parts; one that differs in anything is refused, whatever its members' contents are.

use std::fs;

use super::*;

struct Sample {
    folder: tempfile::TempDir,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join("root"), [7; 8192]).expect("root");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn written(&self, name: &str) -> PathBuf {
        let root = self.path("root");
        let parts = Parts {
            name: "eci",
            init: b"PID 1",
            key: &[9; 32],
            manifest: b"{}",
            signature: &[3; 64],
            root: &root,
            tree: &[1; 4096],
        };
        let to = self.path(name);
        write(&parts, &to).expect("written");
        to
    }

    fn tar(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let original = self.written("original");
        let file = BufReader::new(File::open(&original).expect("archive"));
        GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
        fs::remove_file(original).expect("it is there");
        bytes
    }

    /// What reading an archive of this tar says.
    fn refusal(&self, tar: &[u8]) -> String {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(tar).expect("compressed");
        fs::write(self.path("changed"), encoder.finish().expect("compressed")).expect("written");
        let error = open(&self.path("changed")).expect_err("it differs");
        eci_contract::errors::chain(&error).replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// Position of the header of a member.
fn header_of(tar: &[u8], path: &str) -> usize {
    let mut name = path.as_bytes().to_vec();
    name.push(0);
    (0..tar.len()).step_by(512).find(|at| tar[*at..].starts_with(&name)).expect("the member is there")
}

fn sum(header: &mut [u8]) {
    let mut copy = Header::new_ustar();
    copy.as_mut_bytes().copy_from_slice(header);
    copy.set_cksum();
    header.copy_from_slice(copy.as_bytes());
}

#[test]
fn equal_parts_give_equal_bytes_and_read_back() {
    let sample = Sample::new();
    let (one, two) = (sample.written("one"), sample.written("two"));
    assert_eq!(fs::read(&one).expect("one"), fs::read(&two).expect("two"));
    let opened = open(&one).expect("our own");
    let parts = opened.parts().expect("whole");
    assert_eq!((parts.name, parts.init, parts.manifest), ("eci", &b"PID 1"[..], &b"{}"[..]));
    assert_eq!(fs::read(parts.root).expect("root"), [7; 8192]);
}

#[test]
fn other_programs_see_folders_links_and_owners() {
    let sample = Sample::new();
    let listing = std::process::Command::new("tar").args(["-tvzf"]).arg(sample.written("one")).output();
    let listing = String::from_utf8(listing.expect("tar is everywhere").stdout).expect("text");
    let lines: Vec<_> = listing.lines().collect();
    assert_eq!(lines.len(), MEMBERS.len(), "{listing}");
    assert!(lines.iter().all(|line| line.contains(" 0/0 ")), "{listing}");
    assert!(listing.contains("usr/bin/systemctl -> ../sbin/init"), "{listing}");
    assert!(lines.iter().any(|line| line.starts_with("-rwxr-xr-x") && line.ends_with("usr/sbin/init")));
}

#[test]
fn a_member_that_is_added_missing_or_elsewhere_is_named() {
    let sample = Sample::new();
    let tar = sample.tar();
    let mut added = tar::Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_path("etc/shadow").expect("short");
    header.set_size(0);
    header.set_cksum();
    added.append(&header, io::empty()).expect("appended");
    let entry = added.into_inner().expect("tar");
    let end = header_of(&tar, "var/run") + 512;
    let more = [&tar[..end], &entry[..512], &tar[end..]].concat();
    assert_eq!(sample.refusal(&more), "`changed` is no archive of ours: `etc/shadow` is one member too many");
    let first = [&entry[..512], &tar[..]].concat();
    assert_eq!(
        sample.refusal(&first),
        "`changed` is no archive of ours: `etc/shadow` is where `bin` should be"
    );
    let fewer = [&tar[..end - 512], &tar[end..]].concat();
    assert_eq!(sample.refusal(&fewer), "`changed` is no archive of ours: `var/run` is missing");
}

#[test]
fn other_metadata_and_other_settings_are_refused() {
    let sample = Sample::new();
    // A set-user-id bit, another owner, another time, another link.
    for (path, at, value) in [
        ("usr/sbin/init", 100, &b"0004755\0"[..]),
        ("usr/sbin/init", 108, b"0000001\0"),
        ("etc/passwd", 136, b"00000000001\0"),
        ("usr/bin/sh", 157, b"../bin/init\0"),
    ] {
        let mut tar = sample.tar();
        let header = header_of(&tar, path);
        tar[header + at..header + at + value.len()].copy_from_slice(value);
        sum(&mut tar[header..header + 512]);
        let said = sample.refusal(&tar);
        assert!(said.ends_with("a member's metadata, or what is between members, differs"), "{path}: {said}");
    }
    let mut tar = sample.tar();
    let content = header_of(&tar, "etc/wsl.conf") + 512;
    tar[content] = b';';
    assert_eq!(sample.refusal(&tar), "`changed` is no archive of ours: `etc/wsl.conf` differs");
    let mut tar = sample.tar();
    let content = header_of(&tar, "etc/wsl-distribution.conf") + 512;
    tar[content] = b';';
    assert!(sample.refusal(&tar).contains("differs"));
}

#[test]
fn what_follows_the_archive_is_refused() {
    let sample = Sample::new();
    let mut tar = sample.tar();
    tar.extend([1; 512]);
    assert!(sample.refusal(&tar).ends_with("what is between members, differs"));
    let mut twice = fs::read(sample.written("once")).expect("archive");
    twice.extend(fs::read(sample.path("once")).expect("archive"));
    fs::write(sample.path("twice"), twice).expect("written");
    let error = open(&sample.path("twice")).expect_err("two archives");
    assert!(error.to_string().ends_with("something follows the archive"), "{error}");
    fs::write(sample.path("cut"), &fs::read(sample.path("once")).expect("archive")[..200]).expect("written");
    assert!(open(&sample.path("cut")).is_err());
}
