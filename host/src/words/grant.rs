//! What a deployment grants its modules: origins to which their actions may send HTTP requests.

use std::collections::BTreeMap;
use std::fmt;

use crate::words::{Digest, limits};

/// Scheme, host and port, as in `https://api.example.com` or `http://127.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    https: bool,
    /// In lower case.
    host: String,
    port: u16,
}

impl Origin {
    /// An error says what is wrong, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = |why: &str| {
            format!("{text:?} is not an origin: {why}; write it like https://api.example.com")
        };
        let uri: http::Uri = text.parse().map_err(|_| fault("it cannot be read"))?;
        let origin =
            Self::of(&uri).ok_or_else(|| fault("it needs http:// or https:// and a host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(fault("it must end after the host and the port"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(fault("it must not have a user"));
        }
        if text.len() > limits::ORIGIN_BYTES_MAX {
            return Err(fault("it is too long"));
        }
        Ok(origin)
    }

    /// None if it is neither HTTP nor HTTPS, or has no host.
    pub fn of(uri: &http::Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host, port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// The grants of a revision, by module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub BTreeMap<Digest, Vec<Origin>>);

impl Grants {
    pub fn of(&self, module: &Digest) -> &[Origin] {
        self.0.get(module).map(Vec::as_slice).unwrap_or_default()
    }

    /// As it is stored: a line for each, `DIGEST http=ORIGIN`.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (module, origins) in &self.0 {
            for origin in origins {
                text.push_str(&format!("{module} http={origin}\n"));
            }
        }
        text
    }

    /// None if it was not written by [`encode`](Self::encode).
    pub fn decode(text: &str) -> Option<Self> {
        let mut grants = Self::default();
        for line in text.lines() {
            let (module, origin) = line.split_once(" http=")?;
            let origin = Origin::parse(origin).ok()?;
            grants.0.entry(Digest::parse(module)?).or_default().push(origin);
        }
        Some(grants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).expect("an origin")
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let granted = origin("https://API.example.com");
        let is = |uri: &str| Origin::of(&uri.parse().expect("a URI")).as_ref() == Some(&granted);
        assert!(is("https://api.example.com/v1?x=1"));
        assert!(is("https://api.example.com:443/"));
        for other in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://api.example.com.evil.test/",
            "https://api.example.com@evil.test/",
        ] {
            assert!(!is(other), "{other}");
        }
        assert_eq!(granted.to_string(), "https://api.example.com");
        assert_eq!(origin("http://127.0.0.1:8080/").to_string(), "http://127.0.0.1:8080");
        assert_eq!(origin("http://[::1]:8080").to_string(), "http://[::1]:8080");
    }

    #[test]
    fn what_is_no_origin_is_refused_with_a_reason() {
        for wrong in [
            "",
            "*",
            "api.example.com",
            "ftp://x",
            "https://",
            "https://x/path",
            "https://x/?q",
            "https://user@x",
        ] {
            let sentence = Origin::parse(wrong).expect_err("refused");
            assert!(sentence.contains("https://api.example.com"), "{sentence}");
        }
    }

    #[test]
    fn grants_are_read_as_they_were_written() {
        let mut grants = Grants::default();
        assert_eq!(Grants::decode(&grants.encode()), Some(Grants::default()));
        let origins = vec![origin("https://a.test"), origin("http://[::1]:8080")];
        grants.0.insert(Digest::of(b"one"), origins);
        grants.0.insert(Digest::of(b"two"), vec![origin("https://b.test:8443")]);
        assert_eq!(Grants::decode(&grants.encode()), Some(grants));
        assert_eq!(Grants::decode("anything"), None);
    }
}
