//! Keys and signatures, by themselves and against OpenSSL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::*;

fn openssl(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output();
    if output.is_err() {
        eprintln!("skipped: openssl is not installed");
    }
    output.ok()
}

#[test]
fn a_signature_holds_for_its_message_and_key_alone() {
    let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
    let mut signature = key.sign(b"message");
    assert!(key.public().verifies(b"message", &signature));
    assert!(!key.public().verifies(b"messagf", &signature));
    assert!(!other.public().verifies(b"message", &signature));
    assert!(!key.public().verifies(b"message", &signature[..63]));
    signature[0] ^= 1;
    assert!(!key.public().verifies(b"message", &signature));
}

#[test]
fn generated_keys_are_private_and_are_never_overwritten() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = generate(folder.path()).expect("fresh folder");
    let private = folder.path().join(PRIVATE_NAME);
    let mode = fs::metadata(&private).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(SigningKey::read(&private).expect("our own key").public(), key.public());
    assert_eq!(PublicKey::read(&folder.path().join(PUBLIC_NAME)).expect("our own key"), key.public());
    fs::remove_file(&private).expect("removed");
    let error = generate(folder.path()).expect_err("the public key is still there");
    assert!(error.to_string().ends_with("image.pub` exists; a key is never overwritten"), "{error}");
    assert!(!private.exists());
}

#[test]
fn either_half_of_a_pair_gives_the_public_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = generate(folder.path()).expect("fresh folder");
    for name in [PRIVATE_NAME, PUBLIC_NAME] {
        let read = PublicKey::read_of_either(&folder.path().join(name)).expect("our own key");
        assert_eq!(read, key.public());
    }
    let error = PublicKey::read_of_either(&folder.path().join("none")).expect_err("not there");
    assert!(error.to_string().starts_with("cannot read the key"), "{error}");
}

#[test]
fn the_host_s_key_is_made_once() {
    let home = tempfile::tempdir().expect("temporary folder");
    let folder = home.path().join("keys/development");
    let first = host_key(&folder).expect("made");
    assert_eq!(host_key(&folder).expect("found").public(), first.public());
    assert_eq!(fs::read_dir(home.path().join("keys")).expect("listing").count(), 1);
}

#[test]
fn openssl_reads_our_keys_and_checks_our_signatures() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = generate(folder.path()).expect("fresh folder");
    let Some(derived) = openssl(folder.path(), &["pkey", "-in", PRIVATE_NAME, "-pubout"]) else { return };
    let public = fs::read(folder.path().join(PUBLIC_NAME)).expect("public key");
    assert_eq!(derived.stdout, public, "{derived:?}");
    fs::write(folder.path().join("m"), "message").expect("message");
    fs::write(folder.path().join("s"), key.sign(b"message")).expect("signature");
    let verify =
        ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", PUBLIC_NAME, "-in", "m", "-sigfile", "s"];
    let output = openssl(folder.path(), &verify).expect("openssl was there before");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn keys_made_by_openssl_are_read_and_other_kinds_are_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name);
    let make = |name: &str, more: &[&str]| {
        openssl(folder.path(), &[&["genpkey", "-out", name], more].concat())
            .map(|o| assert!(o.status.success(), "{o:?}"))
    };
    let Some(()) = make("good", &["-algorithm", "ed25519"]) else { return };
    make("encrypted", &["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"]);
    make("x25519", &["-algorithm", "x25519"]);
    SigningKey::read(&path("good")).expect("an Ed25519 key");
    fs::write(path("pub"), pem::public(&[1; 32])).expect("public key");
    let reason = |name: &str| {
        let text = SigningKey::read(&path(name)).expect_err("not a private key").to_string();
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(
        reason("encrypted"),
        "the key `encrypted` is encrypted; decrypt it with `openssl pkey -in FILE -out FILE`"
    );
    assert_eq!(reason("x25519"), "the key `x25519` is not an Ed25519 private key");
    assert_eq!(reason("pub"), "`pub` holds a public key, not an Ed25519 private key");
    assert_eq!(reason("none"), "cannot read the key `none`");
}

#[test]
fn files_that_are_no_keys_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("key");
    for (text, reason) in [
        ("", "is not a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\n", "is not a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\n%%%%\n-----END PUBLIC KEY-----\n", "is not a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not an Ed25519 public key"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds a certificate, not an Ed25519 public key",
        ),
    ] {
        fs::write(&path, text).expect("file");
        let error = PublicKey::read(&path).expect_err(text).to_string();
        assert!(error.ends_with(reason), "{error}");
    }
}

#[test]
fn debug_output_does_not_show_the_key() {
    let shown = format!("{:?}", SigningKey::from_seed(&[1; 32]));
    assert_eq!(shown, format!("SigningKey({})", SigningKey::from_seed(&[1; 32]).public().id()));
}
