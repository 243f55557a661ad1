//! A machine that boots as the manifest foretells, by a TPM made of a key and arithmetic, and machines that do not quite.

use eci_contract::attest::Measurement;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;
use crate::image::manifest::tests::example;
use crate::image::verify::Verdict;

const NONCE: &[u8] = b"a question of some length";
/// Command line and initramfs of the image, in one.
const INPUT: &[u8] = b"given to the kernel";
const KEY_ATTRIBUTES: u32 = 0x0005_0472;

/// What a machine measured.
#[derive(Clone)]
struct Boot {
    /// Events of the firmware: register, kind, digest, data.
    firmware: Vec<(u32, u32, [u8; 32], Vec<u8>)>,
    /// Texts of PID 1.
    measured: Vec<(u32, String)>,
    /// PCR 11 when the kernel starts, if a stub was there.
    stub: Option<Pcr>,
    /// What the kernel got.
    input: &'static [u8],
    /// A register that something else is measured into.
    added: Option<u32>,
}

fn manifest() -> Manifest {
    let digest = |text: &str| Sha256::of(&[text.as_bytes()]).to_string();
    let mut manifest = example();
    manifest.uki.measured = Some(Measured {
        pcr9: Pcr::default().measure(INPUT).to_string(),
        pcr11: digest("pcr11"),
        kernel_authenticode_sha256: digest("kernel"),
    });
    manifest
}

/// What the firmware measures when it looks for something to boot.
fn calling() -> (u32, u32, [u8; 32], Vec<u8>) {
    (4, 0x8000_0007, sha256(BEFORE_PROGRAMS[0]), BEFORE_PROGRAMS[0].to_vec())
}

fn digest(text: &str) -> [u8; 32] {
    text.parse::<Sha256>().expect("a digest").0
}

impl Boot {
    fn good() -> Self {
        let manifest = manifest();
        let measured = manifest.uki.measured.as_ref().expect("foretold");
        let program = |text: &str| (4, PROGRAM, digest(text), Vec::new());
        let separator = |pcr| (pcr, 4, sha256(SEPARATOR), SEPARATOR.to_vec());
        let mut firmware =
            vec![(0, 8, sha256(b"version"), b"version".to_vec()), calling(), separator(2), separator(4)];
        firmware.extend([
            program(&manifest.uki.authenticode_sha256),
            program(&measured.kernel_authenticode_sha256),
        ]);
        let mut told: Vec<_> = PHASES.iter().map(|phase| (KERNEL_IMAGE, (*phase).to_owned())).collect();
        told.push((SYSTEM, attest::root(&manifest.root.root_hash)));
        told.push((SYSTEM, attest::settings(&Sha256::of(&[DEFAULT.as_bytes()]).to_string())));
        let stub = Some(Pcr(digest(&measured.pcr11)));
        Self { firmware, measured: told, stub, input: INPUT, added: None }
    }

    fn pcrs(&self) -> Vec<Pcr> {
        let mut pcrs = vec![Pcr::default(); 16];
        for (pcr, _, digest, _) in &self.firmware {
            let value = &mut pcrs[*pcr as usize];
            *value = value.extend(digest);
        }
        pcrs[11] = self.stub.unwrap_or_default();
        for (pcr, text) in &self.measured {
            let value = &mut pcrs[*pcr as usize];
            *value = value.measure(text.as_bytes());
        }
        pcrs[9] = pcrs[9].measure(self.input);
        if let Some(pcr) = self.added {
            pcrs[pcr as usize] = Pcr::default().measure(b"more");
        }
        pcrs
    }

    fn log(&self) -> Vec<u8> {
        let word = |number: usize| u32::try_from(number).expect("small").to_le_bytes();
        let head = [b"Spec ID Event03\0".as_slice(), &[0; 8], &word(1), &[0x0b, 0, 32, 0, 0]].concat();
        let mut log = [&word(0)[..], &word(3), &[0; 20], &word(head.len()), &head].concat();
        let mut events = self.firmware.clone();
        events.push((9, 6, sha256(self.input), b"Linux initrd".to_vec()));
        // Whoever measures more says so in the log.
        events.extend(self.added.map(|pcr| (pcr, 0xd, sha256(b"more"), b"more".to_vec())));
        for (pcr, kind, digest, data) in &events {
            log.extend([pcr.to_le_bytes(), kind.to_le_bytes(), word(1)].concat());
            log.extend([&[0x0b, 0][..], digest, &word(data.len()), data].concat());
        }
        log
    }
}

