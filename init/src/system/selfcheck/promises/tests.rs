//! Each promise with evidence captured from a booted image, and with that evidence one fact off.

use eci_sys::dm::{Table, Target};

use super::*;
use crate::initramfs::slot::ARCHITECTURE;

const HASH: &str = "5e1f";

const MOUNTINFO: &str = "\
1 1 0:2 / / rw - rootfs rootfs rw
24 1 253:0 / / ro,nosuid,nodev,relatime shared:1 - erofs /dev/dm-0 ro,user_xattr
20 24 0:5 / /dev ro,nosuid,noexec,relatime shared:2 - devtmpfs devtmpfs rw,mode=755
21 24 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:3 - proc proc rw
23 24 0:23 / /run rw,nosuid,nodev,noexec,relatime shared:5 - tmpfs tmpfs rw,mode=755
30 24 254:16 / /var/lib/docker rw,nosuid,nodev,noatime shared:9 - ext4 /dev/vdb rw,discard
31 30 254:16 /volumes /var/lib/docker/volumes rw,nosuid,nodev,noatime,nosymfollow shared:10 - ext4 /dev/vdb rw,discard
32 30 254:16 /overlay2 /var/lib/docker/overlay2 rw,nosuid,nodev,noatime,nosymfollow shared:11 - ext4 /dev/vdb rw,discard
41 32 0:40 / /var/lib/docker/overlay2/x/merged rw,relatime shared:12 - overlay overlay rw
";

const LISTENER: &str = "\
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
";

fn manifest() -> Manifest {
    let text = format!(
        r#"{{"schema":1,"name":"eci","version":"1","architecture":"{}","flavour":"shipped",
        "root":{{"filesystem":"erofs","algorithm":"sha256","rootHash":"{HASH}","salt":"00","dataBlockSize":4096,
        "hashBlockSize":4096,"dataBlocks":9,"hashStartBlock":1}},"kernel":{{"file":"k","size":1,"sha256":""}},
        "initrd":{{"file":"i","size":1,"sha256":""}},"uki":{{"file":"u","authenticodeSha256":""}},"versions":{{}}}}"#,
        ARCHITECTURE.as_str()
    );
    serde_json::from_str(&text).unwrap()
}

fn good() -> Evidence {
    let parameters =
        format!("1 254:1 254:2 4096 4096 9 1 sha256 {HASH} 00 2 panic_on_corruption panic_on_error");
    let target = Target { start: 0, sectors: 72, kind: "verity".into(), parameters };
    Evidence {
        // rootfs is hidden under the real root and is empty; the kernel does not show it after the switch.
        mountinfo: MOUNTINFO.lines().skip(1).map(|line| format!("{line}\n")).collect(),
        table: Some(Table { device: (253, 0), read_only: true, targets: vec![target] }),
        lockdown: "none [integrity] confidentiality\n".into(),
        apparmor: "Y\n".into(),
        profiles: "dockerd (enforce)\ndocker-default (enforce)\n".into(),
        engine_profile: Some("dockerd (enforce)\n".into()),
        sysctls: SYSCTLS.iter().map(|sysctl| (sysctl.name, sysctl.value.to_owned())).collect(),
        hidden: vec![("/proc/cmdline".into(), 0o400), ("/sys/block".into(), 0o700)],
        ..Evidence::default()
    }
}

/// The ids of the promises that do not hold.
fn broken(evidence: &Evidence) -> Vec<&'static str> {
    let failed = PROMISES.iter().filter(|promise| (promise.check)(evidence, &manifest()).is_err());
    failed.map(|promise| promise.id).collect()
}

fn broken_by(change: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    let mut evidence = good();
    change(&mut evidence);
    broken(&evidence)
}

fn parameters(evidence: &mut Evidence) -> &mut String {
    &mut evidence.table.as_mut().unwrap().targets[0].parameters
}

#[test]
fn a_good_system_keeps_every_promise() {
    assert_eq!(broken(&good()), [""; 0]);
}

#[test]
fn nothing_at_all_keeps_no_promise_of_integrity() {
    let failed = broken(&Evidence::default());
    assert!(PROMISES.iter().filter(|promise| promise.integrity).all(|promise| failed.contains(&promise.id)));
}

