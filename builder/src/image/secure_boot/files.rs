//! Key files: PK, KEK and db, each with its certificate and what enrols it; made together, never overwritten.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::content_uuid;
use super::variables::{self, DB, KEK, PK, Variable};
use super::{Error, Signer};
use crate::tool::Tool;
use crate::ui::Ui;

/// Folder of the keys, inside of the one with the image key.
pub const FOLDER: &str = "secure-boot";
/// Firmware does not look at a certificate's time, so that nobody is locked out when it is over.
const DAYS: &str = "7300";
/// Every firmware takes this size.
const ALGORITHM: &str = "rsa:2048";

/// Makes the folder [`FOLDER`] in `parent`: of each variable a private key (`.key`, mode 0600), its certificate (`.crt`), the
/// signature list with it (`.esl`) and the signed change that enrols it (`.auth`).
///
/// # Errors
/// [`Error::Exists`], and [`Error`] when something cannot be made.
pub fn generate(parent: &Path, ui: &Ui) -> Result<Signer, Error> {
    let place = parent.join(FOLDER);
    if place.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: place });
    }
    let write = |source| Error::Write { path: place.clone(), source };
    fs::create_dir_all(parent).map_err(write)?;
    // Made beside and renamed, so that a second process at the same moment finds all of it or nothing.
    let fresh = tempfile::tempdir_in(parent).map_err(write)?;
    for variable in [PK, KEK, DB] {
        make_key(fresh.path(), variable, ui)?;
    }
    let signer = |variable| signer(fresh.path(), variable);
    let (platform, exchange, programs) = (signer(PK)?, signer(KEK)?, signer(DB)?);
    let owner = content_uuid("eci secure boot owner", platform.certificate().der());
    for (variable, of, by) in
        [(PK, &platform, &platform), (KEK, &exchange, &platform), (DB, &programs, &exchange)]
    {
        let list = variables::list(of.certificate(), owner)?;
        let change = variables::change(variable, &list, by)?;
        for (ending, bytes) in [("esl", &list), ("auth", &change)] {
            let path = fresh.path().join(format!("{}.{ending}", variable.name));
            fs::write(&path, bytes).map_err(|source| Error::Write { path, source })?;
        }
    }
    fs::set_permissions(fresh.path(), Permissions::from_mode(0o755)).map_err(write)?;
    fs::rename(fresh.path(), &place).map_err(write)?;
    Ok(programs)
}

/// The db key that this host signs with when none was named: made in `parent` on first use, the same ever after.
///
/// # Errors
/// [`Error`].
pub fn host_signer(parent: &Path, ui: &Ui) -> Result<Signer, Error> {
    let place = parent.join(FOLDER);
    match generate(parent, ui) {
        // Another build may have been first.
        Err(Error::Exists { .. } | Error::Write { .. }) if place.exists() => signer(&place, DB),
        made => made,
    }
}

fn signer(folder: &Path, variable: Variable) -> Result<Signer, Error> {
    let file = |ending: &str| folder.join(format!("{}.{ending}", variable.name));
    Signer::read(&file("key"), &file("crt"))
}

/// A key and a certificate of itself that signs no other: what has it in db trusts this one key.
fn make_key(folder: &Path, variable: Variable, ui: &Ui) -> Result<(), Error> {
    let file = |ending: &str| folder.join(format!("{}.{ending}", variable.name));
    let (key, config) = (file("key"), file("cnf"));
    let text = format!(
        "[req]\ndistinguished_name=name\nx509_extensions=extensions\nprompt=no\n\
         [name]\nCN=ECI appliance {}\n\
         [extensions]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\n",
        variable.name
    );
    fs::write(&config, text).map_err(|source| Error::Write { path: config.clone(), source })?;
    // The folder is nobody else's, and keys are made with mode 0600.
    let made = Tool::new("openssl")
        .args(["req", "-new", "-x509", "-newkey", ALGORITHM, "-nodes", "-sha256", "-days", DAYS])
        .arg("-config")
        .arg(&config)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(file("crt"))
        .run(ui);
    made.map_err(|source| Error::OpenSsl { name: variable.name, source })?;
    fs::remove_file(&config).map_err(|source| Error::Write { path: config, source })?;
    let private = fs::set_permissions(&key, Permissions::from_mode(0o600));
    private.map_err(|source| Error::Write { path: key, source })
}
