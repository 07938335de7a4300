//! Who may ask, and how much at a time: the checks before a request is answered, and the headers of every answer.
//!
//! Pure but for the clock and the bound on requests at work.

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::web::problem::Problem;

/// The longest path and query.
pub const MAX_URL: usize = 8 * 1024;
/// Bytes of a token at least: what cannot be guessed.
pub const MIN_TOKEN: usize = 32;

/// Nothing is loaded from elsewhere, and no script or style stands in the page.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                           connect-src 'self'; base-uri 'none'; form-action 'self'; \
                                           frame-ancestors 'none'";

/// The way in which a request shows that it may ask.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Whoever can connect may ask.
    Open,
    /// Whoever knows the token, of which this is the digest.
    Token([u8; 32]),
    /// Somebody in front has judged.
    Upstream,
}

impl Auth {
    /// The judgement by a token. The error says what is wrong with it.
    pub fn by_token(token: &str) -> Result<Self, String> {
        let token = token.trim();
        if token.len() < MIN_TOKEN {
            return Err(format!("the token has {} bytes; take at least {MIN_TOKEN} random ones", token.len()));
        }
        Ok(Auth::Token(Sha256::digest(token.as_bytes()).into()))
    }
}

/// The checks before a request is answered.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The way in which a request shows that it may ask.
    pub auth: Auth,
    /// The hosts under which the server is known, in lower case; `None` if somebody in front has judged.
    pub hosts: Option<Vec<String>>,
}

/// The names of this machine for itself.
pub const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Guard {
    /// Returns a problem if a request is not to be answered.
    pub fn check(&self, method: &Method, url_bytes: usize, headers: &HeaderMap) -> Result<(), Problem> {
        if method != Method::GET && method != Method::HEAD {
            let detail = "figures are only read: ask with GET or HEAD";
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed", detail));
        }
        if url_bytes > MAX_URL {
            let detail = format!("the URL has {url_bytes} bytes; at most {MAX_URL}");
            return Err(Problem::new(StatusCode::URI_TOO_LONG, "the URL is too long", detail));
        }
        // A page of elsewhere can have its own name resolve to this address, and so read what is answered here; but the
        // browser names it in this header.
        if let Some(hosts) = &self.hosts {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let name = host_name(host).to_ascii_lowercase();
            if !hosts.contains(&name) {
                let detail = format!(
                    "this server is not {name:.100}; if it is to be known by that name, start it with --allowed-host"
                );
                return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "the host is another", detail));
            }
        }
        match &self.auth {
            Auth::Open | Auth::Upstream => Ok(()),
            Auth::Token(digest) if token_of(headers).is_some_and(|token| is_token(&token, digest)) => Ok(()),
            Auth::Token(_) => {
                let detail = "send Authorization: Bearer TOKEN, or the token as the password of HTTP Basic";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "a token is needed", detail))
            }
        }
    }
}

/// The host of a `Host` header, without the port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &host[..end + 2],
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_token(token: &str, digest: &[u8; 32]) -> bool {
    Sha256::digest(token.as_bytes()).ct_eq(digest.as_slice()).into()
}

/// The token of a request: a bearer's, or the password of HTTP Basic, for which a browser asks.
fn token_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(rest.trim()).ok())??;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn status(guard: &Guard, method: Method, host: &str, authorization: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if !authorization.is_empty() {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        guard.check(&method, 10, &headers).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_its_own_names_are_answered() {
        let guard = Guard { auth: Auth::Open, hosts: Some(LOOPBACK_HOSTS.map(str::to_owned).to_vec()) };
        for host in ["localhost", "localhost:8088", "127.0.0.1:8088", "[::1]:8088", "LocalHost"] {
            assert_eq!(status(&guard, Method::GET, host, ""), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "[::2]", "", "[", "[::1"] {
            assert_eq!(status(&guard, Method::GET, host, ""), 421, "{host}");
        }
        assert_eq!(status(&guard, Method::POST, "localhost", ""), 405);
    }

    #[test]
    fn a_token_is_needed_where_one_is_set() {
        let guard = Guard { auth: Auth::by_token(TOKEN).unwrap(), hosts: None };
        // "anyone:TOKEN"
        let basic = "Basic YW55b25lOjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm";
        for good in [&format!("Bearer {TOKEN}"), &format!("bearer {TOKEN}"), basic] {
            assert_eq!(status(&guard, Method::GET, "x", good), 200, "{good}");
        }
        for bad in
            ["", "Bearer", "Bearer x", "Basic ????", "Basic YW55b25lOg==", "Digest x", &format!("Bearer {TOKEN}0")]
        {
            assert_eq!(status(&guard, Method::GET, "x", bad), 401, "{bad}");
        }
        assert!(Auth::by_token("short").is_err());
    }
}