#[test]
fn another_root_hash_device_or_writable_table_is_found() {
    assert_eq!(broken_by(|e| *parameters(e) = parameters(e).replace(HASH, "beef")), ["root-verity"]);
    assert_eq!(broken_by(|e| e.table.as_mut().unwrap().device = (253, 1)), ["root-verity"]);
    assert_eq!(broken_by(|e| e.table.as_mut().unwrap().read_only = false), ["root-verity"]);
    assert_eq!(broken_by(|e| e.table.as_mut().unwrap().targets[0].kind = "linear".into()), ["root-verity"]);
}

#[test]
fn weaker_verity_options_are_found() {
    let weaker = |from: &str, to: &str| broken_by(|e| *parameters(e) = parameters(e).replace(from, to));
    assert_eq!(weaker("panic_on_corruption", "ignore_corruption"), ["verity-panics"]);
    assert_eq!(weaker("2 panic_on_corruption panic_on_error", "1 panic_on_corruption"), ["verity-panics"]);
    assert_eq!(weaker("2 panic", "3 check_at_most_once panic"), ["verity-panics"]);
}

#[test]
fn under_secure_boot_a_root_that_the_kernel_did_not_check_is_found() {
    assert_eq!(broken_by(|e| e.secure_boot = true), ["root-signed"]);
    let signed = |e: &mut Evidence, count: &str| {
        let options =
            format!("{count} panic_on_corruption panic_on_error root_hash_sig_key_desc eci:root-hash");
        *parameters(e) = parameters(e).replace("2 panic_on_corruption panic_on_error", &options);
    };
    for secure_boot in [true, false] {
        assert_eq!(
            broken_by(|e| {
                e.secure_boot = secure_boot;
                signed(e, "4");
            }),
            [""; 0]
        );
    }
    // Another key's description is not the signature's.
    assert_eq!(
        broken_by(|e| {
            e.secure_boot = true;
            signed(e, "4");
            *parameters(e) = parameters(e).replace("eci:root-hash", "eci:other");
        }),
        ["root-signed", "verity-panics"]
    );
    assert_eq!(broken_by(|e| signed(e, "2")), ["verity-panics"]);
}

#[test]
fn a_writable_root_is_found() {
    let failed =
        broken_by(|e| e.mountinfo = e.mountinfo.replace("/ / ro,nosuid,nodev", "/ / rw,nosuid,nodev"));
    assert_eq!(failed, ["root-read-only", "mount-flags"]);
    let failed = broken_by(|e| e.mountinfo = e.mountinfo.replace("- erofs", "- ext4"));
    assert_eq!(failed, ["root-read-only"]);
}

#[test]
fn a_writable_mount_that_lacks_a_flag_is_found() {
    let without = |target: &str, flag: &str| {
        broken_by(|e| {
            let lines = e.mountinfo.lines().map(|line| {
                let line = if line.contains(target) { line.replace(flag, "") } else { line.to_owned() };
                format!("{line}\n")
            });
            e.mountinfo = lines.collect();
        })
    };
    for flag in [",nosuid", ",nodev", ",noexec"] {
        assert_eq!(without(" /run ", flag), ["mount-flags"], "{flag}");
    }
    let (volumes, layers) = (" /var/lib/docker/volumes ", " /var/lib/docker/overlay2 ");
    let gone = |targets: &[&str]| {
        broken_by(|e| {
            let lines =
                e.mountinfo.lines().filter(|line| !targets.iter().any(|target| line.contains(target)));
            e.mountinfo = lines.map(|line| format!("{line}\n")).collect();
        })
    };
    for target in [volumes, layers] {
        assert_eq!(without(target, ",nosymfollow"), ["mount-flags"], "{target}");
        assert_eq!(gone(&[target]), ["mount-flags"], "{target}");
    }
    assert_eq!(gone(&[volumes, layers, " /var/lib/docker "]), [""; 0], "there is no data disk");
    assert_eq!(without(" /var/lib/docker ", ",nosuid"), ["mount-flags"]);
    assert_eq!(broken_by(|e| e.mountinfo = e.mountinfo.replace("/dev ro,", "/dev rw,")), ["mount-flags"]);
}

