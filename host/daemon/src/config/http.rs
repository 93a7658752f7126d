//! Where a daemon says how it stands.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use crate::config::read::{Fields, FromNode, Reader};
use crate::config::yaml::Node;

/// Usual port of programs that show their own metrics to Prometheus.
const DEFAULT_PORT: u16 = 9_464;

/// Health and metrics over HTTP. Without this section no port is opened, as with other telemetry agents: a second
/// instance on a machine would find it taken. Under `--once` none is opened either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpConfig {
    /// IP address and port; port 0 takes a free one. The address in use stands in the log and in `http.addr` of the
    /// state directory. Default: `127.0.0.1:9464`. Example: `127.0.0.1:9100`.
    pub listen: SocketAddr,
    /// Whether other machines may ask: there is no password and no encryption. Default: false. Example: `true`.
    pub allow_remote: bool,
}

impl FromNode for HttpConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "http", reader)?;
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));
        let listen = f.or("listen", default, reader);
        let allow_remote = f.or("allow_remote", false, reader);
        if let (Some(listen), Some(false)) = (listen, allow_remote)
            && !listen.ip().is_loopback()
        {
            let d = reader.error(format!("`{}` is reached by other machines", listen.ip()));
            let help = "listen on 127.0.0.1, or write `allow_remote: true` where the network keeps strangers out";
            reader.push(f.span("listen"), d.help(help));
        }
        f.close(reader);
        Some(HttpConfig { listen: listen?, allow_remote: allow_remote? })
    }
}

impl FromNode for SocketAddr {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_node(node, reader)?;
        let address = text.parse().ok();
        if address.is_none() {
            let d = reader.error(format!("`{text}` is no address with a port"));
            reader.push(node.at, d.help("write it as 127.0.0.1:9464 or [::1]:9464; port 0 takes a free one"));
        }
        address
    }
}
