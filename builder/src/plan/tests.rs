use std::fs;

use super::lock::tests::locked;
use super::*;
use crate::image::signature::generate;

const CONFIG: &str = r#"
version = 1
[image]
name = "eci"
version = "1.0"
flavour = "shipped"
arch = "x86_64"
[packages]
lists = ["files.toml"]
locks = ["packages.lock"]
[rootfs]
overlays = ["overlay"]
apparmor = "apparmor"
folders = "folders.toml"
refused = "refused.toml"
[kernel]
source = "linux-source"
fragments = "kernel-config"
[toolchain]
folder = ""
[tools]
packages = ["erofs-utils"]
[uki]
stub = "stub"
[disk]
esp_mib = 33
root_mib = 1
data_mib = 1
"#;

const LIST: &str = r#"
version = 1
[[package]]
name = "crun"
[[package.files]]
why = "The runtime."
paths = ["/usr/bin/crun"]
"#;

const TOOLCHAIN: &str = "version = 1\npackages = [\"gcc\"]\n";

fn read(config: &str, list: &str) -> Result<Plan<Unlocked>, Error> {
    let home = tempfile::tempdir().expect("temporary folder");
    fs::write(home.path().join("eci.toml"), config).expect("config");
    fs::write(home.path().join("files.toml"), list).expect("list");
    fs::write(home.path().join("packages.toml"), TOOLCHAIN).expect("toolchain");
    Plan::read(&home.path().join("eci.toml"), None)
}

fn complete_lock() -> Vec<LockedPackage> {
    ["crun", "erofs-utils", "linux-source", "stub"].map(locked).into()
}

/// A toolchain's lock: what is asked for, and what that depends on.
fn compilers() -> Lock {
    Lock::new(["gcc", "libc6"].map(locked).into())
}

fn drift_of(packages: Vec<LockedPackage>) -> String {
    let plan = read(CONFIG, LIST).expect("a plan");
    plan.lock(&[Lock::new(packages)], &compilers()).expect_err("they disagree").to_string()
}

#[test]
fn a_plan_locks_when_lists_and_lock_agree() {
    let plan = read(CONFIG, LIST)
        .expect("a plan")
        .lock(&[Lock::new(complete_lock())], &compilers())
        .expect("locked");
    assert_eq!(plan.kernel_source().name, "linux-source");
    assert_eq!(plan.stub().name, "stub");
    assert_eq!(plan.packages().count(), 4);
}

#[test]
fn a_toolchain_has_what_it_depends_on_and_lacks_nothing_by_name() {
    let plan = || read(CONFIG, LIST).expect("a plan");
    let locks = [Lock::new(complete_lock())];
    let locked = plan().lock(&locks, &compilers()).expect("locked");
    assert_eq!(locked.toolchain().len(), 2);
    let error = plan().lock(&locks, &Lock::new(Vec::new())).expect_err("no compiler").to_string();
    assert!(
        error.contains("does not agree with what is asked for: `gcc` is not locked for x86_64"),
        "{error}"
    );
}

#[test]
fn a_package_that_is_not_locked_is_named_with_the_file_that_asks() {
    let mut packages = complete_lock();
    packages.retain(|package| package.name != "crun");
    assert_eq!(
        drift_of(packages),
        "`packages.lock` does not agree with what is asked for: \
         `crun`, asked for by `files.toml`, is not locked for x86_64"
    );
}

#[test]
fn a_locked_package_that_nothing_asks_for_is_drift() {
    let mut packages = complete_lock();
    packages.push(locked("dash"));
    assert!(drift_of(packages).ends_with("`dash` is locked and nothing asks for it"));
}

#[test]
fn a_package_locked_twice_is_drift() {
    let mut packages = complete_lock();
    packages.push(locked("crun"));
    assert!(drift_of(packages).ends_with("`crun` is locked twice"));
}

#[test]
fn a_package_locked_for_another_architecture_does_not_count() {
    let mut packages = complete_lock();
    packages[0].target = Architecture::Aarch64;
    assert!(drift_of(packages).contains("`crun`, asked for by `files.toml`, is not locked"));
}

#[test]
fn an_unknown_key_in_a_table_is_named() {
    let error = read(&CONFIG.replace("locks =", "lokcs ="), LIST).expect_err("a typing error");
    assert!(
        error.to_string().ends_with("eci.toml` line 10: unknown key `lokcs`; did you mean `locks`?"),
        "{error}"
    );
}

#[test]
fn a_shipped_image_cannot_lift_a_refusal() {
    let list = format!("{LIST}permits = \"shell\"\n");
    let error = read(CONFIG, &list).expect_err("only a test image may");
    assert_eq!(
        error.to_string(),
        "`files.toml` has a `permits`, which only an image of the test flavour may use"
    );
    let test = CONFIG.replace("\"eci\"", "\"eci-test\"").replace("\"shipped\"", "\"test\"");
    read(&test, &list).expect("a test image may");
}

#[test]
fn a_test_image_cannot_have_the_shipped_name_nor_the_other_way_round() {
    assert!(read(&CONFIG.replace("\"shipped\"", "\"test\""), LIST).is_err());
    assert!(read(&CONFIG.replace("\"eci\"", "\"eci-test\""), LIST).is_err());
}