/// A TPM.
struct Chip(EcdsaKeyPair);

impl Chip {
    fn new() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let bytes = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(kind, bytes.as_ref(), &random).expect("our own"))
    }

    fn evidence(&self, boot: &Boot) -> Evidence {
        let sized =
            |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let key = [words(&[0x23, 0x0b]), KEY_ATTRIBUTES.to_be_bytes().to_vec(), sized(&[])].concat();
        let key = [key, words(&[0x10, 0x18, 0x0b, 3, 0x10]), sized(x), sized(y)].concat();
        let pcrs = boot.pcrs();
        let digest = sha256(&pcrs.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>());
        let selection = [0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0];
        let head = [&0xff54_4347_u32.to_be_bytes()[..], &0x8018_u16.to_be_bytes()].concat();
        let attested = [head, sized(b"name"), sized(NONCE), vec![0; 25]].concat();
        let attested = [attested, selection.to_vec(), sized(&digest)].concat();
        let signature = self.0.sign(&SystemRandom::new(), &attested).expect("signed");
        let (r, s) = signature.as_ref().split_at(32);
        Evidence {
            version: VERSION,
            nonce: to_hex(NONCE),
            key: STANDARD.encode(key),
            attested: STANDARD.encode(attested),
            signature: STANDARD.encode([words(&[0x18, 0x0b]), sized(r), sized(s)].concat()),
            pcrs: pcrs.iter().map(ToString::to_string).collect(),
            firmware_log: STANDARD.encode(boot.log()),
            measured: boot
                .measured
                .iter()
                .map(|(pcr, text)| Measurement { pcr: *pcr, text: text.clone() })
                .collect(),
        }
    }
}

fn report(evidence: &Evidence) -> Report {
    report_of(evidence, NONCE, None, None)
}

fn expected(manifest: &Manifest) -> Expected<'_> {
    Expected { manifest, nonce: NONCE, settings: None, isolation_off: false, reference: None }
}

fn report_of(
    evidence: &Evidence,
    nonce: &[u8],
    settings: Option<Sha256>,
    reference: Option<&Known>,
) -> Report {
    let manifest = manifest();
    let expected = Expected { nonce, settings, reference, ..expected(&manifest) };
    let mut report = Report::default();
    judge(evidence, &expected, &mut report).expect("evidence");
    report
}

/// What is said of a boot that differs from a good one.
fn failures(change: impl FnOnce(&mut Boot)) -> String {
    let mut boot = Boot::good();
    change(&mut boot);
    let report = report(&Chip::new().evidence(&boot));
    assert!(!report.holds());
    report.failures().join("; ")
}

#[test]
fn a_boot_of_the_image_holds_and_what_nobody_vouches_for_is_not_counted() {
    let chip = Chip::new();
    let evidence = chip.evidence(&Boot::good());
    let first = report(&evidence);
    assert!(first.holds(), "{:?}", first.failures());
    let skipped =
        |report: &Report| report.checks.iter().filter(|check| check.verdict == Verdict::Skipped).count();
    assert_eq!(skipped(&first), 2, "key and firmware");
    let known = Known::of(&evidence).expect("evidence");
    let again = report_of(
        &chip.evidence(&Boot::good()),
        NONCE,
        Some(Sha256::of(&[DEFAULT.as_bytes()])),
        Some(&known),
    );
    assert!(again.holds() && skipped(&again) == 0, "{:?}", again.checks);
}

#[test]
fn an_old_answer_and_another_machine_are_refused() {
    let (chip, boot) = (Chip::new(), Boot::good());
    let evidence = chip.evidence(&boot);
    let old = report_of(&evidence, b"another question of length", None, None);
    assert!(old.failures().concat().contains("another nonce"), "{:?}", old.failures());
    let known = Known::of(&Chip::new().evidence(&boot)).expect("evidence");
    let other = report_of(&evidence, NONCE, None, Some(&known));
    assert!(other.failures().concat().contains("another TPM's"), "{:?}", other.failures());
    let mut firmware = boot.clone();
    firmware.firmware[0].2 = sha256(b"flashed");
    let known = Known::of(&evidence).expect("evidence");
    let flashed = report_of(&chip.evidence(&firmware), NONCE, None, Some(&known));
    assert!(flashed.failures().concat().contains("than in the reference: PCR 0"), "{:?}", flashed.failures());
}

