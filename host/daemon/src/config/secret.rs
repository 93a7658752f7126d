//! A secret is written in the config as a reference and read only where it is used.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::config::read::{FromNode, Reader};
use crate::config::yaml::{Node, Value};

/// What to write instead of a secret in plain text.
pub const FORMS: &str = "${file:/etc/hb/mqtt.pass}, ${credential:mqtt} or ${env:HB_MQTT_PASS}";

/// Largest secret in bytes: a private key in PEM has 4 kB.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Words that make a key secret when they are its last word, as in `mqtt_password`.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "secret",
    "token",
    "credential",
    "credentials",
    "apikey",
    "bearer",
];

/// Words that make `<word>_key` secret; `routing_key` and `primary_key` are none.
const SECRET_KEYS: [&str; 11] =
    ["api", "private", "access", "secret", "signing", "encryption", "client", "tls", "ssl", "auth", "shared"];

/// Where a secret is to be found. Showing it shows the reference, never the secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretRef {
    /// `${file:/path}`: the content of a file, without a final line feed.
    File(PathBuf),
    /// `${credential:name}`: a file of that name in `$CREDENTIALS_DIRECTORY`, as systemd provides it.
    Credential(String),
    /// `${env:NAME}`: an environment variable. The weakest form: other processes of the user can read it.
    Env(String),
}

/// A text that could be a reference but is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a secret reference")]
pub struct NotAReference(pub String);

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("environment variable {0} is not set")]
    NoVariable(String),
    /// There is no credentials directory.
    #[error("no credential {0}: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
    /// The file could not be read.
    #[error("cannot read the secret from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is empty, too large or not text.
    #[error("{0} holds no usable secret")]
    Unusable(SecretRef),
}

impl SecretRef {
    /// Reads a reference. `Ok(None)` means that the text does not look like one at all.
    pub fn parse(text: &str) -> Result<Option<SecretRef>, NotAReference> {
        if !text.contains("${") {
            return Ok(None);
        }
        let not = || NotAReference(text.to_owned());
        let inner = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).ok_or_else(not)?;
        let name_like =
            |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) && n != "..";
        match inner.split_once(':') {
            Some(("file", path)) if Path::new(path).is_absolute() => Ok(Some(SecretRef::File(path.into()))),
            Some(("credential", name)) if name_like(name) => Ok(Some(SecretRef::Credential(name.to_owned()))),
            Some(("env", name)) if name_like(name) => Ok(Some(SecretRef::Env(name.to_owned()))),
            _ => Err(not()),
        }
    }

    /// Reads the secret from the surroundings of this process.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        self.resolve_with(|name| std::env::var_os(name))
    }

    /// Reads the secret; environment variables come from `env`.
    pub fn resolve_with<S: AsRef<OsStr>>(&self, env: impl Fn(&str) -> Option<S>) -> Result<Secret, SecretError> {
        let text = match self {
            SecretRef::Env(name) => {
                let value = env(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?;
                value.as_ref().to_str().map(str::to_owned)
            }
            SecretRef::File(path) => read(path)?,
            SecretRef::Credential(name) => {
                let dir = env("CREDENTIALS_DIRECTORY").ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read(&Path::new(dir.as_ref()).join(name))?
            }
        };
        let text = text.map(|t| t.strip_suffix('\n').map_or(t.clone(), |t| t.trim_end_matches('\r').to_owned()));
        text.filter(|t| !t.is_empty()).map(Secret).ok_or_else(|| SecretError::Unusable(self.clone()))
    }
}

fn read(path: &Path) -> Result<Option<String>, SecretError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8(bytes).ok().filter(|t| t.len() as u64 <= MAX_SECRET_BYTES))
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::File(path) => write!(f, "${{file:{}}}", path.display()),
            SecretRef::Credential(name) => write!(f, "${{credential:{name}}}"),
            SecretRef::Env(name) => write!(f, "${{env:{name}}}"),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromNode for SecretRef {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) => match SecretRef::parse(text) {
                Ok(Some(secret)) => return Some(secret),
                Ok(None) => plain_secret(node, "it", reader),
                Err(_) => bad_reference(node, reader),
            },
            _ => reader.expected(node, &format!("a secret reference: {FORMS}")),
        }
        None
    }
}

/// A secret that has been read. It cannot be shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// Whether a key of this name holds a secret. Names of files that hold one (`password_file`) are none themselves.
pub fn is_secret_name(key: &str) -> bool {
    let mut name = String::with_capacity(key.len() + 4);
    let mut before = ' ';
    for c in key.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            name.push('_');
        }
        name.extend(c.to_lowercase());
        before = c;
    }
    let words: Vec<&str> = name.split(['_', '-', '.', ' ']).filter(|w| !w.is_empty()).collect();
    match words.as_slice() {
        ["key"] => true,
        [.., before, "key"] => SECRET_KEYS.contains(before),
        [.., last] => SECRET_WORDS.contains(last),
        [] => false,
    }
}