#[test]
fn a_folder_whose_name_begins_like_the_engine_s_is_not_the_engine_s() {
    let extra = "50 24 0:50 / /var/lib/docker-evil rw,nosuid,nodev - tmpfs tmpfs rw\n";
    assert_eq!(broken_by(|e| e.mountinfo.push_str(extra)), ["mount-flags"]);
}

#[test]
fn a_folder_of_the_host_s_may_be_written_to_and_executed_from_but_not_rosetta_s() {
    let with = |line: &str| broken_by(|e| e.mountinfo.push_str(line));
    let share = "50 24 0:50 / /home/me rw,nosuid,nodev,nosymfollow - virtiofs eci-share-0 rw\n";
    assert_eq!(with(share), [""; 0]);
    let rosetta = "51 23 0:51 / /run/eci/rosetta ro,nosuid,nodev - virtiofs rosetta ro\n";
    assert_eq!(with(rosetta), [""; 0]);
    assert_eq!(with(&rosetta.replace(" ro,", " rw,")), ["mount-flags"]);
}

#[test]
fn lockdown_off_is_found() {
    assert_eq!(broken_by(|e| e.lockdown = "[none] integrity confidentiality".into()), ["lockdown"]);
    assert_eq!(broken_by(|e| e.lockdown = String::new()), ["lockdown"]);
}

#[test]
fn a_changed_or_missing_setting_is_found() {
    let failed = broken_by(|e| drop(e.sysctls.insert("kernel/dmesg_restrict", "0".into())));
    assert_eq!(failed, ["sysctls"]);
    assert_eq!(broken_by(|e| drop(e.sysctls.remove("kernel/dmesg_restrict"))), ["sysctls"]);
    assert_eq!(broken_by(|e| drop(e.sysctls.remove("kernel/sysrq"))), [""; 0]);
}

#[test]
fn listeners_count_unless_they_are_the_engine_s() {
    assert_eq!(broken_by(|e| e.tcp = LISTENER.into()), ["no-tcp-listener"]);
    assert_eq!(broken_by(|e| e.udp = LISTENER.replace(" 0A ", " 07 ")), ["no-udp-listener"]);
    let engine_s = broken_by(|e| {
        e.tcp = LISTENER.into();
        e.engine_sockets.insert(4711);
    });
    assert_eq!(engine_s, [""; 0]);
    assert_eq!(broken_by(|e| e.tcp = LISTENER.replace(" 0A ", " 01 ")), [""; 0]);
    // The way to registries, and what is one off.
    let at = |address: &str| broken_by(|e| e.tcp = LISTENER.replace("00000000:1F90", address));
    assert_eq!(at("0100007F:0C38"), [""; 0]);
    for address in ["0100007F:0C39", "0200007F:0C38", "00000000:0C38"] {
        assert_eq!(at(address), ["no-tcp-listener"], "{address}");
    }
    assert_eq!(broken_by(|e| e.udp = LISTENER.replace(" 0A ", " 01 ")), [""; 0]);
}

#[test]
fn doors_helpers_and_console_readers_are_found() {
    assert_eq!(broken_by(|e| e.forbidden.push("/dev/mem")), ["no-kernel-doors"]);
    assert_eq!(broken_by(|e| e.core_pattern = Some("|/bin/sh".into())), ["no-core-helper"]);
    assert_eq!(broken_by(|e| e.core_pattern = Some("core".into())), [""; 0]);
    assert_eq!(broken_by(|e| e.hidden.push(("/proc/keys".into(), 0o404))), ["hidden-paths"]);
    assert_eq!(broken_by(|e| e.hidden.clear()), ["hidden-paths"]);
    assert_eq!(broken_by(|e| e.console_users.push("7: /dev/ttyS0".into())), ["console-unread"]);
    assert_eq!(broken_by(|e| e.apparmor = "N".into()), ["apparmor"]);
    assert_eq!(
        broken_by(|e| e.profiles = "docker-default (complain)\ndockerd (enforce)\n".into()),
        ["apparmor"]
    );
    assert_eq!(broken_by(|e| e.profiles = "docker-default (enforce)\n".into()), ["apparmor"]);
    assert_eq!(broken_by(|e| e.engine_profile = Some("unconfined\n".into())), ["apparmor"]);
    assert_eq!(broken_by(|e| e.engine_profile = None), [""; 0]);
}
