//! Signs what was built with a publisher's key that exists for development alone.

use anyhow::{Context, Result};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

pub(super) struct Publisher {
    public: PublicKey,
    secret: SecretKey,
}

impl Publisher {
    /// The key pair in `<stem>.key` and `<stem>.pub`; made once, without a password.
    pub(super) fn load_or_create(stem: &Path) -> Result<Self> {
        let key = stem.with_extension("key");
        let public = stem.with_extension("pub");
        if !key.is_file() {
            let pair = KeyPair::generate_unencrypted_keypair()?;
            write_private(&key, &pair.sk.to_box(Some("hb development publisher"))?.into_string())?;
            fs::write(&public, pair.pk.to_box()?.into_string())?;
        }
        let text = fs::read_to_string(&key).with_context(|| key.display().to_string())?;
        let secret = SecretKeyBox::from_string(&text)?.into_unencrypted_secret_key()?;
        let public = PublicKey::from_secret_key(&secret)?;
        Ok(Self { public, secret })
    }

    /// Writes a file and its signature beside it. A file that stays the same keeps its date.
    pub(super) fn place(&self, file: &Path, content: &[u8]) -> Result<()> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let signature = minisign::sign(
            Some(&self.public),
            &self.secret,
            Cursor::new(content),
            // No time: the same bytes have the same signature.
            Some(&format!("file:{name}\thashed")),
            Some("signature of an hb development build"),
        )?;
        replace(file, content)?;
        replace(&file.with_file_name(format!("{name}.minisig")), signature.into_string().as_bytes())
    }
}

/// Writes through a temporary name, so that nobody loads half a file.
fn replace(file: &Path, content: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let part = file.with_file_name(format!("{}.part", file.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&part, content)?;
    fs::rename(&part, file).with_context(|| file.display().to_string())
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}