#[test]
fn values_that_were_not_signed_are_not_looked_at() {
    let mut evidence = Chip::new().evidence(&Boot::good());
    evidence.pcrs[15] = evidence.pcrs[11].clone();
    let report = report(&evidence);
    assert_eq!(report.checks.len(), 2, "{:?}", report.checks);
    assert!(report.failures().concat().contains("not those that were signed"));
}

#[test]
fn another_program_is_found_whatever_the_log_calls_it_and_whenever_it_ran() {
    let small = b"a program of few bytes".to_vec();
    let programs = [(sha256(b"loader"), b"path".to_vec()), (sha256(&small), small)];
    // Before eci.efi, between it and the kernel, and after both.
    for (place, when) in [(4, "before eci.efi"), (5, "after eci.efi"), (6, "after the kernel")] {
        for kind in [PROGRAM, 0x8000_0004, 0x8000_0007, 4] {
            for (digest, data) in &programs {
                let event = (4, kind, *digest, data.clone());
                let said = failures(|boot| boot.firmware.insert(place, event));
                assert!(said.contains("firmware: programs: ") && said.contains(when), "{kind:#x}: {said}");
            }
        }
    }
    // One that came back has run.
    let words = b"Returning from EFI Application from Boot Option";
    let said = failures(|boot| boot.firmware.insert(6, (4, 0x8000_0007, sha256(words), words.to_vec())));
    assert!(said.contains("an earlier boot option was tried first"), "{said}");
    let said = failures(|boot| boot.firmware.insert(5, calling()));
    assert!(said.contains("something that is not known after eci.efi"), "{said}");
    // The kernel by itself, and eci.efi pretended by what it was given.
    let said = failures(|boot| boot.firmware.swap(4, 5));
    assert!(said.contains("another program before eci.efi"), "{said}");
    // Left out of the log, it is missing from what the log gives.
    let mut boot = Boot::good();
    boot.firmware.insert(4, (4, PROGRAM, sha256(b"loader"), b"path".to_vec()));
    let mut evidence = Chip::new().evidence(&boot);
    evidence.firmware_log = STANDARD.encode(Boot::good().log());
    let said = report(&evidence).failures().join("; ");
    assert!(said.contains("event log: PCR 4 is ") && said.contains("and the log gives "), "{said}");
    for (left, words) in [(4, "did not start the image's eci.efi"), (5, "eci.efi did not start the kernel")] {
        let said = failures(|boot| boot.firmware.truncate(left));
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn under_secure_boot_the_firmware_does_not_see_the_kernel() {
    let variable = |value: u8| {
        let name: Vec<_> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let lengths = [10_u64, 1].map(u64::to_le_bytes).concat();
        [&[0; 16][..], &lengths, &name, &[value]].concat()
    };
    let boot = |value: u8| {
        let mut boot = Boot::good();
        let data = variable(value);
        boot.firmware.truncate(5);
        boot.firmware.push((7, event_log::VARIABLE, sha256(&data), data));
        report(&Chip::new().evidence(&boot))
    };
    let on = boot(1);
    assert!(on.holds(), "{:?}", on.failures());
    assert!(on.checks.iter().any(|check| check.detail == "eci.efi, and nothing else"), "{:?}", on.checks);
    assert!(boot(0).failures().concat().contains("eci.efi did not start the kernel"));
}

#[test]
fn drivers_are_the_firmware_s_own_or_the_reference_s() {
    let driver = |boot: &mut Boot| boot.firmware.push((2, 4, sha256(b"driver"), SEPARATOR.to_vec()));
    assert!(failures(driver).contains("firmware: drivers: it started one of sha256 "));
    let (chip, mut boot) = (Chip::new(), Boot::good());
    driver(&mut boot);
    let evidence = chip.evidence(&boot);
    let known = Known::of(&evidence).expect("evidence");
    let again = report_of(&evidence, NONCE, None, Some(&known));
    assert!(again.holds(), "{:?}", again.failures());
}

#[test]
fn another_kernel_and_what_is_given_to_it_besides_are_found() {
    let said = failures(|boot| boot.stub = Some(Pcr(sha256(b"other parts"))));
    assert!(said.starts_with("eci.efi: parts: PCR 11 is "), "{said}");
    let said = failures(|boot| boot.stub = None);
    assert!(said.contains("the machine was given one directly"), "{said}");
    let said = failures(|boot| boot.input = b"another initramfs");
    assert!(said.contains("eci.efi: what the kernel got: another command line or initramfs"), "{said}");
    for (pcr, who) in EMPTY {
        let said = failures(|boot| boot.added = Some(pcr));
        assert!(
            said.contains(&format!("nothing beside it: something is measured in PCR {pcr}: {who}")),
            "{said}"
        );
    }
}

#[test]
fn a_boot_that_did_not_come_to_its_end_says_where_it_is() {
    let said = failures(|boot| boot.measured.retain(|(_, text)| text != READY));
    assert!(said.contains("the boot got as far as sysinit"), "{said}");
    let said = failures(|boot| boot.measured.swap(0, 1));
    assert!(said.contains("eci.efi: parts"), "{said}");
}

#[test]
fn another_root_and_other_settings_are_found() {
    let said = failures(|boot| boot.measured[4].1 = attest::root("00"));
    assert!(said.contains("root: root hash: `root:00` is measured"), "{said}");
    let said = failures(|boot| drop(boot.measured.pop()));
    assert!(said.contains("settings: digest: none are in force"), "{said}");
    let said = failures(|boot| boot.measured.push((SYSTEM, "settings:00".to_owned())));
    assert!(said.contains("or more than one"), "{said}");
    let said = failures(|boot| boot.measured[5].1 = attest::settings("00"));
    assert!(said.contains("settings: digest: `settings:00` is measured in their place"), "{said}");
    // Claimed, and not measured.
    let mut evidence = Chip::new().evidence(&Boot::good());
    evidence.measured[4].text = attest::root("00");
    assert!(report(&evidence).failures().concat().contains("what PID 1 tells of it gives"));
    let evidence = Chip::new().evidence(&Boot::good());
    let other = report_of(&evidence, NONCE, Some(Sha256::of(&[b"{}"])), None);
    assert!(other.failures().concat().contains("was wanted"), "{:?}", other.failures());
}

#[test]
fn isolation_that_is_off_is_for_those_who_take_it() {
    let off = |boot: &mut Boot| boot.measured.insert(6, (SYSTEM, attest::ISOLATION_OFF.to_owned()));
    let said = failures(off);
    assert_eq!(
        said,
        "settings: isolation: off: containers are root of the machine; --isolation-off takes that"
    );
    let mut boot = Boot::good();
    off(&mut boot);
    let (manifest, mut report) = (manifest(), Report::default());
    let taken = Expected { isolation_off: true, ..expected(&manifest) };
    judge(&Chip::new().evidence(&boot), &taken, &mut report).expect("evidence");
    assert!(report.holds(), "{:?}", report.failures());
    let said = failures(|boot| boot.measured.insert(6, (SYSTEM, "isolation:on".to_owned())));
    assert!(said.contains("or more than one"), "{said}");
}

#[test]
fn evidence_that_is_none_is_refused_in_words() {
    let good = Chip::new().evidence(&Boot::good());
    let refusal = |change: fn(&mut Evidence)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        Known::of(&evidence).expect_err("malformed").to_string()
    };
    assert_eq!(refusal(|of| of.version = 2), "the evidence has version 2; this eci-builder reads version 1");
    assert_eq!(refusal(|of| of.key = "!".to_owned()), "the evidence's key is not base64");
    assert_eq!(refusal(|of| drop(of.pcrs.pop())), "the evidence's pcrs is not 16 SHA-256 digests");
    assert_eq!(refusal(|of| of.pcrs[0] = "00".to_owned()), "the evidence's pcrs is not 16 SHA-256 digests");
    let words = "the evidence's measured is not a few plain words";
    assert_eq!(refusal(|of| of.measured[0].text = "a\u{1b}[2J".to_owned()), words);
    assert_eq!(refusal(|of| of.measured[0].text = "a\nok".to_owned()), words);
    assert_eq!(refusal(|of| of.measured = vec![of.measured[0].clone(); MOST_TEXTS + 1]), words);
    assert_eq!(refusal(|of| of.pcrs.swap(0, 15)), "the reference is no evidence of anything");
    for text in ["", "0", "zz", &"aa".repeat(LEAST_NONCE_BYTES - 1), &"aa".repeat(65)] {
        assert!(nonce(text).is_err(), "{text}");
    }
    assert_eq!(nonce(&"0f".repeat(16)).expect("a nonce"), [15; 16]);
}
