//! The host signing key: whoever holds it can speak for this host's log and packs.
//!
//! It is an unencrypted minisign secret key, because a daemon has nobody to ask for a password; file permissions
//! protect it. The public half is for `minisign -V` and is handed out of band.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hb_log::sign::{PublicKey, UNTRUSTED_COMMENT};

const KEY_DIR: &str = "keys";
const SECRET_NAME: &str = "host.key";
const PUBLIC_NAME: &str = "host.pub";
/// Permission bits that let anyone but the owner at the key.
const OTHERS_MASK: u32 = 0o077;
/// The comment line inside the key file; the file is secret whatever it says.
const SECRET_COMMENT: &str = "hb host secret key";

/// Why there is no usable host key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// `init` found a key.
    #[error("{} exists; a host key is never overwritten, move it away first if this host shall get a new one", .0.display())]
    Exists(PathBuf),
    /// There is no key yet.
    #[error("{} is missing; create the host key with `hb keys init`", .0.display())]
    Missing(PathBuf),
    /// Others may read the key.
    #[error("{} may be read by others (mode {mode:04o}); run `chmod 600 {}`", .path.display(), .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no unencrypted minisign secret key.
    #[error("{} is no usable minisign secret key: {what}; restore it from a backup", .path.display())]
    Unusable {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot use {}", .path.display())]
    World {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Signs for this host.
pub struct Signer {
    secret: minisign::SecretKey,
    public: minisign::PublicKey,
}

impl std::fmt::Debug for Signer {
    /// Shows the key id alone: the derived form would print the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.key_id())
    }
}

impl Signer {
    /// Creates the host key below a state directory; an existing one is never overwritten.
    pub fn init(state_dir: &Path) -> Result<Self, KeyError> {
        let signer = Self::generate();
        signer.save(state_dir)?;
        Ok(signer)
    }

    /// Makes this the host key of a state directory that has none. A public key that is left of one that was lost
    /// stays beside it as `host-<key id>.pub`: what it verifies is still true.
    pub fn save(&self, state_dir: &Path) -> Result<(), KeyError> {
        let dir = state_dir.join(KEY_DIR);
        let (secret_path, public_path) = (Self::secret_path(state_dir), Self::public_path(state_dir));
        if secret_path.symlink_metadata().is_ok() {
            return Err(KeyError::Exists(secret_path));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(world(&dir))?;
        if public_path.symlink_metadata().is_ok() {
            let text = fs::read_to_string(&public_path).map_err(world(&public_path))?;
            let Ok(old) = PublicKey::parse(&text) else { return Err(KeyError::Exists(public_path)) };
            fs::rename(&public_path, dir.join(format!("host-{}.pub", old.key_id()))).map_err(world(&public_path))?;
        }
        let text = self.secret.to_box(Some(SECRET_COMMENT)).expect("a fresh key has a text form").into_string();
        create_whole(&secret_path, &text, 0o600)?;
        create_whole(&public_path, &self.public_text(), 0o644)?;
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(world(&dir))
    }

    /// Reads the host key of a state directory; refuses one that others may read.
    pub fn load(state_dir: &Path) -> Result<Self, KeyError> {
        let path = Self::secret_path(state_dir);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::Missing(path)),
            Err(source) => return Err(KeyError::World { path, source }),
        };
        let mode = file.metadata().map_err(world(&path))?.mode() & 0o7777;
        if mode & OTHERS_MASK != 0 {
            return Err(KeyError::Exposed { path, mode });
        }
        let text = io::read_to_string(&mut file).map_err(world(&path))?;
        Self::from_text(&text).map_err(|error| KeyError::Unusable { path, what: error.to_string() })
    }

    /// Where the key of a state directory lies.
    pub fn secret_path(state_dir: &Path) -> PathBuf {
        state_dir.join(KEY_DIR).join(SECRET_NAME)
    }

    /// Where the public half of a state directory's key lies.
    pub fn public_path(state_dir: &Path) -> PathBuf {
        state_dir.join(KEY_DIR).join(PUBLIC_NAME)
    }

    /// Signs a message with the stock minisign prehashed scheme; the text is what `minisign -V` reads.
    ///
    /// Each call draws fresh noise (a guard against fault attacks on the key), so two signatures over one message
    /// differ. Where the same bytes must come out again, as in a sealed pack, keep the signature that was made.
    pub fn sign(&self, message: &[u8], trusted_comment: &str) -> String {
        minisign::sign(Some(&self.public), &self.secret, message, Some(trusted_comment), Some(UNTRUSTED_COMMENT))
            .expect("an unencrypted key signs bytes in memory")
            .into_string()
    }

    /// The public key file's text, as `minisign -p` and `hb_log::sign::PublicKey` read it.
    pub fn public_text(&self) -> String {
        self.public.to_box().expect("a public key has a text form").into_string()
    }

    /// The key id, as minisign shows it.
    pub fn key_id(&self) -> String {
        let id: Vec<u8> = self.public.keynum().iter().rev().copied().collect();
        data_encoding::HEXUPPER.encode(&id)
    }

    /// A key for this process alone, never written.
    pub fn generate() -> Self {
        let minisign::KeyPair { pk, sk } =
            minisign::KeyPair::generate_unencrypted_keypair().expect("the kernel gives random bytes");
        Self { secret: sk, public: pk }
    }

    fn from_text(text: &str) -> Result<Self, minisign::PError> {
        let secret = minisign::SecretKeyBox::from_string(text)?.into_unencrypted_secret_key()?;
        let public = minisign::PublicKey::from_secret_key(&secret)?;
        Ok(Self { secret, public })
    }
}

