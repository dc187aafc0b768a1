//! The client's address: the connection's, or what a proxy in front says, where that proxy is trusted.

use std::net::IpAddr;
use std::str::FromStr;

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The networks whose word is taken for a client's address.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

/// It is no network.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0} is neither an address nor a network as in 10.0.0.0/8")]
pub(crate) struct InvalidNetwork(String);

impl FromStr for TrustedProxies {
    type Err = InvalidNetwork;

    fn from_str(list: &str) -> Result<Self, InvalidNetwork> {
        let network = |text: &str| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| address()).map_err(|_| InvalidNetwork(text.to_owned()))
        };
        let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self(parts.map(network).collect::<Result<_, _>>()?))
    }
}

impl TrustedProxies {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whose request it is. The list of hops is read from its end, which is the nearest, up to the first that is not
    /// trusted: what stands before that may be anybody's invention. A proxy sets one of the two headers and may let a
    /// client's own version of the other through, so where both are there and differ neither is believed.
    pub(crate) fn client_of(&self, request: &HttpRequest) -> Option<IpAddr> {
        Some(self.client(request.peer_addr()?.ip().to_canonical(), request.headers()))
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let x_forwarded_for =
            self.nearest_untrusted(peer, hops(headers, X_FORWARDED_FOR.as_str(), |hop| Some(hop)));
        let forwarded = self.nearest_untrusted(peer, hops(headers, FORWARDED.as_str(), forwarded_for));
        match (x_forwarded_for, forwarded) {
            (Some(client), None) | (None, Some(client)) => client,
            (Some(client), Some(other)) if client == other => client,
            _ => peer,
        }
    }

    /// `None` where there are no hops.
    fn nearest_untrusted(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> Option<IpAddr> {
        if hops.is_empty() {
            return None;
        }
        let mut nearest = peer;
        for hop in hops.into_iter().rev() {
            // Behind a hop without an address, nothing is known.
            let Some(hop) = hop else { break };
            nearest = hop;
            if !self.contains(hop) {
                break;
            }
        }
        Some(nearest)
    }
}

/// Every hop of a header, farthest first; `None` for one that is no address.
fn hops(headers: &HeaderMap, name: &str, element: fn(&str) -> Option<&str>) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(name).flat_map(|line| line.to_str().unwrap_or("?").split(','));
    lines.map(|hop| element(hop.trim()).and_then(address)).collect()
}

/// The `for` of an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    let with_port = || text.parse::<std::net::SocketAddr>().map(|address| address.ip());
    let address = bracketed.unwrap_or(text).parse().or_else(|_| with_port()).ok()?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    const PROXY: &str = "10.0.0.1";

    /// The client whom a proxy in 10.0.0.0/8 or ::1 speaks for.
    fn client(peer: &str, lines: &[(HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let proxies: TrustedProxies = "10.0.0.0/8, ::1".parse().unwrap();
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(client("192.0.2.1", &[(X_FORWARDED_FOR, "198.51.100.7")]), "192.0.2.1");
        assert_eq!(client(PROXY, &[(X_FORWARDED_FOR, "198.51.100.7")]), "198.51.100.7");
        assert_eq!(client(PROXY, &[(FORWARDED, "for=198.51.100.7;proto=https")]), "198.51.100.7");
        assert_eq!(client(PROXY, &[]), PROXY);
    }

    #[test]
    fn what_a_client_wrote_in_front_is_not_believed() {
        assert_eq!(client(PROXY, &[(X_FORWARDED_FOR, "1.1.1.1, 198.51.100.7, 10.0.0.9")]), "198.51.100.7");
        let lines = [(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_FOR, "198.51.100.7")];
        assert_eq!(client(PROXY, &lines), "198.51.100.7");
        assert_eq!(client(PROXY, &[(X_FORWARDED_FOR, "198.51.100.7, nonsense, 10.0.0.9")]), "10.0.0.9");
    }

    #[test]
    fn where_the_two_headers_differ_neither_is_believed() {
        let lines = [(FORWARDED, "for=1.1.1.1"), (X_FORWARDED_FOR, "198.51.100.7")];
        assert_eq!(client(PROXY, &lines), PROXY);
        let lines = [(FORWARDED, "for=198.51.100.7"), (X_FORWARDED_FOR, "198.51.100.7")];
        assert_eq!(client(PROXY, &lines), "198.51.100.7");
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (hop, seen) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("unknown", PROXY),
            ("", PROXY),
        ] {
            assert_eq!(client(PROXY, &[(X_FORWARDED_FOR, hop)]), seen, "{hop}");
        }
        assert_eq!(client(PROXY, &[(FORWARDED, "proto=http;For=\"[2001:db8::1]:4711\"")]), "2001:db8::1");
        assert_eq!(client(PROXY, &[(FORWARDED, "for=_hidden")]), PROXY);
    }

    #[test]
    fn a_list_of_networks_is_read_or_refused() {
        assert!("".parse::<TrustedProxies>().unwrap().0.is_empty());
        assert!("10.0.0.0/33".parse::<TrustedProxies>().is_err());
        assert!("proxy.example".parse::<TrustedProxies>().is_err());
    }
}
