use std::fs;
use std::path::Path;

use tar::EntryType;

use super::*;
use crate::packages::deb::tests::{Crafted, craft};
use crate::plan::document;
use crate::plan::lock::tests::locked;

const RULE: &str = "version = 1\n[[package]]\nname = \"a\"\n[[package.files]]\nwhy = \"It is needed.\"\npaths = [\"/usr/bin/*\"]\n";

fn take_from(rules: &str, entries: &[Crafted<'_>]) -> Result<(tempfile::TempDir, Tree), Error> {
    let home = tempfile::tempdir().expect("temporary folder");
    let path = home.path().join("a.deb");
    craft(&path, entries);
    let list: List = document::parse(Path::new("files.toml"), rules).expect("rules");
    let mut tree = Tree::create(&home.path().join("root")).expect("tree");
    let archive = Archive { package: locked("a"), path };
    take((&archive, Use::Listed), &[&list], Architecture::X86_64, &mut tree)?;
    Ok((home, tree))
}

fn refusal(entry: Crafted<'_>) -> String {
    take_from(RULE, &[entry]).expect_err("it is refused").to_string()
}

#[test]
fn only_what_a_rule_asks_for_is_taken() {
    let (_home, tree) = take_from(
        RULE,
        &[
            Crafted::file("./usr/bin/a", b"x"),
            Crafted::file("./usr/sbin/b", b"x"),
            Crafted::file("./etc/c", b"x"),
        ],
    )
    .expect("sound");
    let paths: Vec<&str> = tree.nodes().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/", "/usr", "/usr/bin", "/usr/bin/a"]);
}

#[test]
fn a_setuid_file_is_refused_with_file_package_and_rule() {
    let expected = "`/usr/bin/su` of the package `a` is setuid, setgid, sticky or writable for everyone, \
                    and the rule \"It is needed.\" asks for it";
    for mode in [0o4755, 0o2755, 0o1755, 0o757] {
        assert_eq!(refusal(Crafted { mode, ..Crafted::file("./usr/bin/su", b"x") }), expected);
    }
    take_from(RULE, &[Crafted { mode: 0o775, ..Crafted::file("./usr/bin/su", b"x") }])
        .expect("one bit off is fine");
}

#[test]
fn file_capabilities_are_refused() {
    let text = refusal(Crafted { attribute: true, ..Crafted::file("./usr/bin/ping", b"x") });
    assert!(text.contains("file capabilities"), "{text}");
}

#[test]
fn device_nodes_pipes_and_hard_links_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let text = refusal(Crafted { kind, ..Crafted::file("./usr/bin/n", b"") });
        assert!(text.contains("is a device node or pipe"), "{text}");
    }
    let text = refusal(Crafted::link("./usr/bin/l", EntryType::Link, "./etc/shadow"));
    assert!(text.contains("is a hard link"), "{text}");
}

#[test]
fn a_special_file_that_no_rule_asks_for_is_left_alone() {
    let su = Crafted { mode: 0o4755, ..Crafted::file("./usr/sbin/su", b"x") };
    take_from(RULE, &[su, Crafted::file("./usr/bin/a", b"x")]).expect("only a is taken");
}

#[test]
fn a_rule_that_matches_nothing_is_an_error() {
    let error = take_from(RULE, &[Crafted::file("./usr/sbin/b", b"x")]).expect_err("nothing in /usr/bin");
    assert_eq!(
        error.to_string(),
        "the package `a` has nothing like `/usr/bin/*`, which the rule \"It is needed.\" asks for"
    );
}

#[test]
fn a_file_goes_where_the_rule_says() {
    let rule = RULE.replace("/usr/bin/*", "/usr/bin/crun") + "to = \"/usr/libexec/eci/crun\"\n";
    let (_home, tree) = take_from(&rule, &[Crafted::file("./usr/bin/crun", b"x")]).expect("sound");
    assert!(tree.get("/usr/libexec/eci/crun").is_some() && tree.get("/usr/bin/crun").is_none());
}

#[test]
fn a_rule_for_another_architecture_asks_for_nothing() {
    let rule = RULE.to_owned() + "arch = \"aarch64\"\n";
    let (_home, tree) = take_from(&rule, &[Crafted::file("./usr/bin/a", b"x")]).expect("sound");
    assert!(tree.get("/usr/bin/a").is_none());
}

#[test]
fn a_bundle_joins_its_parts_in_order_of_names() {
    let rule =
        "version = 1\n[[bundle]]\npath = \"/etc/all\"\npackage = \"a\"\nparts = \"/c/*.crt\"\nwhy = \"x\"\n";
    let (_home, tree) = take_from(
        rule,
        &[
            Crafted::file("./c/2.crt", b"two"),
            Crafted::file("./c/1.crt", b"one\n"),
            Crafted::file("./c/n", b"no"),
        ],
    )
    .expect("sound");
    assert_eq!(fs::read_to_string(tree.on_disk("/etc/all")).expect("bundle"), "one\ntwo\n");
}

#[test]
fn a_star_stays_within_its_component() {
    assert!(matches("/usr/lib/*/liba.so.1*", "/usr/lib/x86_64-linux-gnu/liba.so.1.2"));
    assert!(matches("/usr/lib/*/liba.so.1*", "/usr/lib/x86_64-linux-gnu/liba.so.1"));
    assert!(!matches("/usr/lib/*/liba.so.1*", "/usr/lib/x/y/liba.so.1"));
    assert!(!matches("/usr/bin/*", "/usr/bin"));
    assert!(!matches("/usr/bin/a", "/usr/bin/a/b"));
    assert!(matches("/a*b*c", "/axxbyybzc"));
}

#[test]
fn the_terms_of_a_licence_come_with_whatever_is_taken() {
    let rule = RULE.replacen("version = 1\n", "version = 1\nterms = [\"/usr/share/doc/*/copyright\"]\n", 1);
    let program = || Crafted::file("./usr/bin/a", b"x");
    let terms = Crafted::file("./usr/share/doc/a/copyright", b"y");
    let (_home, tree) = take_from(&rule, &[program(), terms]).expect("sound");
    let node = tree.get("/usr/share/doc/a/copyright").expect("taken");
    assert!(matches!(&node.kind, tree::Kind::File { executable: false, .. }));
    let error = take_from(&rule, &[program(), Crafted::file("./usr/share/doc/a/README", b"y")]);
    assert_eq!(
        error.expect_err("no terms").to_string(),
        "the package `a` has no file with the terms of its licence, nothing like `/usr/share/doc/*/copyright`"
    );
}
