//! The nodes of a ring and how their addresses are written.

use std::net::Ipv6Addr;

/// Place of an endpoint in [`Ring::endpoints`](super::Ring::endpoints). Valid for that ring alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex(pub(super) u16);

impl EndpointIndex {
    /// The place as an index of the slice of endpoints.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// A node of a ring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub(super) address: String,
    pub(super) zone: String,
    pub(super) capnproto_address: Option<String>,
}

impl Endpoint {
    /// Host and port, in the letters of the file: they decide the placement.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Availability zone, empty when the file names none.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Address for Cap'n Proto, when the file names one.
    pub fn capnproto_address(&self) -> Option<&str> {
        self.capnproto_address.as_deref()
    }
}

/// Why a text is no address of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No colon and port behind the host.
    #[error("the port is missing, as in \"node-1:10901\"")]
    NoPort,
    /// The port is no number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    InvalidPort,
    /// The host is empty or has characters that no host name has.
    #[error("the host must be a name or an address, without scheme and path")]
    InvalidHost,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address must stand in brackets, as in \"[::1]:10901\"")]
    NoBrackets,
    /// What stands in brackets is no IPv6 address.
    #[error("there is no IPv6 address in the brackets")]
    InvalidIpv6,
}

/// What an address means, whatever its spelling: two endpoints with the same one are one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeKey {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    /// Name or IPv4 address, in small letters.
    Name(String),
    Ipv6(Ipv6Addr),
}

/// Checks an address and gives what it means.
pub(super) fn node_key(address: &str) -> Result<NodeKey, AddressError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (inner, rest) = rest.split_once(']').ok_or(AddressError::InvalidIpv6)?;
            let ip: Ipv6Addr = inner.parse().map_err(|_| AddressError::InvalidIpv6)?;
            (Host::Ipv6(ip), rest.strip_prefix(':').ok_or(AddressError::NoPort)?)
        }
        None => {
            if address.parse::<Ipv6Addr>().is_ok() {
                return Err(AddressError::NoBrackets);
            }
            let (name, port) = address.rsplit_once(':').ok_or(AddressError::NoPort)?;
            if name.parse::<Ipv6Addr>().is_ok() {
                return Err(AddressError::NoBrackets);
            }
            let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if name.is_empty() || !name.bytes().all(is_of_name) {
                return Err(AddressError::InvalidHost);
            }
            (Host::Name(name.to_ascii_lowercase()), port)
        }
    };
    // The parser of numbers takes a sign, too.
    let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits_only && port != 0 => Ok(NodeKey { host, port }),
        _ => Err(AddressError::InvalidPort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |address: &str, expected: Result<(), AddressError>| {
            assert_eq!(node_key(address).map(drop), expected, "{address:?}");
        };
        check("node-1:10901", Ok(()));
        check("weir-0.weir_headless.monitoring.svc.cluster.local.:10901", Ok(()));
        check("10.0.0.1:1", Ok(()));
        check("[::1]:10901", Ok(()));
        check("[2001:db8::7]:65535", Ok(()));
        check("", Err(AddressError::NoPort));
        check("node-1", Err(AddressError::NoPort));
        check("[::1]", Err(AddressError::NoPort));
        check("node-1:", Err(AddressError::InvalidPort));
        check("node-1:0", Err(AddressError::InvalidPort));
        check("node-1:+1", Err(AddressError::InvalidPort));
        check("node-1:65536", Err(AddressError::InvalidPort));
        check("node-1:http", Err(AddressError::InvalidPort));
        check("[::1]:-1", Err(AddressError::InvalidPort));
        check(":10901", Err(AddressError::InvalidHost));
        check("http://node-1:10901", Err(AddressError::InvalidHost));
        check("node 1:10901", Err(AddressError::InvalidHost));
        check("::1", Err(AddressError::NoBrackets));
        check("2001:db8:0:0:0:0:0:7:10901", Err(AddressError::NoBrackets));
        check("[node-1]:10901", Err(AddressError::InvalidIpv6));
        check("[::1", Err(AddressError::InvalidIpv6));
    }

    #[test]
    fn spellings_of_one_node() {
        let same = |a, b| node_key(a).expect("an address") == node_key(b).expect("an address");
        assert!(same("Node-1:10901", "node-1:010901"));
        assert!(same("[::1]:10901", "[0:0::0001]:10901"));
        assert!(!same("node-1:10901", "node-1:10902"));
        assert!(!same("node-1:10901", "node-2:10901"));
    }
}
