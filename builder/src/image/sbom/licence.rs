//! What a package's copyright file says of its licences, where a machine can read it (DEP-5), as an SPDX expression.
//!
//! Formats: <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/> and
//! <https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>. The crate `debian-copyright` was weighed: it keeps the
//! text to edit it, on top of a syntax tree, and knows no SPDX; two kinds of paragraphs need neither.

use std::collections::{BTreeMap, BTreeSet};

/// The first line of a file that a machine can read, but for the protocol.
const FORMAT: &str = "www.debian.org/doc/packaging-manuals/copyright-format/1.0";

/// Debian's short names, in lower case, of licences whose text SPDX has, too. Names that stand for many texts (`custom`,
/// `public-domain`) are not here.
const KNOWN: [(&str, &str); 46] = [
    ("0bsd", "0BSD"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsl-1.0", "BSL-1.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("expat", "MIT"),
    ("fsfap", "FSFAP"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("gpl", "GPL-1.0-or-later"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2 with linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-2.0+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("gpl-3.0+", "GPL-3.0-or-later"),
    ("isc", "ISC"),
    ("lgpl", "LGPL-2.0-or-later"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.0", "LGPL-2.0-only"),
    ("lgpl-2.0+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("mit", "MIT"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("openssl", "OpenSSL"),
    ("psf-2", "PSF-2.0"),
    ("python-2.0", "Python-2.0"),
    ("unicode-dfs-2016", "Unicode-DFS-2016"),
    ("unlicense", "Unlicense"),
    ("x11", "X11"),
    ("zlib", "Zlib"),
    ("zpl-2.1", "ZPL-2.1"),
];

/// The licences of a source package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Licence {
    /// An SPDX expression: all licences of the source's files, joined by AND. A `LicenseRef-…` in it is in `texts`.
    pub expression: String,
    /// Licences that SPDX has no name for, by their `LicenseRef-…`.
    pub texts: BTreeMap<String, Text>,
}

/// A licence that SPDX has no name for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Debian's name.
    pub name: String,
    /// What the copyright file says; not empty.
    pub text: String,
}

impl Licence {
    /// A licence that SPDX knows.
    #[must_use]
    pub fn known(expression: &str) -> Self {
        Self { expression: expression.to_owned(), texts: BTreeMap::new() }
    }

    /// The licences of the source package `source` by its copyright file; `None` where a machine cannot read that, or where
    /// it names none.
    #[must_use]
    pub fn of_copyright(source: &str, copyright: &str) -> Option<Self> {
        let paragraphs = paragraphs(copyright);
        let (first, _) = paragraphs.first()?.get("format")?;
        if !first.contains(FORMAT) {
            return None;
        }
        let mut texts: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, text) in paragraphs.iter().filter_map(|paragraph| paragraph.get("license")) {
            if !text.is_empty() {
                texts.entry(name).or_insert(text);
            }
        }
        let mut licence = Self::default();
        let mut parts = BTreeSet::new();
        let of_files = paragraphs.iter().filter(|paragraph| paragraph.contains_key("files"));
        for (name, _) in of_files.filter_map(|paragraph| paragraph.get("license")) {
            parts.extend(licence.parts(source, name, &texts));
        }
        licence.expression = parts.into_iter().collect::<Vec<_>>().join(" AND ");
        (!licence.expression.is_empty()).then_some(licence)
    }

    /// All of what a synopsis such as `GPL-2+ or Expat` asks for; `and` binds closer than `or`, in SPDX as well. What a comma
    /// changes is left as it is.
    fn parts(&mut self, source: &str, synopsis: &str, texts: &BTreeMap<&str, &str>) -> Vec<String> {
        if synopsis.is_empty() {
            return Vec::new();
        }
        if synopsis.contains(',') {
            return vec![self.atom(source, synopsis, synopsis, texts)];
        }
        let mut all = |part: &str| -> Vec<String> {
            part.split(" and ").map(|name| self.atom(source, name.trim(), synopsis, texts)).collect()
        };
        if !synopsis.contains(" or ") {
            return all(synopsis);
        }
        let either: Vec<_> = synopsis.split(" or ").map(|part| all(part).join(" AND ")).collect();
        vec![format!("({})", either.join(" OR "))]
    }

    /// One name of a synopsis; its text may stand below the synopsis as a whole.
    fn atom(&mut self, source: &str, name: &str, synopsis: &str, texts: &BTreeMap<&str, &str>) -> String {
        let lower = name.to_lowercase();
        if let Some((_, known)) = KNOWN.iter().find(|(debian, _)| *debian == lower) {
            return (*known).to_owned();
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        // One name stands for different texts in different packages.
        let id: String = format!("{source} {name}").replace('+', " plus ").chars().map(plain).collect();
        let id = format!("LicenseRef-Debian-{id}");
        let elsewhere = || format!("See the paragraph `{name}` of the package's copyright file.");
        let text = texts.get(name).or_else(|| texts.get(synopsis));
        let text = text.map_or_else(elsewhere, |text| (*text).to_owned());
        self.texts.insert(id.clone(), Text { name: name.to_owned(), text });
        id
    }
}

/// Fields by lower-case name: what stands on the field's own line, and the lines below.
type Paragraph = BTreeMap<String, (String, String)>;

/// The paragraphs of a control file (deb822(5)).
fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut paragraphs = vec![Paragraph::new()];
    let mut last = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            paragraphs.push(Paragraph::new());
            last = None;
            continue;
        }
        let Some(paragraph) = paragraphs.last_mut() else { continue };
        if let Some(more) = line.strip_prefix([' ', '\t']) {
            let field = last.as_ref().and_then(|name: &String| paragraph.get_mut(name));
            if let Some((_, text)) = field {
                text.push_str(if more.trim() == "." { "" } else { more.trim_end() });
                text.push('\n');
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.to_lowercase();
            paragraph.insert(name.clone(), (value.trim().to_owned(), String::new()));
            last = Some(name);
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
License:
 A summary that is no licence.

Files: *
Copyright: somebody
License: GPL-2+ or Expat

Files: a/*
License: Apache-2.0

Files: b/*
License: Apache-2.0 and own
 Do what
 .
 you like.

License: Expat
 Permission is hereby granted.
";

    #[test]
    fn the_licences_of_all_files_are_one_expression() {
        let licence = Licence::of_copyright("libstdc++", COPYRIGHT).expect("a machine can read it");
        assert_eq!(
            licence.expression,
            "(GPL-2.0-or-later OR MIT) AND Apache-2.0 AND LicenseRef-Debian-libstdc-plus--plus--own"
        );
        let text = &licence.texts["LicenseRef-Debian-libstdc-plus--plus--own"];
        assert_eq!((text.name.as_str(), text.text.as_str()), ("own", "Do what\n\nyou like.\n"));
        assert_eq!(licence.texts.len(), 1);
    }

    #[test]
    fn what_no_machine_can_read_has_no_licence() {
        assert_eq!(Licence::of_copyright("a", "This package was debianized by somebody.\n"), None);
        assert_eq!(Licence::of_copyright("a", &COPYRIGHT.replace("1.0/", "2.0/")), None);
        assert_eq!(Licence::of_copyright("a", &COPYRIGHT.replace("Files:", "Filed:")), None);
        assert_eq!(Licence::of_copyright("a", ""), None);
    }

    #[test]
    fn a_comma_is_left_to_people() {
        let text = COPYRIGHT.replace("GPL-2+ or Expat", "GPL-2+, and Expat");
        let licence = Licence::of_copyright("a", &text).expect("a machine can read it");
        assert!(licence.expression.contains("LicenseRef-Debian-a-GPL-2-plus---and-Expat"));
    }

    #[test]
    fn known_names_are_sorted_and_in_lower_case() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(KNOWN.iter().all(|(name, _)| *name == name.to_lowercase()));
    }
}
