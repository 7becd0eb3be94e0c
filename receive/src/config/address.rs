//! Listen addresses as Thanos' flags take them.

use std::{fmt, io, net::SocketAddr};

use tokio::net::TcpListener;

/// Where to listen: a host name or IP address, or nothing for all addresses, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Host without brackets; empty for all addresses of both families.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

impl ListenAddress {
    /// Reads `host:port`, `[v6]:port` or `:port`.
    ///
    /// # Errors
    /// If there is no port, or it is no number, or an IPv6 address has no brackets.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| form())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bracketed.is_none() && host.contains([':', '[', ']']) {
            return Err(format!("{text:?}: an IPv6 address must stand in brackets"));
        }
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Self { host, port })
    }

    /// Binds. All addresses means both families if the machine has IPv6, else IPv4.
    ///
    /// # Errors
    /// What the system says: in use, not permitted, no such host.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        if self.host.is_empty() {
            let any_v6 = SocketAddr::from(([0_u16; 8], self.port));
            return match TcpListener::bind(any_v6).await {
                Ok(listener) => Ok(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                Err(_) => TcpListener::bind(SocketAddr::from(([0; 4], self.port))).await,
            };
        }
        TcpListener::bind((self.host.as_str(), self.port)).await
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let check = |text: &str, host: &str, port: u16| {
            let address = ListenAddress::parse(text).expect(text);
            assert_eq!(address, ListenAddress { host: host.to_owned(), port }, "{text}");
            assert_eq!(address.to_string(), text);
        };
        check("0.0.0.0:10902", "0.0.0.0", 10902);
        check(":19291", "", 19291);
        check("[::]:1", "::", 1);
        check("[::1]:10901", "::1", 10901);
        check("localhost:0", "localhost", 0);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "10902", "localhost", "a:b", "a:70000", "a:-1", "::1:80", "[::1", "[::1]", "a:"] {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn all_addresses_are_reached_over_ipv4() {
        let listener = ListenAddress::parse(":0").expect("an address").bind().await.expect("binds");
        let port = listener.local_addr().expect("has an address").port();
        let (client, server) =
            tokio::join!(tokio::net::TcpStream::connect(("127.0.0.1", port)), listener.accept());
        assert_eq!(client.expect("connects").peer_addr().expect("a peer").port(), port);
        assert!(server.is_ok());
    }
}