#[test]
fn a_version_that_would_leave_the_output_folder_is_refused() {
    let error = read(&CONFIG.replace("\"1.0\"", "\"../1\""), LIST).expect_err("not a file name");
    assert!(error.to_string().contains("image.version"), "{error}");
}

#[test]
fn a_least_version_has_to_be_one_that_the_image_has_reached() {
    let with = |least: &str| {
        let line = format!("version = \"1.0\"\nminimum_version = \"{least}\"");
        read(&CONFIG.replace("version = \"1.0\"", &line), LIST)
    };
    assert!(with("1").is_ok() && with("0.9").is_ok());
    for least in ["1.0.1", "latest", ""] {
        let error = with(least).expect_err("no order, or too late");
        assert!(error.to_string().contains("image.minimum_version"), "{error}");
    }
}

#[test]
fn an_efi_system_partition_that_is_no_fat32_is_refused() {
    let error = read(&CONFIG.replace("esp_mib = 33", "esp_mib = 32"), LIST).expect_err("FAT16");
    assert!(error.to_string().contains("disk.esp_mib is too small"), "{error}");
}

#[test]
fn settings_are_the_default_or_a_file_that_is_checked() {
    let home = tempfile::tempdir().expect("temporary folder");
    fs::write(home.path().join("files.toml"), LIST).expect("list");
    fs::write(home.path().join("packages.toml"), TOOLCHAIN).expect("toolchain");
    let with = |table: &str, text: &str| {
        fs::write(home.path().join("eci.toml"), format!("{CONFIG}{table}")).expect("config");
        fs::write(home.path().join("own.json"), text).expect("settings");
        Plan::read(&home.path().join("eci.toml"), None)
    };
    const NAMED: &str = "[settings]\nfile = \"own.json\"\n";
    let default = with("", "").expect("a plan");
    assert_eq!(default.settings().text, eci_policy::settings::DEFAULT.as_bytes());
    let good = "{\"configurationFileVersion\": 2}";
    assert_eq!(with(NAMED, good).expect("a plan").settings().text, good.as_bytes());
    let error = with(NAMED, "{}").expect_err("no version");
    assert!(error.to_string().ends_with("own.json` cannot be used as settings"), "{error}");
    let wants = |least: &str| {
        good.replacen('{', &format!("{{\"eci\": {{\"updates\": {{\"minimumVersion\": \"{least}\"}}}},"), 1)
    };
    assert!(with(NAMED, &wants("1.0")).is_ok());
    let error = with(NAMED, &wants("1.0.1")).expect_err("no image of it would start an engine").to_string();
    assert!(error.contains("image.version is below `eci.updates.minimumVersion`"), "{error}");
    let error = with("[settings]\nfile = \"none.json\"\n", "").expect_err("not there");
    assert!(error.to_string().contains("none.json"), "{error}");
}

#[test]
fn config_disks_are_taken_by_a_key_and_required_with_one() {
    let home = tempfile::tempdir().expect("temporary folder");
    fs::write(home.path().join("files.toml"), LIST).expect("list");
    fs::write(home.path().join("packages.toml"), TOOLCHAIN).expect("toolchain");
    generate(&home.path().join("keys")).expect("keys");
    let with = |table: &str| {
        let path = home.path().join("eci.toml");
        fs::write(&path, format!("{CONFIG}[settings]\n{table}\n")).expect("configuration");
        Plan::read(&path, None)
    };
    assert_eq!(with("").expect("a plan").settings().anchor, None);
    for (table, required) in [("", false), ("\nrequired = true", true)] {
        let plan = with(&format!("key = \"keys/image.pub\"{table}")).expect("a plan");
        let anchor = plan.settings().anchor.clone().expect("an anchor");
        assert_eq!((anchor.key.len(), anchor.required), (44, required));
    }
    let error = with("required = true").expect_err("nobody could sign it").to_string();
    assert!(error.contains("settings.required needs `key`"), "{error}");
    let error = with("key = \"none.pub\"").expect_err("not there").to_string();
    assert_eq!(error, "the key for config disks");
}

#[test]
fn settings_that_nobody_looked_at_are_for_tests_alone() {
    let home = tempfile::tempdir().expect("temporary folder");
    fs::write(home.path().join("files.toml"), LIST).expect("list");
    fs::write(home.path().join("packages.toml"), TOOLCHAIN).expect("toolchain");
    fs::write(home.path().join("own.json"), "broken").expect("settings");
    let path = home.path().join("eci.toml");
    let shipped = format!("{CONFIG}[settings]\nfile = \"own.json\"\nunchecked = true\n");
    fs::write(&path, &shipped).expect("config");
    let error = Plan::read(&path, None).expect_err("a shipped image").to_string();
    assert!(error.contains("settings.unchecked is only for an image of the test flavour"), "{error}");
    let test = shipped.replace("\"eci\"", "\"eci-test\"").replace("\"shipped\"", "\"test\"");
    fs::write(&path, test).expect("config");
    let plan = Plan::read(&path, None).expect("a test image");
    assert!(plan.settings().settings.is_none() && plan.settings().text == b"broken");
}

#[test]
fn another_schema_number_is_refused() {
    let error = read(&CONFIG.replace("version = 1\n", "version = 2\n"), LIST).expect_err("not known");
    assert!(error.to_string().ends_with("has version 2; this eci-builder reads version 1"), "{error}");
}