/// The public keys in a state directory: the host's, and those of keys that it had before. What cannot be read is none.
pub fn public_keys(state_dir: &Path) -> Vec<PublicKey> {
    let files = fs::read_dir(state_dir.join(KEY_DIR)).into_iter().flatten().flatten().map(|entry| entry.path());
    let public = files.filter(|path| path.extension().is_some_and(|e| e == "pub"));
    public.filter_map(|path| PublicKey::parse(&fs::read_to_string(path).ok()?).ok()).collect()
}

/// Writes a file so that it is there whole or not at all, and never over another one.
fn create_whole(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new); // left over from an attempt that was cut short
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(world(&new))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(world(&new))?;
    // A link, unlike a rename, fails where the name is taken.
    let linked = fs::hard_link(&new, path);
    let _ = fs::remove_file(&new);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KeyError::Exists(path.to_path_buf())),
        other => other.map_err(world(path)),
    }
}

fn world(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_path_buf();
    move |source| KeyError::World { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use hb_log::sign::verify;

    use super::*;

    #[test]
    fn a_signature_verifies_and_an_edited_one_does_not() {
        let signer = Signer::generate();
        let key = PublicKey::parse(&signer.public_text()).unwrap();
        let text = signer.sign(b"hello\n", "origin=hb/x/1 size=3");
        verify(&key, b"hello\n", &text).unwrap();
        assert!(verify(&key, b"hullo\n", &text).is_err());
        assert!(verify(&key, b"hello\n", &text.replace("size=3", "size=4")).is_err());
    }

    #[test]
    fn stock_minisign_accepts_the_signature() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::init(dir.path()).unwrap();
        let message = dir.path().join("checkpoint");
        fs::write(&message, "hb/x/1\n3\n").unwrap();
        fs::write(dir.path().join("checkpoint.minisig"), signer.sign(b"hb/x/1\n3\n", "size=3")).unwrap();
        let public = dir.path().join(KEY_DIR).join(PUBLIC_NAME);
        match std::process::Command::new("minisign").arg("-Vm").arg(&message).arg("-p").arg(public).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => println!("skipped: minisign is not installed ({error})"),
        }
    }

    #[test]
    fn init_makes_a_private_file_once_and_load_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Signer::load(dir.path()), Err(KeyError::Missing(_))));
        let made = Signer::init(dir.path()).unwrap();
        let path = dir.path().join("keys/host.key");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(dir.path().join("keys/host.pub")).unwrap(), made.public_text());
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 2, "no temporary file stays");
        assert!(matches!(Signer::init(dir.path()), Err(KeyError::Exists(_))));

        let read = Signer::load(dir.path()).unwrap();
        assert_eq!(read.key_id(), made.key_id());
        assert_eq!(read.public_text(), made.public_text());
        assert!(!format!("{read:?}").contains(&data_encoding::HEXLOWER.encode(&read.secret.to_bytes()[..])));
    }

    #[test]
    fn what_is_left_of_a_lost_key_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let old = Signer::init(dir.path()).unwrap();
        let keys = dir.path().join(KEY_DIR);
        fs::remove_file(keys.join(SECRET_NAME)).unwrap();
        let new = Signer::init(dir.path()).unwrap();
        assert_ne!(old.key_id(), new.key_id());
        assert_eq!(fs::read_to_string(Signer::public_path(dir.path())).unwrap(), new.public_text());
        let kept = fs::read_to_string(keys.join(format!("host-{}.pub", old.key_id()))).unwrap();
        assert_eq!(kept, old.public_text());
        let mut known: Vec<String> = public_keys(dir.path()).iter().map(PublicKey::key_id).collect();
        let mut wanted = vec![old.key_id(), new.key_id()];
        known.sort();
        wanted.sort();
        assert_eq!(known, wanted);

        fs::remove_file(keys.join(SECRET_NAME)).unwrap();
        fs::write(keys.join(PUBLIC_NAME), "no key").unwrap();
        assert!(
            matches!(Signer::init(dir.path()), Err(KeyError::Exists(_))),
            "what nobody can read is nobody's to move"
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        Signer::init(dir.path()).unwrap();
        let path = dir.path().join("keys/host.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Signer::load(dir.path()).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Signer::init(dir.path()).unwrap();
        let path = dir.path().join("keys/host.key");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen('A', "B", 3)).unwrap();
        assert!(matches!(Signer::load(dir.path()), Err(KeyError::Unusable { .. })));
    }
}
