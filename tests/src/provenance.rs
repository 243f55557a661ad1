//! The provenance of an image, taken apart and put together with base64, JSON and OpenSSL alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::command;

/// File name of the provenance.
pub const FILE: &str = "provenance.intoto.json";

/// The envelope in an artifact folder.
pub struct Provenance {
    path: PathBuf,
    /// The envelope as JSON has it.
    pub envelope: Value,
}

impl Provenance {
    /// Reads it.
    ///
    /// # Errors
    /// When it is missing or not JSON.
    pub fn read(out: &Path) -> Result<Self> {
        let path = out.join(FILE);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let envelope = serde_json::from_slice(&text).with_context(|| format!("{FILE} is not JSON"))?;
        Ok(Self { path, envelope })
    }

    /// The text of the statement.
    ///
    /// # Errors
    /// When the envelope has none.
    pub fn statement(&self) -> Result<String> {
        Ok(String::from_utf8(decode(&self.envelope["payload"])?)?)
    }

    /// Puts another statement into the envelope, which keeps its signature.
    pub fn replace_statement(&mut self, text: &str) {
        self.envelope["payload"] = BASE64.encode(text).into();
    }

    /// The commit of the project that the image is from, where it names one.
    ///
    /// # Errors
    /// When the statement is not JSON.
    pub fn commit(&self) -> Result<Option<String>> {
        let statement: Value = serde_json::from_str(&self.statement()?)?;
        let materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array();
        let mut commits = materials.into_iter().flatten().map(|material| &material["digest"]["gitCommit"]);
        Ok(commits.find_map(|commit| commit.as_str().map(str::to_owned)))
    }

    /// What is signed, by the rule of DSSE: `DSSEv1`, then type and statement, each behind its length.
    ///
    /// # Errors
    /// When the envelope has no statement.
    pub fn to_be_signed(&self) -> Result<Vec<u8>> {
        let kind = self.envelope["payloadType"].as_str().context("the envelope has no type")?;
        let statement = self.statement()?;
        Ok(format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len()).into_bytes())
    }

    /// What OpenSSL says of its one signature and a public key.
    ///
    /// # Errors
    /// When there is not one signature, or OpenSSL cannot be run.
    pub fn verified_by_openssl(&self, key: &Path) -> Result<command::Outcome> {
        let signatures = self.envelope["signatures"].as_array().context("the envelope has no signatures")?;
        ensure!(signatures.len() == 1, "{} signatures", signatures.len());
        let folder = tempfile::tempdir()?;
        let (message, signature) = (folder.path().join("message"), folder.path().join("signature"));
        fs::write(&message, self.to_be_signed()?)?;
        fs::write(&signature, decode(&signatures[0]["sig"])?)?;
        let [key, message, signature] = [key, &message, &signature].map(|path| path.to_string_lossy());
        let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &key, "-in", &message];
        command::host("openssl", &[&verify[..], &["-sigfile", &signature]].concat())
    }

    /// Replaces its signature by OpenSSL's with a private key.
    ///
    /// # Errors
    /// When OpenSSL does not sign.
    pub fn sign(&mut self, key: &Path) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (message, signature) = (folder.path().join("message"), folder.path().join("signature"));
        fs::write(&message, self.to_be_signed()?)?;
        let [key, from, to] = [key, &message, &signature].map(|path| path.to_string_lossy());
        let sign = ["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &from, "-out", &to];
        command::host("openssl", &sign)?.ok()?;
        self.envelope["signatures"][0]["sig"] = BASE64.encode(fs::read(&signature)?).into();
        Ok(())
    }

    /// Writes it where it was read, and its digest into the sums.
    ///
    /// # Errors
    /// When either cannot be written, or the sums have no such line.
    pub fn write(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.envelope)?;
        fs::write(&self.path, &bytes)?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let sums = self.path.with_file_name("SHA256SUMS");
        let text = fs::read_to_string(&sums)?;
        let old = text.lines().find(|line| line.ends_with(&format!("  {FILE}")));
        let old = old.with_context(|| format!("SHA256SUMS does not name {FILE}"))?;
        fs::write(&sums, text.replace(old, &format!("{digest}  {FILE}")))?;
        Ok(())
    }
}

fn decode(field: &Value) -> Result<Vec<u8>> {
    let text = field.as_str().context("a field of the envelope is missing")?;
    BASE64.decode(text).context("a field of the envelope is not base64")
}
