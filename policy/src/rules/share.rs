//! Which folders of the host a machine may have, and where.
//!
//! Why: a share is at its own path in the VM, so a path that is the VM's would cover the VM's files; and an administrator may say which
//! folders of the host containers get to see at all.

use eci_contract::shares::{MAX_PATH, MOST, Share, TOPS};

use crate::settings::shares::Shares;

/// Why a machine does not get a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are too many.
    #[error("{count} folders are shared, and {MOST} are the most; share a folder that holds several of them")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// It is no path that means the same to everybody.
    #[error(
        "cannot share {path:?}: it is no plain absolute path of at most {MAX_PATH} bytes; rename the folder, or name it without `.` and `..`"
    )]
    NoPath {
        /// As it was given.
        path: String,
    },
    /// The VM has no place for it.
    #[error("cannot share `{path}`: shares are at their own path in the VM, and it has places below {} alone; share a folder there", TOPS.join(", "))]
    NoPlace {
        /// The path.
        path: String,
    },
    /// Two are the same, or one is in the other.
    #[error("cannot share `{path}`: it is in `{other}`, which is shared, too; share one of them")]
    Within {
        /// The path.
        path: String,
        /// The other one.
        other: String,
    },
    /// The administrator's settings name no folder that it is in.
    #[error(
        "cannot share `{path}`: the administrator's settings allow {allowed}; share one of these, or ask for another in `eci.shares.allow`"
    )]
    NotAllowed {
        /// The path.
        path: String,
        /// What they allow.
        allowed: String,
    },
    /// The settings allow it to be read.
    #[error(
        "cannot share `{path}` to be written to: the administrator's settings allow to read it; share `{path}:ro`"
    )]
    ReadOnly {
        /// The path.
        path: String,
    },
}

/// Judges where the folders would be in the VM, whatever an administrator says.
///
/// # Errors
/// The first that cannot be.
pub fn judge_places(shares: &[Share]) -> Result<(), Refusal> {
    if shares.len() > MOST {
        return Err(Refusal::TooMany { count: shares.len() });
    }
    for share in shares {
        let path = share.path.clone();
        if !is_plain(&path) {
            return Err(Refusal::NoPath { path });
        }
        if !TOPS.iter().any(|top| is_in(&path, top)) {
            return Err(Refusal::NoPlace { path });
        }
    }
    for (index, share) in shares.iter().enumerate() {
        let other =
            shares.iter().enumerate().find(|(at, other)| *at != index && is_in(&share.path, &other.path));
        if let Some((_, other)) = other {
            return Err(Refusal::Within { path: share.path.clone(), other: other.path.clone() });
        }
    }
    Ok(())
}

/// Judges them by an administrator's settings.
///
/// # Errors
/// The first that they do not allow.
pub fn judge_allowed(shares: &[Share], settings: &Shares) -> Result<(), Refusal> {
    let Some(allowed) = settings.allow.as_deref() else { return Ok(()) };
    for share in shares {
        let path = share.path.clone();
        let mut rows = allowed.iter().filter(|row| is_in(&path, &row.path)).peekable();
        if rows.peek().is_none() {
            return Err(Refusal::NotAllowed { path, allowed: named(allowed) });
        }
        if !share.read_only && rows.all(|row| row.read_only) {
            return Err(Refusal::ReadOnly { path });
        }
    }
    Ok(())
}

/// Whether a path is `folder`, or in it.
#[must_use]
pub fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is absolute, and names each folder on its way once, without what a log or a terminal would take for something else.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let component = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= MAX_PATH
        && !path.contains(char::is_control)
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(component))
}

