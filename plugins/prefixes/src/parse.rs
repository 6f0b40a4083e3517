//! What an operator writes, to prefixes and addresses in the one form that tables know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither a prefix nor an address.
    #[error("{0} is no prefix or address")]
    Text(String),
    /// Bits behind the prefix: most likely another one was meant.
    #[error("{text} has bits set behind the prefix; {without} has none")]
    HostBits {
        /// What was written.
        text: String,
        /// The prefix that holds it.
        without: IpNet,
    },
}

/// A prefix, or an address, which is a prefix of its full length. IPv4 in IPv6 becomes IPv4.
///
/// # Errors
/// [`PrefixError`] says what is wrong with the text.
pub fn parse(text: &str) -> Result<IpNet, PrefixError> {
    let no_prefix = || PrefixError::Text(format!("{text:?}"));
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| no_prefix())?),
    };
    if net.addr() != net.network() {
        return Err(PrefixError::HostBits { text: text.to_owned(), without: net.trunc() });
    }
    let IpNet::V6(v6) = net else { return Ok(net) };
    let Some(address) = mapped(v6.addr()) else { return Ok(net) };
    // A shorter prefix than that of all mapped addresses has bits set behind it.
    let length = v6.prefix_len().checked_sub(96).ok_or_else(no_prefix)?;
    Ok(IpNet::V4(Ipv4Net::new(address, length).map_err(|_| no_prefix())?))
}

/// One address. IPv4 in IPv6 becomes IPv4.
///
/// # Errors
/// [`PrefixError::Text`].
pub fn parse_address(text: &str) -> Result<IpAddr, PrefixError> {
    let address: IpAddr = text.parse().map_err(|_| PrefixError::Text(format!("{text:?}")))?;
    Ok(match address {
        IpAddr::V6(v6) => mapped(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    })
}

fn mapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_prefix_are_one_prefix() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse(text).expect(text).to_string(), expected, "{text}");
        }
        let address = parse_address("::ffff:192.0.2.1");
        assert_eq!(address, Ok(IpAddr::from([192, 0, 2, 1])));
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for (text, expected) in [
            ("nine", "\"nine\" is no prefix or address"),
            ("10.0.0.0/33", "\"10.0.0.0/33\" is no prefix or address"),
            ("10.0.0.1/8", "10.0.0.1/8 has bits set behind the prefix; 10.0.0.0/8 has none"),
            ("2001:db8::1/32", "2001:db8::1/32 has bits set"),
            (
                "::ffff:0:0/95",
                "::ffff:0:0/95 has bits set behind the prefix; ::fffe:0:0/95 has none",
            ),
            ("::ffff:10.0.0.1/104", "has bits set behind the prefix"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