/// Whether a line of YAML may hold a secret: one of its keys has a secret's name, or holds several under names of their
/// own.
pub(crate) fn may_hold_secret(line: &str) -> bool {
    let keys = line.split(':').map(|part| part.trim_end_matches(['"', '\'', ' ']));
    keys.filter_map(|part| part.rsplit([' ', '{', ',', '"', '\'', '\t']).next())
        .any(|key| key == "secrets" || is_secret_name(key))
}

/// Looks through free-form settings: secrets in plain text and malformed references are errors, and the references
/// are returned in the order of the file.
pub(crate) fn check_settings(node: &Node, reader: &mut Reader<'_>) -> Vec<SecretRef> {
    let mut found = Vec::new();
    walk(node, None, reader, &mut found);
    found
}

fn walk(node: &Node, key: Option<&str>, reader: &mut Reader<'_>, found: &mut Vec<SecretRef>) {
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|e| walk(&e.value, Some(&e.key), reader, found)),
        Value::List(items) => items.iter().for_each(|item| walk(item, key, reader, found)),
        Value::Text(text) => match (SecretRef::parse(text), key.filter(|k| is_secret_name(k))) {
            (Ok(Some(secret)), _) => found.push(secret),
            (Err(_), _) => bad_reference(node, reader),
            (Ok(None), Some(key)) if !text.is_empty() => plain_secret(node, key, reader),
            _ => {}
        },
        Value::Int(_) | Value::Float(_) => {
            if let Some(key) = key.filter(|k| is_secret_name(k)) {
                plain_secret(node, key, reader);
            }
        }
        Value::Null | Value::Refused | Value::Bool(_) => {}
    }
}

fn plain_secret(node: &Node, key: &str, reader: &mut Reader<'_>) {
    // The line is not shown: it ends on terminals and in tickets.
    let place = reader.source.place(node.at).hidden();
    let d = reader.error("secret in plain text").at(place);
    reader.out.push(d.help(format!("write `{key}: ${{file:/etc/hb/{key}}}`; the forms are {FORMS}")));
}

fn bad_reference(node: &Node, reader: &mut Reader<'_>) {
    let place = reader.source.place(node.at).hidden();
    let d = reader.error("not a secret reference").at(place);
    reader.out.push(d.help(format!("the forms are {FORMS}; a file needs an absolute path")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_names_are_told_from_others() {
        for key in ["password", "mqtt_password", "apiKey", "api-key", "key", "auth_token", "private_key", "TOKEN"] {
            assert!(is_secret_name(key), "{key}");
        }
        for key in
            ["password_file", "key_path", "routing_key", "tokens_per_sec", "keys", "pin", "monkey", "secretary", ""]
        {
            assert!(!is_secret_name(key), "{key}");
        }
    }

    #[test]
    fn a_line_with_a_secret_is_recognised() {
        for line in
            ["  password: x", "- { host: a, \"api_key\": x }", "mqtt_token : x", "\tpassword:\tx", "secrets: { a: x }"]
        {
            assert!(may_hold_secret(line), "{line}");
        }
        assert!(!may_hold_secret("  - metric: \"cpu:load\" # password?"));
    }

    #[test]
    fn references_are_read_and_shown_without_their_content() {
        for text in ["${file:/etc/hb/x}", "${credential:mqtt}", "${env:HB_X}"] {
            assert_eq!(format!("{:?}", SecretRef::parse(text).unwrap().unwrap()), text);
        }
        assert_eq!(SecretRef::parse("hunter2"), Ok(None));
        for text in ["${file:relative}", "${env:}", "${vault:x}", "x${env:X}", "${env:X", "${credential:../x}", "${}"] {
            assert!(SecretRef::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_comes_from_its_place_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mqtt"), "hunter2\r\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        let env = |name: &str| match name {
            "X" => Some("from env".into()),
            "CREDENTIALS_DIRECTORY" => Some(dir.path().as_os_str().to_owned()),
            _ => None,
        };
        let secret = SecretRef::Credential("mqtt".into()).resolve_with(env).unwrap();
        assert_eq!((secret.expose(), format!("{secret:?}").as_str()), ("hunter2", "Secret(...)"));
        assert_eq!(SecretRef::File(dir.path().join("mqtt")).resolve_with(env).unwrap(), secret);
        assert_eq!(SecretRef::Env("X".into()).resolve_with(env).unwrap().expose(), "from env");
        assert!(matches!(SecretRef::Env("Y".into()).resolve_with(env), Err(SecretError::NoVariable(_))));
        assert!(matches!(SecretRef::File(dir.path().join("no")).resolve_with(env), Err(SecretError::Read { .. })));
        assert!(matches!(SecretRef::Credential("empty".into()).resolve_with(env), Err(SecretError::Unusable(_))));
        let none = |_: &str| None::<String>;
        assert!(matches!(SecretRef::Credential("mqtt".into()).resolve_with(none), Err(SecretError::NoCredentials(_))));
    }
}