fn named(allowed: &[Share]) -> String {
    let row = |row: &Share| format!("`{}`{}", row.path, if row.read_only { " to be read" } else { "" });
    match allowed {
        [] => "none".to_owned(),
        rows => rows.iter().map(row).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        let (path, read_only) = text.strip_suffix(":ro").map_or((text, false), |path| (path, true));
        Share { path: path.to_owned(), read_only }
    }

    fn shares(texts: &[&str]) -> Vec<Share> {
        texts.iter().map(|text| share(text)).collect()
    }

    #[test]
    fn folders_with_a_place_pass_and_their_neighbours_do_not() {
        judge_places(&shares(&["/home/a/src", "/home/a/src2:ro", "/work", "/Users/b c"])).unwrap();
        for (path, refusal) in [
            ("/etc", Refusal::NoPlace { path: "/etc".to_owned() }),
            ("/", Refusal::NoPath { path: "/".to_owned() }),
            ("/homes/a", Refusal::NoPlace { path: "/homes/a".to_owned() }),
            ("/var/lib/docker", Refusal::NoPlace { path: "/var/lib/docker".to_owned() }),
            ("home/a", Refusal::NoPath { path: "home/a".to_owned() }),
            ("/home/../etc", Refusal::NoPath { path: "/home/../etc".to_owned() }),
            ("/home//a", Refusal::NoPath { path: "/home//a".to_owned() }),
            ("/home/a/", Refusal::NoPath { path: "/home/a/".to_owned() }),
            ("/home/./a", Refusal::NoPath { path: "/home/./a".to_owned() }),
            ("/home/a\nb", Refusal::NoPath { path: "/home/a\nb".to_owned() }),
            ("", Refusal::NoPath { path: String::new() }),
        ] {
            assert_eq!(judge_places(&shares(&["/work", path])), Err(refusal), "{path}");
        }
        let long = format!("/home/{}", "x".repeat(MAX_PATH));
        assert_eq!(judge_places(&shares(&[&long])), Err(Refusal::NoPath { path: long }));
    }

    #[test]
    fn places_are_the_same_in_image_profile_and_schema() {
        let names: Vec<_> = TOPS.iter().filter_map(|top| top.strip_prefix('/')).collect();
        let folders = include_str!("../../../rootfs/folders.toml");
        assert!(TOPS.iter().all(|top| folders.contains(&format!("path = \"{top}\"\n"))));
        assert_eq!(folders.matches("folders that the host shares\"").count(), TOPS.len());
        let profile = include_str!("../../../rootfs/apparmor/dockerd");
        for kind in ["bind", "rbind"] {
            let rule = format!("  mount options=({kind}) /{{{}}}/{{,**}},\n", names.join(","));
            assert!(profile.contains(&rule), "{rule}");
        }
        let schema = include_str!("../../../settings/admin-settings.schema.json");
        assert!(schema.contains(&format!("^/({})(/", names.join("|"))));
    }

    #[test]
    fn none_is_in_another_and_there_are_not_too_many() {
        for pair in [["/home/a", "/home/a:ro"], ["/home/a/b", "/home/a"], ["/home", "/home/a"]] {
            assert!(matches!(judge_places(&shares(&pair)), Err(Refusal::Within { .. })), "{pair:?}");
        }
        let mut many: Vec<_> = (0..MOST).map(|index| share(&format!("/home/{index}"))).collect();
        judge_places(&many).unwrap();
        many.push(share("/work"));
        assert_eq!(judge_places(&many), Err(Refusal::TooMany { count: MOST + 1 }));
    }

    #[test]
    fn settings_allow_what_is_in_a_folder_of_theirs() {
        let settings = |texts: &[&str]| Shares { allow: Some(shares(texts)) };
        let judge = |path: &str, texts: &[&str]| judge_allowed(&shares(&[path]), &settings(texts));
        assert_eq!(judge_allowed(&shares(&["/home/a"]), &Shares::default()), Ok(()));
        for path in ["/home/a", "/home/a/b", "/home/a:ro"] {
            assert_eq!(judge(path, &["/work", "/home/a"]), Ok(()), "{path}");
        }
        for path in ["/home", "/home/ab", "/home/b"] {
            assert!(matches!(judge(path, &["/work", "/home/a"]), Err(Refusal::NotAllowed { .. })), "{path}");
        }
        assert_eq!(judge("/home/a:ro", &["/home:ro"]), Ok(()));
        assert_eq!(judge("/home/a", &["/home:ro"]), Err(Refusal::ReadOnly { path: "/home/a".to_owned() }));
        // The wider one of two decides, in either order.
        assert_eq!(judge("/home/a", &["/home:ro", "/home/a"]), Ok(()));
        assert_eq!(judge("/home/a", &["/home/a", "/home:ro"]), Ok(()));
        let none = judge("/home/a", &[]).unwrap_err().to_string();
        assert!(none.contains("the administrator's settings allow none; "), "{none}");
        let some = judge("/home/a", &["/work", "/srv:ro"]).unwrap_err().to_string();
        assert!(some.contains("allow `/work`, `/srv` to be read; "), "{some}");
    }
}
