//! What a sink plugin may reach outside its sandbox: nothing but what is written here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::name::Name;
use crate::config::read::{Fields, FromNode, Reader};
use crate::config::secret::SecretRef;
use crate::config::yaml::{Node, Value};

/// Most URLs, addresses and secrets of one sink, each: a sink speaks to one receiver, or to a few.
pub const MAX_GRANTS: usize = 64;

/// What a sink's plugin may reach; its manifest must ask for it too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GrantsConfig {
    /// URLs it may send requests to, 0 to 64. Default: none.
    pub http: Vec<HttpGrantConfig>,
    /// Addresses it may send to, word by word, 0 to 64: `udp://IP:PORT`, `tcp://IP:PORT`, `unix:///PATH` (datagrams) or
    /// `unix-stream:///PATH`. Default: none. Example: `["udp://192.0.2.7:514"]`.
    pub socket: Vec<String>,
    /// Names and secret references, 0 to 64: the host signs its requests with them, and the plugin never sees them.
    /// Default: none. Example: `{"pager": "${file:/etc/hb/pager.key}"}`.
    pub secrets: BTreeMap<String, SecretRef>,
}

/// Requests a sink's plugin may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpGrantConfig {
    /// `https://HOST/PATH` or `http://HOST:PORT/PATH`. What lies below is granted too, by whole segments of the path:
    /// `/hb` covers `/hb` and `/hb/x`, but not `/hbx`; `/hb/` covers what lies below alone. Example:
    /// `https://pager.example/hb`.
    pub url: String,
    /// Of GET, HEAD, POST, PUT, PATCH and DELETE. Example: `["POST"]`.
    pub methods: Vec<String>,
    /// Certificate authorities, PEM. Default: with `https://` those of the system. Example: `/etc/hb/ca.pem`.
    pub ca_file: Option<PathBuf>,
}

impl FromNode for GrantsConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "the grants", reader)?;
        let http = f.or("http", Vec::new(), reader);
        let socket = f.or("socket", Vec::new(), reader);
        let secrets = f.or("secrets", BTreeMap::new(), reader);
        check_names(node.get("secrets"), reader);
        for key in ["http", "socket", "secrets"] {
            check_length(key, node.get(key), reader);
        }
        f.close(reader);
        Some(GrantsConfig { http: http?, socket: socket?, secrets: secrets? })
    }
}

impl FromNode for HttpGrantConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "an http grant", reader)?;
        let url = f.need("url", reader);
        let methods = f.need("methods", reader);
        let ca_file: Option<Option<PathBuf>> = f.optional("ca_file", reader);
        f.close(reader);
        Some(HttpGrantConfig { url: url?, methods: methods?, ca_file: ca_file? })
    }
}

/// A plugin names a secret in its settings, so the name is plain.
fn check_names(secrets: Option<&Node>, reader: &mut Reader<'_>) {
    let Some(Value::Map(entries)) = secrets.map(|node| &node.value) else { return };
    for entry in entries.iter().filter(|entry| Name::parse(&entry.key).is_none()) {
        // What stands behind the name may be the secret itself.
        let place = reader.source.place(entry.key_at).hidden();
        let d = reader.error(format!("`{}` cannot be a name", entry.key)).at(place);
        reader.out.push(d.help("use letters, digits, `.`, `_` and `-`, a letter or digit first"));
    }
}

fn check_length(key: &str, granted: Option<&Node>, reader: &mut Reader<'_>) {
    let Some(node) = granted else { return };
    let length = match &node.value {
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        _ => 0,
    };
    if length > MAX_GRANTS {
        let d = reader.error(format!("`{key}` has {length} entries; at most {MAX_GRANTS} are granted to one sink"));
        reader.push(node.at, d.help("give the plugin to a second sink, with the rest"));
    }
}
