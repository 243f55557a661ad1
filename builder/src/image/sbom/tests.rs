//! Contents that the tests of both renderings share.

use super::*;

pub(in crate::image) fn subject() -> Subject<'static> {
    Subject { name: "eci", version: "0.1.0", root_hash: Sha256::of(&[b"root"]) }
}

fn package(name: &str, version: &str, source: (&str, &str), licence: Option<Licence>) -> Package {
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        source: Source { name: source.0.to_owned(), version: source.1.to_owned() },
        sha256: Sha256::of(&[name.as_bytes()]),
        licence,
    }
}

pub(in crate::image) fn contents() -> Contents {
    let file = |path, package| File::read(path, package, path.as_bytes()).expect("a slice reads");
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                     Files: *\nLicense: own\n Do what you like.\n";
    let licence = Licence::of_copyright("crun", copyright);
    Contents {
        packages: vec![
            package("libstdc++6", "1:14.2~rc1+b1-2", ("gcc-14", "14.2-2"), None),
            package("crun", "1.21-1", ("crun", "1.21-1"), licence),
        ],
        built: vec![
            Built::program("eci-init", Sha256::of(&[b"init"])),
            Built {
                name: "linux".to_owned(),
                version: Some("6.12".to_owned()),
                sha256: Sha256::of(&[b"linux"]),
                licence: None,
                from: Some("crun".to_owned()),
            },
        ],
        files: vec![
            file("/usr/sbin/init", Some("eci-init")),
            file("/usr/libexec/eci/crun", Some("crun")),
            file("/etc/hosts", None),
        ],
    }
}

/// The same in another order.
pub(super) fn reversed() -> Contents {
    let mut other = contents();
    other.packages.reverse();
    other.built.reverse();
    other.files.reverse();
    other
}

#[test]
fn a_file_of_a_package_that_is_not_listed_is_the_image_s() {
    let mut contents = contents();
    contents.packages.clear();
    assert_eq!(contents.files_of(None).count(), 2);
    assert_eq!(contents.files_of(Some("eci-init")).count(), 1);
}

#[test]
fn a_package_url_tells_version_and_release() {
    for package in contents().packages {
        assert_eq!(version_of(&package.url()), Some(package.version.clone()));
        assert_eq!(release_of(&package.url()), Some(SUITE));
    }
    assert_eq!((version_of("pkg:deb/x"), release_of("pkg:deb/x?arch=amd64")), (None, None));
    assert_eq!(percent_decode("a%3A%zz%é%4"), "a:%zz%é%4");
}
