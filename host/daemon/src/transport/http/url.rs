//! URLs as the host allows them: read strictly, so that what is checked against a grant is what is asked for.
//!
//! Whatever two programs might read differently is refused rather than repaired: user names, backslashes, fragments,
//! dots as segments, escaped dots and slashes. What is left has one meaning, and a prefix is a prefix.

use std::fmt;
use std::net::Ipv6Addr;

/// Longest URL in bytes: what receivers and proxies accept for certain.
const MAX_URL_BYTES: usize = 2_048;

/// Longest name of a host, by DNS.
const MAX_HOST_BYTES: usize = 253;

/// A URL that has one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: Scheme,
    /// In lower case; an IPv6 address with its brackets.
    host: String,
    port: u16,
    /// Begins with a slash.
    path: String,
    query: Option<String>,
}

/// How it is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Url {
    /// Reads a URL, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Url, String> {
        if text.len() > MAX_URL_BYTES {
            return Err(format!("a URL has at most {MAX_URL_BYTES} bytes"));
        }
        let odd = |c: &char| !c.is_ascii_graphic() || "\\\"<>^`{|}#".contains(*c);
        if let Some(c) = text.chars().find(odd) {
            return Err(format!("a URL holds no `{}`", c.escape_default()));
        }
        let (scheme, rest) = text.split_once("://").ok_or("a URL begins with https:// or http://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err("a URL begins with https:// or http://".into()),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = read_authority(authority)?;
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query.to_owned())));
        let path = if path.is_empty() { "/" } else { path };
        check_path(path)?;
        Ok(Url { scheme, host, port: port.unwrap_or(scheme.port()), path: path.to_owned(), query })
    }

    /// Whether `other` lies at this URL or below it. Segments are compared whole: `/hb` covers `/hb` and `/hb/x`, but not
    /// `/hbx`; `/hb/` covers what lies below alone.
    pub fn covers(&self, other: &Url) -> bool {
        let same_place = (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port);
        let below = other.path.strip_prefix(self.path.as_str());
        same_place && below.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'))
    }

    /// Whether it is spoken over TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// Whether it has a query.
    pub fn has_query(&self) -> bool {
        self.query.is_some()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != self.scheme.port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

fn read_authority(text: &str) -> Result<(String, Option<u16>), String> {
    if text.contains('@') {
        return Err("a URL holds no user name; a receiver that wants a password gets it in a header".into());
    }
    // The colons of an IPv6 address lie inside brackets.
    let end = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[end..].find(':') {
        Some(colon) => (&text[..end + colon], Some(&text[end + colon + 1..])),
        None => (text, None),
    };
    let port = port.map(|port| {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let number = port.parse().ok().filter(|&number| digits && number > 0);
        number.ok_or_else(|| format!("`{port}` is no port"))
    });
    Ok((read_host(host)?, port.transpose()?))
}

fn read_host(text: &str) -> Result<String, String> {
    if let Some(inside) = text.strip_prefix('[') {
        let address = inside.strip_suffix(']').and_then(|inside| inside.parse::<Ipv6Addr>().ok());
        return address.map(|a| format!("[{a}]")).ok_or_else(|| format!("`{text}` is no IPv6 address"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if text.is_empty() || text.len() > MAX_HOST_BYTES || !text.bytes().all(plain) {
        return Err(format!("`{text}` is no host"));
    }
    Ok(text.to_ascii_lowercase())
}

fn check_path(path: &str) -> Result<(), String> {
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let byte = rest.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            None => return Err("a `%` in a path is followed by two hexadecimal digits".into()),
            Some(b'.' | b'/' | b'\\' | b'%' | 0x00..=0x1f | 0x7f) => {
                return Err(format!("`{}` is escaped in a path", &rest[at..at + 3]));
            }
            Some(_) => rest = &rest[at + 3..],
        }
    }
    // Some servers take `..;x` for `..`.
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if path.split('/').any(dots) { Err("`.` and `..` are no segments of a path".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(grant: &str, asked: &str) -> bool {
        let asked = Url::parse(asked).unwrap_or_else(|e| panic!("{asked}: {e}"));
        Url::parse(grant).unwrap().covers(&asked)
    }

    #[test]
    fn a_grant_covers_what_lies_below_it() {
        for (grant, asked) in [
            ("https://h.example/hb", "https://h.example/hb"),
            ("https://h.example/hb", "https://h.example/hb/"),
            ("https://h.example/hb", "https://h.example/hb/a?b=/../c"),
            ("https://h.example/hb", "https://h.example/hb?x"),
            ("https://h.example/hb/", "https://h.example/hb/a"),
            ("https://h.example", "https://h.example/anything"),
            ("https://h.example", "https://h.example?q"),
            ("https://h.example/", "HTTPS://H.EXAMPLE:443/a"),
            ("http://h.example:80/a", "http://h.example/a"),
            ("http://[::1]:8080/", "http://[0:0::1]:8080/x"),
        ] {
            assert!(covers(grant, asked), "{grant} {asked}");
        }
        for (grant, asked) in [
            ("https://h.example/hb", "https://h.example/hbx"),
            ("https://h.example/hb", "https://h.example/"),
            ("https://h.example/hb/", "https://h.example/hb"),
            ("https://h.example/hb", "https://h.example/HB"),
            ("https://h.example/hb", "http://h.example/hb"),
            ("https://h.example/hb", "https://h.example:8443/hb"),
            ("https://h.example/hb", "https://h.example.evil/hb"),
            ("https://h.example/hb", "https://h.example./hb"),
            ("https://h.example/hb", "https://evil.h.example/hb"),
            ("http://127.0.0.1/", "http://0x7f000001/"),
            ("http://127.0.0.1/", "http://[::ffff:127.0.0.1]/"),
        ] {
            assert!(!covers(grant, asked), "{grant} {asked}");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for text in [
            "https://h.example@evil/hb",
            "https://user:pass@h.example/hb",
            "https://h.example\\@evil/hb",
            "https://h.example/hb/../admin",
            "https://h.example/hb/..",
            "https://h.example/hb/./x",
            "https://h.example/hb/..;/admin",
            "https://h.example/hb/%2e%2e/admin",
            "https://h.example/hb/.%2E/admin",
            "https://h.example/hb%2f..%2fadmin",
            "https://h.example/hb/%5c..",
            "https://h.example/hb/%252e%252e/admin",
            "https://h.example/hb/%0d%0aX: y",
            "https://h.example/hb/%",
            "https://h.example/hb/%+1",
            "https://h.example/hb/%zz",
            "https://h.example/hb#x",
            "https://h.example/h b",
            "https://h.example/h\r\nHost: evil",
            "https://h.example/ä",
            "https://h.example:/",
            "https://h.example:0/",
            "https://h.example:+80/",
            "https://h.example:65536/",
            "https://h.example:80:90/",
            "https://[::1/",
            "https://[h.example]/",
            "https://[::1]x/",
            "https:///hb",
            "https://",
            "https:/h.example",
            "//h.example/",
            "ftp://h.example/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse(&format!("https://h/{}", "x".repeat(MAX_URL_BYTES))).is_err());
    }

    #[test]
    fn it_is_written_as_it_was_understood() {
        for (text, written) in [
            ("HTTP://H.Example:80", "http://h.example/"),
            ("https://h:8443/a/b?c=d&e", "https://h:8443/a/b?c=d&e"),
            ("http://[::0001]/", "http://[::1]/"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(Url::parse(written).unwrap(), url);
        }
    }
}
