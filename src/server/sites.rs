//! Which names the server answers to, and whose scripts may call it from a browser.
//!
//! A browser lets any site send requests to any server, and a site that points its own name at
//! 127.0.0.1 (DNS rebinding) even reads the answers. Such a request tells itself by its `Host` and
//! its `Origin`. Where a key is wanted no foreign script has it.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, Uri};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::error::ApiError;
use super::listener::Reach;

/// How long a browser may remember that it may call.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// What scripts of an allowed origin may see of an answer's head.
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-mlxcel-ignored"),
    header::RETRY_AFTER,
];

/// An origin that `--allowed-origins` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`: every site.
    Any,
    /// `https://example.org`, with a port where it is not the scheme's.
    Site(HeaderValue),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "an origin is a scheme and a host, for instance https://example.org:8443, or *"
                .to_owned()
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
        if scheme.is_empty() || host.is_empty() || host.contains(['/', '?', '#', '@', ' ', '*']) {
            return Err(wrong());
        }
        HeaderValue::from_str(&text)
            .map(Self::Site)
            .map_err(|_| wrong())
    }
}

/// The rule for one server.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    /// Names beside this machine's own; `None` answers to every name.
    names: Option<Vec<String>>,
    /// Whether a foreign script's request is refused before it does anything.
    wary: bool,
    origins: Vec<Origin>,
}

impl Sites {
    /// `names` are the host that was bound and those that `--allowed-hosts` gives.
    ///
    /// A server that other machines reach with a key may have any name.
    pub fn new(reach: Reach, keyed: bool, names: Vec<String>, origins: Vec<Origin>) -> Self {
        let checked = match reach {
            // No browser opens it.
            Reach::File => false,
            Reach::Machine => true,
            Reach::Network => !keyed,
        };
        let lower = |name: String| name.to_ascii_lowercase();
        Self {
            names: checked.then(|| names.into_iter().map(lower).collect()),
            wary: reach != Reach::File && !keyed,
            origins,
        }
    }

    /// Refuses what was sent by, or to, a name that is none of the server's.
    pub fn check(&self, parts: &Parts) -> Result<(), ApiError> {
        // Which of several counts would be anybody's guess (RFC 9112, 3.2).
        if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
            return Err(ApiError::several_hosts());
        }
        let host = host(parts);
        if let (Some(names), Some(host)) = (&self.names, host)
            && !is_own(name_of(host), names)
        {
            return Err(ApiError::foreign_host(name_of(host)));
        }
        let looks = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        match parts.headers.get(header::ORIGIN) {
            Some(origin) if self.wary && !looks && !self.welcomes(origin, host) => {
                Err(ApiError::foreign_origin())
            }
            _ => Ok(()),
        }
    }

    fn welcomes(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| Uri::from_str(origin).ok())
            .and_then(|uri| uri.authority().map(|it| it.as_str().to_owned()));
        let same = |own: String| host.is_some_and(|host| own.eq_ignore_ascii_case(host));
        let listed = |allowed: &Origin| match allowed {
            Origin::Any => true,
            Origin::Site(site) => site == origin,
        };
        own.is_some_and(same) || self.origins.iter().any(listed)
    }

    /// What tells browsers who may call; nothing where nobody may.
    pub fn cors(&self) -> Option<CorsLayer> {
        let sites = self.origins.iter().filter_map(|origin| match origin {
            Origin::Any => None,
            Origin::Site(site) => Some(site.clone()),
        });
        let allowed = match self.origins.as_slice() {
            [] => return None,
            all if all.contains(&Origin::Any) => AllowOrigin::any(),
            _ => AllowOrigin::list(sites),
        };
        Some(
            CorsLayer::new()
                .allow_origin(allowed)
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(EXPOSED)
                .max_age(PREFLIGHT_AGE),
        )
    }
}

/// Whom a request is addressed to. One without any is no browser's.
fn host(parts: &Parts) -> Option<&str> {
    let absolute = parts.uri.authority().map(|it| it.as_str());
    absolute.or_else(|| {
        let header = parts.headers.get(header::HOST)?;
        // What is no text is no name of ours either.
        Some(header.to_str().unwrap_or("?"))
    })
}

/// Without the port.
fn name_of(host: &str) -> &str {
    let port = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, rest)) if port(rest) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']')
}

/// A number cannot be pointed elsewhere, and `localhost` never is.
fn is_own(name: &str, names: &[String]) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn open(names: Vec<String>, origins: Vec<Origin>) -> Sites {
        Sites::new(Reach::Machine, false, names, origins)
    }

    fn parts(method: &str, host: Option<&str>, origin: Option<&str>) -> Parts {
        let mut request = Request::builder().method(method).uri("/v1/models");
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn code(sites: &Sites, parts: &Parts) -> Option<String> {
        let refused = sites.check(parts).err()?;
        assert_eq!(refused.status(), 403);
        refused.code().map(str::to_owned)
    }

    #[test]
    fn only_its_own_names_reach_a_local_server() {
        let sites = open(vec!["Box.lan".into()], vec![]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "api.localhost:1",
            "127.0.0.1:8080",
            "192.168.1.7",
            "[::1]:8080",
            "[::1]",
            "box.lan:8080",
            "box.lan.",
        ] {
            assert_eq!(
                code(&sites, &parts("GET", Some(host), None)),
                None,
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[",
            ":80",
        ] {
            let refused = code(&sites, &parts("GET", Some(host), None));
            assert_eq!(refused.as_deref(), Some("host_not_allowed"), "{host:?}");
        }
        assert_eq!(code(&sites, &parts("GET", None, None)), None);
    }

    #[test]
    fn a_request_has_one_host() {
        let mut parts = parts("GET", Some("localhost"), None);
        let second = HeaderValue::from_static("localhost");
        parts.headers.append(header::HOST, second);
        for sites in [open(vec![], vec![]), Sites::default()] {
            assert_eq!(sites.check(&parts).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn who_is_reached_by_a_key_or_a_file_may_have_any_name() {
        let elsewhere = parts("POST", Some("llm.example"), Some("https://a.example"));
        for (reach, keyed, refused) in [
            (Reach::Machine, false, true),
            (Reach::Network, false, true),
            (Reach::Machine, true, true),
            (Reach::Network, true, false),
            (Reach::File, false, false),
        ] {
            let sites = Sites::new(reach, keyed, vec![], vec![]);
            let code = code(&sites, &elsewhere);
            assert_eq!(code.is_some(), refused, "{reach:?} {keyed}");
        }
    }

    #[test]
    fn foreign_scripts_make_no_work_for_an_open_server() {
        let origins = vec!["https://good.example".parse().unwrap()];
        let sites = open(vec![], origins);
        let code = |method: &str, origin| {
            code(&sites, &parts(method, Some("localhost:8080"), Some(origin)))
        };
        for origin in ["https://evil.example", "null", "http://localhost:3000"] {
            let refused = code("POST", origin);
            assert_eq!(refused.as_deref(), Some("origin_not_allowed"), "{origin}");
            assert_eq!(code("GET", origin), None);
        }
        for origin in ["https://good.example", "http://localhost:8080"] {
            assert_eq!(code("POST", origin), None, "{origin}");
        }
    }

    #[test]
    fn origins_are_a_scheme_and_a_host() {
        assert_eq!("*".parse(), Ok(Origin::Any));
        let site = HeaderValue::from_static("https://a.example:8443");
        assert_eq!("HTTPS://A.example:8443".parse(), Ok(Origin::Site(site)));
        for text in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://*.a",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
